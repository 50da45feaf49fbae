"""A prompt on real images: rendered for one, tried on a few."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import F
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django_htmx.http import HttpResponseStopPolling, trigger_client_event

from prompts.actions import check_prompt
from prompts.models import Prompt
from prompts.rendering import PromptError, names_used
from prompts.rendering import render as render_prompt
from prompts.tokens import estimate

from ..actions.access import may
from ..actions.trials import MOST_IMAGES, try_prompt
from ..adapters.registry import UnknownAdapter
from ..engine.contexts import Contexts
from ..forms import SchemaForm
from ..models import Chunk, Collection, ImageAsset, ModelAdapter, PolicyVersion, Proposal, Run
from .guard import Request, needs
from .home import served, workers
from .prompt_text import number_of, typed

PICKED = 48  # images offered at once


def adapters_for(prompt: Prompt | None) -> tuple[list[ModelAdapter], list[ModelAdapter]]:
    """Models that take a prompt (those of its families first), and those that take none."""
    with_prompt: list[ModelAdapter] = []
    without: list[ModelAdapter] = []
    for row in ModelAdapter.objects.filter(enabled=True):
        try:
            takes = row.adapter_class.capabilities.prompt
        except (UnknownAdapter, ImportError, TypeError):
            continue
        (with_prompt if takes else without).append(row)
    families = prompt.families if prompt else []
    return sorted(with_prompt, key=lambda row: bool(families) and row.kind not in families), without


def first_images() -> list[ImageAsset]:
    """What is shown before a person chose: an image of the collection that was indexed last."""
    newest = Collection.objects.order_by(F("indexed_at").desc(nulls_last=True), "-pk").first()
    if newest is None:
        return []
    return list(ImageAsset.objects.filter(collection=newest).usable().exclude(sha256="").order_by("pk")[:1])


@needs("read")
def pick(request: Request) -> HttpResponse:
    """Images to choose from: of a collection, with `q` in their path."""
    images = ImageAsset.objects.usable().exclude(sha256="").select_related("collection")
    collection = Collection.objects.filter(slug=request.GET.get("collection", "")).first()
    if collection:
        images = images.filter(collection=collection)
    text = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    if text:
        images = images.filter(path__icontains=text)
    return render(request, "prompts/partials/pick.html", {"images": images.order_by("-pk")[:PICKED]})


def chosen_images(request: Request) -> list[ImageAsset]:
    """Those that the form names, in its order."""
    ids = [int(pk[:18]) for pk in request.POST.getlist("image") if pk.isdecimal()][: MOST_IMAGES + 1]
    found = ImageAsset.objects.select_related("collection").in_bulk(ids)
    return [found[pk] for pk in dict.fromkeys(ids) if pk in found]


# -- rendered ----------------------------------------------------------------------------------------------------------
@needs("read", "POST")
def preview(request: Request, slug: str) -> HttpResponse:
    """The typed text for the first chosen image, with what is wrong in it: the lines go to the editor as an event."""
    row = get_object_or_404(Prompt.objects.listed(), slug=slug)
    system, template, schema, schema_problem = typed(request)
    problems: list[dict[str, Any]] = []
    try:
        check_prompt(system, template, schema)
    except ValidationError as error:
        problems = [_problem(part, line) for part, lines in error.message_dict.items() for line in lines]
    if schema_problem:
        problems.append(_problem("response_schema", schema_problem))
    images = chosen_images(request)
    context: dict[str, Any] = {"row": row, "image": images[0] if images else None, "problems": problems}
    if not problems and (system.strip() or template.strip()):
        context |= _rendered(images[0] if images else None, system, template, schema)
        problems += context.pop("found")
    response = render(request, "prompts/prompt.html#preview", context)
    return trigger_client_event(response, "prompt-problems", {"problems": problems})


def _problem(part: str, text: str) -> dict[str, Any]:
    """ "Line 3: …" taken apart."""
    head, _, rest = text.partition(": ")
    number = head.removeprefix("Line ")
    if rest and number.isdecimal():
        return {"part": part, "line": int(number), "message": rest}
    return {"part": part, "line": 0, "message": text}


def _rendered(image: ImageAsset | None, system: str, template: str, schema: Any) -> dict[str, Any]:
    names = names_used(system) | names_used(template)
    contexts = Contexts([image] if image else [], names)
    try:
        text = render_prompt(system, template, contexts.of(image) if image else contexts.nothing())
    except PromptError as error:
        found = [{"part": p.part, "line": p.line, "message": p.message} for p in error.problems]
        return {"found": found, "failed": [str(p) for p in error.problems]}
    schema_text = json.dumps(schema, ensure_ascii=False) if schema else ""
    return {
        "found": [],
        "rendered": text,
        "tokens": estimate(text.system) + estimate(text.prompt) + estimate(schema_text),
        "characters": len(text.system) + len(text.prompt),
    }


# -- tried -------------------------------------------------------------------------------------------------------------
@needs("curate", "POST")
def start(request: Request, slug: str) -> HttpResponse:
    """Start a trial of the typed text; what comes back is polled."""
    row = get_object_or_404(Prompt.objects.listed(), slug=slug)
    system, template, schema, problem = typed(request)
    adapter = ModelAdapter.objects.filter(slug=request.POST.get("adapter", ""), enabled=True).first()
    try:
        if problem:
            raise ValidationError({"response_schema": problem})
        if adapter is None:
            raise ValidationError({"adapter": "Choose a model."})
        run = try_prompt(
            row,
            adapter,
            chosen_images(request),
            system=system,
            template=template,
            response_schema=schema,
            options=_options(request, adapter),
            policy_version=PolicyVersion.objects.filter(pk=number_of(request.POST.get("policy", ""))).first(),
            sample=min(number_of(request.POST.get("sample", "")), 999),
            by=request.user,
        )
    except ValidationError as error:
        found = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        return render(request, "prompts/partials/trial.html", {"errors": found})
    return _results(request, run)


def _options(request: Request, adapter: ModelAdapter) -> dict[str, Any]:
    """The adapter's options, changed where the form says so."""
    text = request.POST.get("temperature", "").strip()
    if not text:
        return dict(adapter.options)
    form = SchemaForm(adapter.adapter_class.Options)
    if "temperature" not in form.properties:
        raise ValidationError({"adapter": f"{adapter.label} has no temperature."})
    try:
        return {**adapter.options, "temperature": float(text)}
    except ValueError:
        raise ValidationError({"adapter": "The temperature is a number."}) from None


