"""The workbench: up to five images, up to four ways of asking, side by side. The address holds all of it."""

from __future__ import annotations

import random
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import F, Max, Min, QuerySet
from django.http import Http404, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django_htmx.http import push_url

from prompts.actions import create_prompt, create_version
from prompts.models import Prompt, PromptVersion

from ..actions.access import may
from ..actions.labels import UnknownLabel, find_recipe
from ..actions.policies import create_policy_version
from ..actions.trials import MOST_IMAGES, start_trial
from ..filters import ImageFilter
from ..models import Collection, ImageAsset, Label, Recipe
from ..queries import filtered
from .bench_panes import LETTERS, OFFERED, TASKS, Bench, Pane, channel_data
from .bench_results import results
from .channelform import refusals
from .guard import Request, needs

#: images to begin with, of a collection or a filter
FIRST = 2


# -- the page ----------------------------------------------------------------------------------------------------------
@needs("read")
def workbench(request: Request) -> HttpResponse:
    """The whole page as the address says; what is stored is shown at once."""
    return _page(request, Bench(request.GET, request.user, _first_images(request)))


def _page(request: Request, bench: Bench, status: int = 200, **more: Any) -> HttpResponse:
    found = results(bench)
    context = {
        "bench": bench,
        "results": found,
        "poll_url": _poll_url(bench),
        "collections": Collection.objects.only("slug", "name"),
        "labels": Label.objects.select_related("recipe", "adapter", "collection").order_by("name", "pk")[:OFFERED],
        "recipes": Recipe.objects.exclude(name="").order_by("-pk")[:OFFERED],
        "prompts": Prompt.objects.listed().filter(task__in=TASKS),
        "may_curate": may(request.user, "curate"),
        "most": MOST_IMAGES,
        **more,
    }
    return render(request, "tagging/workbench.html", context, status=status)


def _first_images(request: Request) -> list[ImageAsset]:
    """Of the filter or collection that the address names, or of the one indexed last, where it names no image."""
    if request.GET.getlist("i") or request.GET.getlist("pane"):
        return []
    slug = request.GET.get("collection", "")
    rows = Collection.objects.order_by(F("indexed_at").desc(nulls_last=True), "-pk")
    collection = (rows.filter(slug=slug) if slug else rows).first()
    if collection is None:
        return []
    usable = {"state": ImageAsset.State.READY, "missing_since": None}
    images: QuerySet[ImageAsset] = ImageAsset.objects.filter(collection=collection)
    if text := request.GET.get("filter", ""):
        try:
            images = filtered(collection, ImageFilter.parse(QueryDict(text)))
        except ValidationError as error:
            messages.warning(request, f"The filter is left out: {' '.join(error.messages)}")
    found = images.filter(**usable).exclude(sha256="").select_related("collection")
    return list(found.order_by("pk")[:FIRST])


# -- pieces ------------------------------------------------------------------------------------------------------------
@needs("curate", "POST")
def show(request: Request) -> HttpResponse:
    """After a change: what is known of it already. The address follows."""
    bench = Bench(request.POST, request.user)
    return push_url(_results(request, bench), bench.address)


@needs("curate", "POST")
def run(request: Request) -> HttpResponse:
    """Ask what is not known yet; `anew`: everything, which the workers' cache may still answer."""
    bench = Bench(request.POST, request.user)
    anew = bool(request.POST.get("anew"))
    found = results(bench)
    problem = "" if bench.images else "Choose an image first."
    started = False
    for pane in bench.panes:
        cells = [(row.image, cell) for row in found.rows for cell in row.cells if cell.pane is pane]
        open_ = [
            image
            for image, cell in cells
            if (anew or cell.answer is None or cell.answer.error) and not (cell.waiting and not cell.waiting.error)
        ]
        if pane.recipe is None or not open_:
            continue
        try:
            start_trial(pane.recipe, open_, name=f"Workbench: {pane.title}", sample=bench.sample, by=request.user)
            started = True
        except ValidationError as error:
            pane.errors.setdefault("form", []).extend(error.messages)
    if started or any(pane.errors for pane in bench.panes):
        found = results(bench)
    return push_url(_render(request, bench, found, problem), bench.address)


@needs("read")
def poll(request: Request) -> HttpResponse:
    """The results of an address as they are now; nothing where they are as the page has them."""
    bench = Bench(request.GET, request.user)
    found = results(bench)
    if found.token == request.GET.get("token", ""):
        return HttpResponse(status=204)
    return _render(request, bench, found)


