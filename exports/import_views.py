"""Imports in the browser: choose a source, look at the difference, apply it, take it back."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render

from prompts.models import Wordlist
from tagging.actions.access import may
from tagging.forms import SchemaForm
from tagging.models import Collection
from tagging.views.guard import Request, needs

from . import imports
from .import_models import ImportJob, ImportRow
from .importers.difference import FATES
from .importers.registry import OPTIONS

PAGE = 30
ROWS = 50
#: Fates as the chips of the stylesheet: state by shape, not by colour alone.
_CHIPS = {"new": "added", "added": "added", "confirmed": "accepted", "there": "accepted", "rejected": "rejected"}
_CHIPS |= {"removed": "rejected", "refused": "rejected"}


class NewImport:
    """The form behind /exports/imports/new/."""

    def __init__(self, data: QueryDict, file: UploadedFile | None = None, *, bound: bool = False) -> None:
        self.data, self.file, self.bound = data, file, bound
        self.errors: dict[str, list[str]] = {}
        self.collections = list(Collection.objects.all())
        self.sources, self.targets = ImportJob.Source.choices, ImportJob.Target.choices
        slug = data.get("collection", "")
        self.collection = next((c for c in self.collections if c.slug == slug), None)
        if self.collection is None and not slug and not bound:
            self.collection = next(iter(self.collections), None)
        source, target = data.get("source", ""), data.get("target", "")
        self.source = source if source in OPTIONS else str(ImportJob.Source.SIDECARS)
        self.target = target if target in ImportJob.Target.values else str(ImportJob.Target.TRUTH)

    @cached_property
    def options(self) -> SchemaForm:
        model = OPTIONS[self.source]
        if self.bound:
            return SchemaForm(model, data=self.data)
        asked = SchemaForm(model, data=self.data)
        carry = {name: value for name, value in asked.raw().items() if asked.prefix + name in self.data}
        return SchemaForm(model, carry=carry)

    @property
    def file_help(self) -> str:
        if self.source == ImportJob.Source.EMBEDDED:
            return ""
        if self.source in (ImportJob.Source.CSV, ImportJob.Source.JSONL):
            return "The table to import."
        what = "sidecars" if self.source == ImportJob.Source.SIDECARS else "text files"
        return f"A zip of {what}, or nothing: then those in the collection's folder are read."

    def start(self, by: AbstractBaseUser) -> ImportJob | None:
        """The new job; None where something is wrong, which `errors` says then."""
        if self.collection is None:
            self.errors["collection"] = ["Choose a collection."]
        if not self.options.is_valid() or self.collection is None:
            return None
        try:
            return imports.create_import(
                self.collection,
                self.source,
                target=self.target,
                options=self.options.cleaned,
                file=cast(Any, self.file) if self.file_help else None,
                name=(self.file.name or "") if self.file and self.file_help else "",
                by=by,
            )
        except ValidationError as e:
            for name, lines in e.message_dict.items():
                self.errors.setdefault(name, []).extend(lines)
            return None

    @property
    def other_errors(self) -> list[str]:
        """What belongs to no control that is drawn with its own place for errors."""
        drawn = ("collection", "file") if self.file_help else ("collection",)
        return [line for name, lines in self.errors.items() if name not in drawn for line in lines]


@needs("read")
def jobs(request: Request) -> HttpResponse:
    """All imports, newest first; polled while one moves."""
    slug, before = request.GET.get("collection", ""), request.GET.get("before", "")
    collection = get_object_or_404(Collection, slug=slug) if slug else None
    found = imports.imports_of(collection)
    if before:
        if not _number(before):
            return _bad(request, f"before: {before[:40]!r} is not an import's number.")
        found = found.filter(pk__lt=int(before))
    page = list(found[: PAGE + 1])
    context = {
        "jobs": page[:PAGE],
        "live": any(job.state in ImportJob.OPEN for job in page),
        "more": page[PAGE - 1].pk if len(page) > PAGE else None,
        "here": request.GET.urlencode(),
        "collection": collection,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "exports/import_jobs.html" + ("#rows" if request.htmx else ""), context)


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """Choose what to read."""
    posted = request.method == "POST"
    form = NewImport(
        request.POST if posted else request.GET, request.FILES.get("file") if posted else None, bound=posted
    )
    if posted and (job := form.start(by=request.user)) is not None:
        return redirect("exports:import_job", job.pk)
    return render(request, "exports/import_new.html", {"form": form}, status=422 if posted else 200)


@needs("read")
def job(request: Request, pk: int) -> HttpResponse:
    """One import: its progress, its preview a page at a time, what became of it."""
    found = get_object_or_404(imports.imports_of(), pk=pk)
    show, after = request.GET.get("show", ""), request.GET.get("after", "")
    if after and not _number(after):
        return _bad(request, f"after: {after[:40]!r} is not a row's number.")
    try:
        rows = imports.rows_of(found, show)
    except ValidationError as e:
        return _bad(request, " ".join(e.messages))
    live = found.state in ImportJob.OPEN
    page = [] if live else list(rows.filter(pk__gt=int(after or 0))[: ROWS + 1])
    context = {
        "job": found,
        "live": live,
        "rows": [(row, _chips(row)) for row in page[:ROWS]],
        "more": page[ROWS - 1].pk if len(page) > ROWS else None,
        "after": after,
        "show": show,
        "filters": [(name, label) for name, (label, _) in imports.SHOWN.items()],
        "may_curate": may(request.user, "curate"),
        "can_apply": imports.can_apply(found),
        "can_undo": imports.can_undo(found),
        "planned": found.state == ImportJob.State.PLANNED,
        "wordlists": Wordlist.objects.filter(kind=Wordlist.Kind.VOCABULARY) if found.target == "vocabulary" else (),
    }
    return render(request, "exports/import_job.html" + ("#import" if request.htmx else ""), context)


def _chips(row: ImportRow) -> list[dict[str, Any]]:
    return [
        {
            "name": " › ".join([*w[1], w[0]]),
            "chip": _CHIPS.get(w[2], "proposed"),
            "says": w[3] or FATES[w[2]],
            "fate": FATES[w[2]],
            "elsewhere": "elsewhere" in w[3],
        }
        for w in row.words
    ]


@needs("curate", "POST")
def act(request: Request, pk: int, verb: str) -> HttpResponse:
    """Apply, undo, cancel, delete; tick and untick the rows of a page."""
    found = get_object_or_404(imports.imports_of(), pk=pk)
    post = request.POST
    try:
        if verb == "apply":
            choices = {name: name in post for name in ("overrule", "removals", "reviewed")}
            imports.apply_import(found, **choices, wordlist=post.get("wordlist", ""), by=request.user)
        elif verb == "undo":
            imports.undo_import(found, by=request.user)
        elif verb == "cancel":
            if not imports.cancel_import(found):
                messages.info(request, "This import had ended already.")
        elif verb == "select":
            shown = {int(n) for n in post.getlist("shown") if _number(n)}
            ticked = {int(n) for n in post.getlist("row") if _number(n)}
            n = imports.select_rows(found, shown & ticked, selected=True)
            n += imports.select_rows(found, shown - ticked, selected=False)
            messages.success(request, f"{n} row{'' if n == 1 else 's'} changed.")
            back = post.get("back", "")
            return redirect(f"{request.path.removesuffix('select/')}{'?' + back if back else ''}")
        elif verb == "delete":
            imports.delete_import(found)
            return redirect("exports:imports")
        else:
            raise Http404(f"Imports know apply, undo, cancel, select and delete, not {verb}.")
    except imports.NotNow as e:
        messages.error(request, str(e))
    except ValidationError as e:
        messages.error(request, " ".join(e.messages))
    return redirect("exports:import_job", found.pk)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _bad(request: Request, text: str) -> HttpResponse:
    return render(request, "tagging/bad_request.html", {"text": text}, status=400)
