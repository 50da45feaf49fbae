"""Prompts: the list of them, and the editor with versions, drafts, difference and use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Max
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from prompts import actions, diffing
from prompts.drafts import discard_draft, draft_of
from prompts.models import Prompt, PromptVersion, Wordlist
from prompts.rendering import free_variables
from prompts.tokens import HOW

from ..actions.access import may
from ..actions.prompt_use import MEASURED, Use, champions, last_used, uses_of
from ..models import Collection, Label
from .guard import Request, needs
from .prompt_text import number_of, typed
from .prompt_trying import adapters_for, first_images
from .prompt_variables import VARIABLES

VERSIONS = 60
TASKS = Prompt.Task.choices


# -- all of them -------------------------------------------------------------------------------------------------------
@needs("read")
def prompts(request: Request) -> HttpResponse:
    """All prompts by task."""
    task = request.GET.get("task", "")
    rows = Prompt.objects.listed().annotate(n_versions=Count("versions"), changed_at=Max("versions__created_at"))
    marks, used = champions(), last_used()
    found = [(row, marks.get(row.pk, []), used.get(row.pk)) for row in (rows.filter(task=task) if task else rows)]
    groups = [(label, [r for r in found if r[0].task == value]) for value, label in TASKS]
    context = {
        "groups": [(label, rows) for label, rows in groups if rows],
        "task": task,
        "tasks": TASKS,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "prompts/prompts.html", context)


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """Make a prompt; its first text is written in the editor."""
    errors: dict[str, list[str]] = {}
    values = request.POST if request.method == "POST" else request.GET
    if request.method == "POST":
        try:
            made = actions.create_prompt(
                slug=values.get("slug", "").strip(),
                name=values.get("name", "").strip(),
                task=values.get("task", "tags"),
                families=[kind for kind in request.POST.getlist("families") if kind],
            )
        except ValidationError as e:
            errors = e.message_dict
        else:
            return redirect("tagging:prompt", made.slug)
    context = {
        "values": values,
        "errors": errors,
        "tasks": TASKS,
        "kinds": _kinds(),
        "chosen": request.POST.getlist("families"),
    }
    return render(request, "prompts/prompt_new.html", context, status=422 if errors else 200)


def _kinds() -> list[str]:
    """Adapter kinds that are configured here and take a prompt."""
    return sorted({row.kind for row in adapters_for(None)[0]})


# -- one of them -------------------------------------------------------------------------------------------------------
@dataclass
class Node:
    """A version in the tree: `lane` is how far it stands to the right, `follows` whether it was made from the one
    below it, `forks` are versions of other prompts."""

    version: PromptVersion
    lane: int
    follows: bool
    use: Use
    forks: list[PromptVersion]


def tree(versions: list[PromptVersion], uses: dict[int, Use]) -> list[Node]:
    """The versions newest first; one that does not follow from the one before it opens a lane."""
    children: dict[int, list[PromptVersion]] = {}
    for fork in PromptVersion.objects.filter(parent__in=versions, prompt__hidden=False).select_related("prompt"):
        children.setdefault(fork.parent_id or 0, []).append(fork)
    lanes: dict[int, int] = {}
    taken: set[int] = set()
    highest = 0
    for version in sorted(versions, key=lambda v: v.number):
        parent = version.parent_id
        if parent in lanes and parent not in taken:
            lanes[version.pk] = lanes[parent]
            taken.add(parent)
        elif not lanes:
            lanes[version.pk] = 0
        else:
            highest += 1
            lanes[version.pk] = highest
    below = [*versions[1:], None]
    return [
        Node(
            v,
            lanes[v.pk],
            before is not None and v.parent_id == before.pk,
            uses.get(v.pk) or Use(),
            [fork for fork in children.get(v.pk, []) if fork.prompt_id != v.prompt_id],
        )
        for v, before in zip(versions, below, strict=False)  # `below` has None even for none
    ]


@needs("read")
def prompt(request: Request, slug: str) -> HttpResponse:
    """The editor: the draft of this person, else the newest version; `?v=` begins with another version."""
    row = _prompt(slug)
    return render(request, "prompts/prompt.html", _page(request, row))


def _prompt(slug: str) -> Prompt:
    return get_object_or_404(Prompt.objects.listed(), slug=slug)


def _page(request: Request, row: Prompt, typed: dict[str, Any] | None = None) -> dict[str, Any]:
    versions = list(row.versions.select_related("created_by", "parent__prompt").order_by("-number")[: VERSIONS + 1])
    more, versions = len(versions) > VERSIONS, versions[:VERSIONS]
    number = request.GET.get("v", "")
    wanted = get_object_or_404(row.versions, number=int(number[:9])) if number.isdecimal() else None
    newest = versions[0] if versions else None
    draft = draft_of(row, request.user) if may(request.user, "curate") else None
    shown_draft = draft if wanted is None and typed is None else None
    base = (draft.base if draft else None) if shown_draft else wanted
    base = base or newest
    text = typed or _text(shown_draft, base)
    uses = uses_of(versions, measured=MEASURED)
    with_prompt, without = adapters_for(row)
    return {
        "row": row,
        "newest": newest,
        "base": base,
        "nodes": tree(versions, uses),
        "more_versions": more,
        "draft": draft,
        "shown_draft": shown_draft,
        "behind": bool(newest and base and base.prompt_id == row.pk and base.number < newest.number and not wanted),
        "text": text,
        "compare": _comparable(row, versions),
        "variables": VARIABLES,
        "free": _free(text),
        "wordlists": list(Wordlist.objects.filter(versions__isnull=False).distinct().values_list("slug", "kind")),
        "collections": list(Collection.objects.only("slug", "name").order_by("name")),
        "images": first_images(),
        "adapters": with_prompt,
        "adapters_without": without,
        "token_how": HOW,
        "tasks": TASKS,
        "kinds": sorted({*_kinds(), *row.families}),
        "may_curate": may(request.user, "curate"),
    }


def _text(draft: Any, base: PromptVersion | None) -> dict[str, Any]:
    if draft is not None:
        return {
            "system": draft.system,
            "template": draft.template,
            "response_schema": draft.response_schema,
            "message": draft.message,
        }
    if base is None:
        return {"system": "", "template": "", "response_schema": "", "message": ""}
    return {
        "system": base.system,
        "template": base.template,
        "response_schema": _schema_text(base.response_schema),
        "message": "",
    }


def _schema_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) if value is not None else ""


def _free(text: dict[str, Any]) -> dict[str, Any]:
    try:
        return {**free_variables(text["system"]), **free_variables(text["template"])}
    except Exception:  # it does not parse: the preview says where
        return {}


def _comparable(row: Prompt, versions: list[PromptVersion]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(group, [(value, words)]) of what the text can be compared with."""
    near = [("parent", "the version it was made from")]
    rests = Label.objects.filter(recipe__channels__prompt_version__prompt__task=row.task)
    for label in rests.select_related("adapter", "collection").distinct()[:20]:
        near.append((f"label:{label.pk}", f"{label.name} ({label.scope})"))
    groups = [("", near), (row.name, [(str(v.pk), f"v{v.number} {v.message}"[:80]) for v in versions])]
    others = (
        PromptVersion.objects.filter(prompt__task=row.task, prompt__hidden=False)
        .exclude(prompt=row)
        .select_related("prompt")
        .order_by("prompt__slug", "-number")[:100]
    )
    groups.append(("Other prompts", [(str(v.pk), str(v)) for v in others]))
    return [(name, choices) for name, choices in groups if choices]