def _results(request: Request, bench: Bench) -> HttpResponse:
    return _render(request, bench, results(bench))


def _render(request: Request, bench: Bench, found: Any, problem: str = "") -> HttpResponse:
    context = {
        "bench": bench,
        "results": found,
        "poll_url": _poll_url(bench),
        "problem": problem,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "tagging/partials/bench_results.html", context)


def _poll_url(bench: Bench) -> str:
    return f"{reverse('tagging:workbench_poll')}?{bench.state().urlencode()}"


def _pane(bench: Bench, letter: str) -> Pane:
    found = next((p for p in bench.panes if p.letter == letter), None)
    if found is None:
        raise Http404("There is no such pane.")
    return found


@needs("curate")
def text(request: Request, letter: str) -> HttpResponse:
    """The chosen version's text to be edited; `?drop`: back to the saved one."""
    if letter not in LETTERS:
        raise Http404("There is no such pane.")
    pk = request.GET.get(f"{letter}-prompt", "")
    version = PromptVersion.objects.filter(pk=int(pk[:18])).first() if pk.isdecimal() else None
    context = {
        "letter": letter,
        "editing": "drop" not in request.GET,
        "template": version.template if version else "",
        "system": version.system if version else "",
    }
    return render(request, "tagging/partials/bench_text.html", context)


@needs("curate")
def rules(request: Request, letter: str) -> HttpResponse:
    """The rules of the chosen policy to be edited; `?drop`: back to the saved ones."""
    data = request.GET.copy()
    if letter not in data.getlist("pane"):
        data.appendlist("pane", letter)
    data.pop(f"{letter}-rules", None)
    return render(
        request,
        "tagging/partials/bench_rules.html",
        {"pane": _pane(Bench(data, request.user), letter), "editing": "drop" not in request.GET},
    )


# -- the panes themselves ----------------------------------------------------------------------------------------------
@needs("curate", "POST")
def change(request: Request) -> HttpResponse:
    """Add, copy, unpack or drop a pane, or take other images: the address that says so."""
    bench = Bench(request.POST, request.user)
    verb, _, letter = request.POST.get("do", "").partition("-")
    match verb:
        case "random":
            bench.images = _random(request.POST.get("collection", ""), max(1, len(bench.images)))
        case "add" | "copy":
            return _to(_copied(bench, letter))
        case "unpack":
            return _to(_unpacked(request, bench, letter))
        case "drop":
            bench.panes = [p for p in bench.panes if p.letter != letter] or bench.panes
    return HttpResponseRedirect(bench.address)


def _to(state: QueryDict) -> HttpResponse:
    return HttpResponseRedirect(f"{reverse('tagging:workbench')}?{state.urlencode()}")


def _random(slug: str, n: int) -> list[ImageAsset]:
    """Any `n` images that can be read; found by id, for a table may be long."""
    images = ImageAsset.objects.usable().exclude(sha256="").select_related("collection").order_by("pk")
    images = images.filter(collection__slug=slug) if slug else images
    ends = images.order_by().aggregate(low=Min("pk"), high=Max("pk"))
    found: dict[int, ImageAsset] = {}
    for _ in range(n * 4):
        if ends["low"] is None or len(found) == n:
            break
        row = images.filter(pk__gte=random.randint(ends["low"], ends["high"])).first()
        if row is not None:
            found[row.pk] = row
    return list(found.values())


def _copied(bench: Bench, letter: str) -> QueryDict:
    """One pane more: as the named one, else as the last."""
    state = bench.state()
    free = bench.free
    if not free:
        return state
    like = next((p for p in bench.panes if p.letter == letter), bench.panes[-1])
    for name, value in like.state():
        if name == "pane":
            state.appendlist("pane", free)
        else:
            state.appendlist(f"{free}{name[1:]}", value)
    return state


def _unpacked(request: Request, bench: Bench, letter: str) -> QueryDict:
    """A recipe of one channel as model, prompt, options and policy, to be changed."""
    pane, state = _pane(bench, letter), bench.state()
    try:
        found = find_recipe(pane.value("recipe"))
    except UnknownLabel as error:
        messages.error(request, str(error))
        return state
    channels = list(found.channels.select_related("adapter", "prompt_version"))
    if len(channels) != 1:
        messages.warning(request, f"{found} has several channels: change it in the builder.")
        return state
    for name in [n for n in state if n.startswith(f"{letter}-")]:
        del state[name]
    for name, values in channel_data(f"{letter}-", channels[0]).items():
        state.setlist(name, values)
    state[f"{letter}-policy"] = str(found.policy_version_id)
    return state


