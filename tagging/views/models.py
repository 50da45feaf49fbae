"""The page of models: configured, in memory, on their way, on disk, and worth a try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from ..actions import downloads
from ..actions import models as actions
from ..actions.access import may
from ..actions.runs import NotNow
from ..adapters import known, registry, scan
from ..adapters.base import About, Problem
from ..models import ModelAdapter, ModelDownload
from .channelform import class_of
from .channelform import refusals as refused
from .guard import Request, needs

RECENT = 8  # downloads that are over and still listed


@dataclass(frozen=True)
class Row:
    """One configured model."""

    model: ModelAdapter
    about: About | None
    problems: Sequence[Problem]
    loaded: Sequence[actions.Loaded]

    @property
    def fatal(self) -> bool:
        return any(p.fatal for p in self.problems)

    @property
    def fetch(self) -> bool:
        """It is a hub model that is not wholly here: it can be downloaded."""
        source = self.model.source
        return bool(self.problems) and "/" in source and not source.startswith(("/", ".", "~", "http"))

    @property
    def size(self) -> int | None:
        """Bytes to download, where they are known."""
        return next((s.bytes for s in known.SUGGESTED if s.source == self.model.source), None)


@dataclass(frozen=True)
class OnDisk:
    """A model that was found, with the row that uses it already."""

    found: scan.Found
    row: ModelAdapter | None
    cached: scan.Cached | None = None


@dataclass(frozen=True)
class Family:
    """Suggestions for one kind."""

    kind: str
    label: str
    offers: list[tuple[known.Suggestion, str]]  # with "configured", "on disk", "coming" or ""


@needs("curate")
def models(request: Request) -> HttpResponse:
    rows = list(ModelAdapter.objects.order_by("slug"))
    in_memory = actions.loaded()
    scanned, cache = scan.scan(settings.IWTAG_MODELS_DIRS), scan.hub_cache()
    users = _by_source(rows)
    context = {
        **_live(request, in_memory),
        "rows": [_row(row, in_memory) for row in rows if row.kind != "import"],
        "found": [OnDisk(f, users.get(f.source) or users.get(f.name)) for f in scanned.found],
        "cached": [OnDisk(c.found, users.get(c.source), c) for c in cache],
        "problems": scanned.problems,
        "folders": settings.IWTAG_MODELS_DIRS,
        "cache_folder": scan.cache_folder(),
        "families": _families(users, {c.source for c in cache if not c.partial}),
        "kinds": [k for k in registry.choices() if k[0] not in ("import", "photo-lite", "openai")],
        "values": request.GET,
    }
    return render(request, "tagging/models.html", context)


def _row(row: ModelAdapter, in_memory: Sequence[actions.Loaded]) -> Row:
    code = class_of(row)
    loaded = [m for m in in_memory if m.slug == row.slug]
    return Row(row, code.about if code else None, actions.problems(row), loaded)


def _by_source(rows: Sequence[ModelAdapter]) -> dict[str, ModelAdapter]:
    """Source → the row that uses it; names in the models folders count as the folders that they stand for."""
    found: dict[str, ModelAdapter] = {}
    for row in rows:
        if not row.source:
            continue
        found.setdefault(row.source, row)
        for folder in settings.IWTAG_MODELS_DIRS:
            for name in (row.source, row.source.replace("/", "--"), row.source.rpartition("/")[2]):
                found.setdefault(str(Path(folder) / name), row)
    return found


def _families(users: dict[str, ModelAdapter], on_disk: set[str]) -> list[Family]:
    labels = dict(registry.choices())
    coming = set(ModelDownload.objects.filter(state__in=ModelDownload.OPEN).values_list("source", flat=True))
    found: dict[str, Family] = {}
    for offer in known.SUGGESTED:
        if offer.kind not in labels:
            continue  # its adapter is not installed
        state = "configured" if offer.source in users else "on disk" if offer.source in on_disk else ""
        state = "coming" if offer.source in coming else state
        family = found.setdefault(offer.kind, Family(offer.kind, labels[offer.kind], []))
        family.offers.append((offer, state))
    return list(found.values())


# -- what moves --------------------------------------------------------------------------------------------------------
@needs("curate")
def live(request: Request) -> HttpResponse:
    """What is in memory, and what is on its way."""
    return render(request, "tagging/models.html#live", _live(request, actions.loaded()))


def _live(request: Request, in_memory: Sequence[actions.Loaded]) -> dict[str, Any]:
    open_jobs = list(ModelDownload.objects.filter(state__in=ModelDownload.OPEN).select_related("adapter"))
    over = ModelDownload.objects.exclude(state__in=ModelDownload.OPEN).select_related("adapter")[:RECENT]
    labels = dict(ModelAdapter.objects.values_list("slug", "label"))
    return {
        "in_memory": [(m, labels.get(m.slug, m.slug)) for m in in_memory],
        "several_hosts": len({m.host for m in in_memory}) > 1,
        "downloads": [*open_jobs, *over],
        "moving": bool(open_jobs),
        "may_administer": may(request.user, "administer"),
    }


# -- doing -------------------------------------------------------------------------------------------------------------
@needs("administer", "POST")
def add(request: Request) -> HttpResponse:
    """A model row for something that was found; it can be used at once."""
    kind, source = request.POST.get("kind", ""), request.POST.get("source", "")
    revision = request.POST.get("revision", "")
    offers = next((f.offers for f in _all_found() if f.source == source), ())
    guess = next((o.guess for o in offers if o.kind == kind), None)
    try:
        row = actions.configure(
            kind, source, revision=revision, options=guess.options if guess else None, by=request.user
        )
    except ValidationError as e:
        messages.error(request, " ".join(line for lines in refused(e).values() for line in lines))
    else:
        messages.success(request, f"{row.label} can be used now.")
    return redirect("tagging:models")


def _all_found() -> list[scan.Found]:
    return [*scan.scan(settings.IWTAG_MODELS_DIRS).found, *(c.found for c in scan.hub_cache())]


@needs("curate", "POST")
def unload(request: Request) -> HttpResponse:
    """Free the memory of one model, or of all (without a slug)."""
    slug = request.POST.get("slug", "")
    n = actions.unload([slug] if slug else None)
    text = "It goes within seconds, as soon as nothing uses it." if n else "It is not loaded any more."
    (messages.success if n else messages.info)(request, text)
    return redirect("tagging:models")


@needs("administer", "POST")
def download(request: Request) -> HttpResponse:
    """Have a model of the hub fetched in the background."""
    data = request.POST
    try:
        job = downloads.start_download(
            data.get("source", ""),
            kind=data.get("kind", ""),
            revision=data.get("revision", ""),
            folder=data.get("folder", ""),
            by=request.user,
        )
    except ValidationError as e:
        messages.error(request, " ".join(line for lines in refused(e).values() for line in lines))
    else:
        messages.success(request, f"{job} is on its way.")
    return redirect("tagging:models")


@needs("administer", "POST")
def act(request: Request, pk: int, verb: str) -> HttpResponse:
    """cancel, resume or forget a download."""
    job = get_object_or_404(ModelDownload, pk=pk)
    try:
        match verb:
            case "cancel":
                downloads.cancel_download(job)
                messages.success(request, "Cancelled. What came is kept, and used when it goes on.")
            case "resume":
                downloads.resume_download(job)
                messages.success(request, "Going on where it was.")
            case "forget":
                downloads.forget_download(job)
            case _:
                raise Http404(f"A download cannot be told to {verb}.")
    except NotNow as e:
        messages.warning(request, str(e))
    return redirect("tagging:models")