@needs("curate", "POST")
def save(request: Request, slug: str) -> HttpResponse:
    """The typed text as the next version. Where somebody saved one meanwhile, that is shown first."""
    row = _prompt(slug)
    system, template, schema, problem = typed(request)
    base = PromptVersion.objects.filter(pk=number_of(request.POST.get("base", ""))).first()
    newest = row.versions.select_related("created_by").order_by("-number").first()
    errors: dict[str, list[str]] = {"response_schema": [problem]} if problem else {}
    if newest and newest.number != number_of(request.POST.get("newest", "")):
        errors["newest"] = [
            f"{newest.created_by or 'Somebody'} saved version {newest.number} meanwhile ({newest.message}). "
            "Look at it below; saving again makes yours the next version."
        ]
    if not errors:
        try:
            version = actions.create_version(
                row,
                system=system,
                template=template,
                response_schema=schema,
                message=request.POST.get("message", ""),
                parent=base,
                by=request.user,
            )
        except ValidationError as error:
            errors = error.message_dict
        else:
            discard_draft(row, request.user)
            messages.success(request, f"Saved as version {version.number}.")
            return redirect("tagging:prompt", row.slug)
    text = {
        "system": system,
        "template": template,
        "response_schema": request.POST.get("response_schema", ""),
        "message": request.POST.get("message", ""),
    }
    context = {**_page(request, row, text), "errors": errors, "base": base or newest}
    return render(request, "prompts/prompt.html", context, status=409 if "newest" in errors else 422)