@dataclass
class Tried:
    """One image of a trial; `proposal` None: not yet."""

    image: ImageAsset
    proposal: Proposal | None

    @property
    def kept(self) -> list[list[Any]]:
        return [tag for tag in self.proposal.tags if tag[3] != "dropped"] if self.proposal else []

    @property
    def dropped(self) -> list[list[Any]]:
        return [tag for tag in self.proposal.tags if tag[3] == "dropped"] if self.proposal else []


@needs("read")
def results(request: Request, pk: int) -> HttpResponse:
    """What a trial says so far. 286 ends the polling when it is over."""
    run = get_object_or_404(Run, pk=pk, purpose=Run.Purpose.TRIAL)
    response = _results(request, run)
    return response if run.state in Run.OPEN else HttpResponseStopPolling(response.content)


def _results(request: Request, run: Run) -> HttpResponse:
    ids = [pk for chunk in Chunk.objects.filter(run=run, stage=0).order_by("lo") for pk in chunk.images]
    images = ImageAsset.objects.select_related("collection").in_bulk(ids)
    rows = Proposal.objects.filter(run=run).select_related("prediction")
    by_image = {row.image_id: row for row in rows}
    channel = run.recipe.channels.select_related("adapter", "prompt_version__prompt").first()
    context = {
        "run": run,
        "tried": [Tried(images[pk], by_image.get(pk)) for pk in ids if pk in images],
        "channel": channel,
        "open": run.state in Run.OPEN,
        "unattended": run.state == Run.State.RUNNING and run.started_at is None and not served(workers(), "gpu", "io"),
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "prompts/partials/trial.html", context)