# -- keep it -----------------------------------------------------------------------------------------------------------
@needs("curate", "POST")
def keep(request: Request, letter: str) -> HttpResponse:
    """A pane as a recipe: an edited text and edited rules become versions first. Then on, to where `then` says."""
    bench = Bench(request.POST, request.user)
    pane = _pane(bench, letter)
    try:
        recipe = _keep(pane, request)
    except ValidationError as error:
        lines = [line for found in refusals(error).values() for line in found]
        return _page(request, bench, 422, keep=letter, refused=lines)
    then = request.POST.get("then", "")
    messages.success(request, f"Kept as recipe {recipe.pk}, {recipe}.")
    if then == "promote":
        return HttpResponseRedirect(f"{reverse('tagging:labels')}?recipe={recipe.pk}&name=candidate#move-label")
    if then == "run":
        where = f"&collection={bench.images[0].collection.slug}" if bench.images else ""
        return HttpResponseRedirect(f"{reverse('tagging:run_new')}?by=recipe&recipe={recipe.pk}{where}")
    return HttpResponseRedirect(Bench(_settled(bench, pane, recipe), request.user).address)


def _keep(pane: Pane, request: Request) -> Recipe:
    name, message = pane.keep_name, pane.keep_message
    edited = pane.edited and pane.channel.takes_prompt and pane.text != pane.channel.prompt
    if (edited or pane.rules_edited) and not message:
        raise ValidationError({"message": "Say in a line what changed: the edited text or rules become a version."})
    if edited:
        pane.kept = _version(pane, message, request)
        pane.__dict__.pop("text", None)
    if pane.rules_edited:
        if not pane.rules.is_valid():
            raise ValidationError({"policy": pane.rules.all_errors})
        base = pane.rules.version or pane.policy
        if base is None:
            base = pane.recipe.policy_version if pane.recipe else None
        if base is None:
            raise ValidationError({"policy": "Choose the policy that these rules are to be a version of."})
        version = create_policy_version(
            base.policy, pane.rules.spec, pane.rules.chosen(), message=message, by=request.user
        )
        data = pane.data.copy()
        data[f"{pane.prefix}policy"] = str(version.pk)
        data.pop(f"{pane.prefix}rules", None)
        kept, pane = pane.kept, Pane(pane.letter, pane.position, data, pane.by, Bench(data, pane.by))
        pane.kept = kept
    recipe = pane._named() if pane.is_recipe else pane._made(name)
    if recipe is None:
        raise ValidationError({"form": pane.problems})
    if name and not recipe.name:
        Recipe.objects.filter(pk=recipe.pk, name="").update(name=name)
        recipe.name = name
    return recipe


def _version(pane: Pane, message: str, request: Request) -> PromptVersion:
    """The edited text as the next version of its prompt, or as the first one of a new prompt."""
    base, slug = pane.channel.prompt, pane.keep_slug
    if slug:
        prompt = create_prompt(slug=slug, name=slug, task=base.prompt.task if base else Prompt.Task.TAGS)
    elif base:
        prompt = base.prompt
    else:
        raise ValidationError({"slug": "Give the new prompt a short name."})
    return create_version(
        prompt,
        system=pane.system,
        template=pane.template,
        response_schema=base.response_schema if base else None,
        message=message,
        parent=base,
        by=request.user,
    )


def _settled(bench: Bench, pane: Pane, recipe: Recipe) -> QueryDict:
    """The state in which that pane is what was kept."""
    state = bench.state()
    if pane.is_recipe:
        state[f"{pane.prefix}recipe"] = str(recipe.pk)
        kept = {}
    else:
        kept = channel_data(pane.prefix, recipe.channels.select_related("adapter", "prompt_version").get())
        for name in [n for n in state if n.startswith(pane.prefix)]:
            del state[name]
    for name in [
        n for n in state if n.startswith((f"{pane.prefix}rule", f"{pane.prefix}caption", f"{pane.prefix}lists"))
    ]:
        del state[name]
    for name, values in kept.items():
        state.setlist(name, values)
    state[f"{pane.prefix}policy"] = str(recipe.policy_version_id)
    return state