@needs("curate", "POST")
def fork(request: Request, slug: str) -> HttpResponse:
    """A new prompt that begins with a version of this one."""
    row = _prompt(slug)
    origin = get_object_or_404(row.versions, pk=number_of(request.POST.get("version", "")))
    try:
        made = actions.fork(
            origin,
            slug=request.POST.get("slug", "").strip(),
            name=request.POST.get("name", "").strip(),
            message=request.POST.get("message", "").strip(),
            by=request.user,
        )
    except ValidationError as error:
        for name, lines in error.message_dict.items():
            messages.error(request, f"Not forked: {name}: {' '.join(lines)}")
        return redirect("tagging:prompt", row.slug)
    messages.success(request, f"{made.prompt} begins with {origin}.")
    return redirect("tagging:prompt", made.prompt.slug)


@needs("curate", "POST")
def about(request: Request, slug: str) -> HttpResponse:
    """Name, task and the model families it is meant for."""
    row = _prompt(slug)
    row.name = request.POST.get("name", "").strip() or row.name
    row.task = request.POST.get("task", row.task)
    row.families = [kind for kind in request.POST.getlist("families") if kind]
    try:
        row.full_clean()
    except ValidationError as error:
        for line in error.messages:
            messages.error(request, line)
    else:
        row.save(update_fields=["name", "task", "families"])
    return redirect("tagging:prompt", row.slug)


@needs("read", "POST")
def difference(request: Request, slug: str) -> HttpResponse:
    """The typed text against its parent, a label's prompt or any version, word by word."""
    row = _prompt(slug)
    system, template, _, _ = typed(request)
    schema = request.POST.get("response_schema", "").replace("\r\n", "\n").strip()
    what = request.POST.get("against", "")
    against = _against(row, what, number_of(request.POST.get("base", "")))
    if what == "parent" and against is not None and against.parent is not None:
        own = (against.system, against.template, _schema_text(against.response_schema))
        # nothing typed yet: what this version itself changed
        against = against.parent if own == (system, template, schema) else against
    context: dict[str, Any] = {"against": against, "row": row}
    if against is not None:
        parts = (
            ("System", against.system, system),
            ("Template", against.template, template),
            ("Response schema", _schema_text(against.response_schema), schema),
        )
        found = [(title, diffing.words(old, new)) for title, old, new in parts]
        context["parts"] = [(title, pieces) for title, pieces in found if diffing.changed(pieces)]
    return render(request, "prompts/prompt.html#difference", context)


def _against(row: Prompt, what: str, base: int) -> PromptVersion | None:
    versions = PromptVersion.objects.select_related("prompt", "parent__prompt")
    if what.startswith("label:"):
        of_label = versions.filter(channels__recipe__labels=number_of(what.removeprefix("label:")))
        return of_label.filter(prompt__task=row.task).first() or of_label.first()
    if what.isdecimal():
        return versions.filter(pk=number_of(what), prompt__hidden=False).first()
    return versions.filter(pk=base).first() or versions.filter(prompt=row).order_by("-number").first()
