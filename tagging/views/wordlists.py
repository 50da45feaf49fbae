"""Wordlists: the list of them, and the editor that shows what a change would do before it is saved."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Func, IntegerField, OuterRef, Subquery
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from prompts import actions, diffing
from prompts.formats import FORMATS, export_entries, import_entries
from prompts.models import Wordlist, WordlistVersion
from prompts.wordlists import Entry, WordlistError, check_entries, format_text, parse_text

from ..actions.access import may
from ..actions.lists import carry_on, current_policy_versions, lists_with, policies_using, restore, runs_for
from ..actions.previews import preview, unsaved
from ..models import ImageAsset, Run
from .guard import Request, needs
from .recomputes import jobs_of, with_jobs

#: above so many entries a list opens as text
TABLE_ROWS = 500
VERSIONS = 50
MAX_FILE = 64 * 2**20
SHOWN_LINES = 200  # of a difference
KINDS = Wordlist.Kind.choices
SYNTAX = (
    ("cat", "the word, wherever it stands in a tag: also “black cat”, never “cattle”"),
    ("=mood", "the whole tag only: “mood lighting” stays"),
    ("*_hair", "wildcards against the whole tag: * any characters, ? one"),
    (r"/^\d+girls?$/", "a regular expression, searched in the tag (20 ms at most)"),
    ("colour -> color", "a replacement; “teal ->” takes the word out"),
    ("dog = doggo, pup", "other names that mean dog"),
    ("spaniel < dog", "its broader term"),
    ("dog @animal", "its category"),
    ("Polish !case", "upper and lower case count"),
    ("cat # why", "a note; a line that begins with # is a comment"),
    ('"=_="', "in quotes: taken as it is"),
)


class ArrayLength(Func):
    """How long a JSON array is, counted by the database."""

    arity = 1
    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return super().as_sql(compiler, connection, function="json_array_length", **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return super().as_sql(compiler, connection, function="jsonb_array_length", **extra)


# -- all of them -------------------------------------------------------------------------------------------------------
@needs("read")
def wordlists(request: Request) -> HttpResponse:
    """All lists, of one kind where `?kind=` names it."""
    kind = request.GET.get("kind", "")
    newest = WordlistVersion.objects.filter(wordlist=OuterRef("pk")).order_by("-number").defer("entries")
    rows = Wordlist.objects.annotate(
        n_versions=Count("versions"),
        n_entries=Subquery(newest.annotate(n=ArrayLength("entries")).values("n")[:1]),
        changed_at=Subquery(newest.values("created_at")[:1]),
    )
    users: dict[int, list[str]] = {}
    for version in current_policy_versions().values():
        for used in version.wordlists.all():
            users.setdefault(used.wordlist_id, []).append(version.policy.slug)
    found = list(rows.filter(kind=kind) if kind else rows)
    context = {
        "rows": [(row, users.get(row.pk, [])) for row in found],
        "kind": kind,
        "kinds": KINDS,
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "prompts/wordlists.html", context)


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """Make a list: empty, or from a file of any of the formats."""
    errors: dict[str, list[str]] = {}
    values = request.POST if request.method == "POST" else request.GET
    if request.method == "POST":
        kind = values.get("kind", "")
        try:
            if kind not in Wordlist.Kind.values:
                raise ValidationError({"kind": "Choose the kind."})
            entries = _from_file(request, kind)
            made = actions.create_wordlist(
                slug=values.get("slug", "").strip(),
                name=values.get("name", "").strip(),
                note=values.get("note", "").strip(),
                kind=kind,
                entries=entries or None,
                message="Imported" if entries else "",
                by=request.user,
            )
        except ValidationError as e:
            errors = e.message_dict
        else:
            messages.success(request, f"{made} is there. A policy uses it once you tick it there.")
            return redirect("tagging:wordlist", made.slug)
    context = {"values": values, "errors": errors, "kinds": KINDS, "formats": _readable()}
    return render(request, "prompts/wordlist_new.html", context, status=422 if errors else 200)


def _readable() -> list[tuple[str, str]]:
    return [(name, label) for name, (label, _, _) in FORMATS.items()]


def _from_file(request: Request, kind: str) -> list[Entry]:
    """The entries of the file that was sent, if any. ValidationError names each line."""
    sent, variants = request.FILES.get("file"), request.FILES.get("variants")
    if sent is None:
        return []
    for name, one in (("file", sent), ("variants", variants)):
        if one is not None and (one.size or 0) > MAX_FILE:
            raise ValidationError({name: f"At most {MAX_FILE // 2**20} MB."})
    try:
        return import_entries(
            sent.read(), request.POST.get("format", "text"), kind, variants=variants.read() if variants else b""
        )
    except WordlistError as error:
        raise ValidationError({"file": [_line(p) for p in error.problems[:20]]}) from None
    except LookupError as error:
        raise ValidationError({"format": str(error)}) from None


def _line(problem: Any) -> str:
    text = str(problem)
    return f"{text[:1].upper()}{text[1:]}."


# -- one of them -------------------------------------------------------------------------------------------------------
@needs("read")
def wordlist(request: Request, slug: str) -> HttpResponse:
    """The editor: `?v=` begins with an older version, `?diff=a..b` compares two."""
    row = get_object_or_404(Wordlist, slug=slug)
    versions = list(row.versions.select_related("created_by").defer("entries").order_by("-number")[: VERSIONS + 1])
    shown = _shown(row, request.GET.get("v", ""))
    entries = check_entries(shown.entries, row.kind) if shown else []
    runs = runs_for(row)
    context = {
        "row": row,
        "versions": versions[:VERSIONS],
        "more_versions": len(versions) > VERSIONS,
        "current": versions[0] if versions else None,
        "shown": shown,
        "words": format_text(entries, row.kind),
        "n": len(entries),
        "as_table": len(entries) <= TABLE_ROWS,
        "entries": [entry.as_json() for entry in entries] if len(entries) <= TABLE_ROWS else None,
        "policies": policies_using(row),
        "runs": runs,
        "using": [used for used in runs if used.uses],
        "formats": _readable(),
        "writable": [(n, label) for n, (label, _, write) in FORMATS.items() if write],
        "syntax": SYNTAX,
        "difference": _compared(row, request.GET.get("diff", "")),
        "may_curate": may(request.user, "curate"),
        "jobs": jobs_of(request),
    }
    return render(request, "prompts/wordlist.html", context)


def _shown(row: Wordlist, number: str) -> WordlistVersion | None:
    if number.isdecimal():
        return get_object_or_404(row.versions, number=int(number[:9]))
    return row.current


def _compared(row: Wordlist, text: str) -> dict[str, Any] | None:
    """`a..b`: what version b changed since a."""
    a, _, b = text.partition("..")
    if not (a.isdecimal() and b.isdecimal()):
        return None
    found = {v.number: v for v in row.versions.filter(number__in=(int(a[:9]), int(b[:9])))}
    old, new = found.get(int(a[:9])), found.get(int(b[:9]))
    if new is None:
        return None
    before = check_entries(old.entries, row.kind) if old else []
    return {"old": old, "new": new, **_difference(before, check_entries(new.entries, row.kind), row.kind)}


def _difference(before: list[Entry], after: list[Entry], kind: str) -> dict[str, Any]:
    found = diffing.entries(before, after, kind)
    total = len(found.added) + len(found.removed) + len(found.changed)
    return {
        "diff": found,
        "added": found.added[:SHOWN_LINES],
        "removed": found.removed[:SHOWN_LINES],
        "changed": [(old, new, diffing.words(old, new)) for old, new in found.changed[:SHOWN_LINES]],
        "total": total,
        "cut": total > SHOWN_LINES,
    }


def _typed(request: Request, kind: str) -> list[Entry]:
    """The entries as they were sent: `entries` (JSON, from the table) or `words` (text). WordlistError."""
    sent = request.POST.get("entries", "")
    if request.POST.get("mode") == "table" and sent:
        try:
            raw = json.loads(sent)
            if not isinstance(raw, list):
                raise ValueError
        except ValueError:
            raise ValidationError({"words": "The table could not be read: reload the page."}) from None
        return check_entries(raw, kind)
    return parse_text(request.POST.get("words", ""), kind)


@needs("curate", "POST")
def convert(request: Request, slug: str) -> HttpResponse:
    """Text → rows of the table and back: JSON {entries, text, problems: [{line, message}]}; `check`: only problems."""
    row = get_object_or_404(Wordlist, slug=slug)
    try:
        entries = _typed(request, row.kind)
    except WordlistError as error:
        found = [{"line": p.line, "message": p.message} for p in error.problems[:100]]
        return JsonResponse({"problems": found}, status=422)
    except ValidationError as error:
        return JsonResponse({"problems": [{"line": 0, "message": m} for m in error.messages]}, status=422)
    if "check" in request.POST:
        return JsonResponse({"problems": []})
    text = format_text(entries, row.kind)
    return JsonResponse({"entries": [e.as_json() for e in entries], "text": text, "problems": []})


@needs("curate", "POST")
def show_changes(request: Request, slug: str) -> HttpResponse:
    """What the typed list would change: its own lines, and the tags of the run that is chosen."""
    row = get_object_or_404(Wordlist, slug=slug)
    context: dict[str, Any] = {"row": row, "may_curate": True}
    try:
        entries = _typed(request, row.kind)
    except (WordlistError, ValidationError) as error:
        problems = error.problems[:50] if isinstance(error, WordlistError) else error.messages
        return render(request, "prompts/wordlist.html#changes", {**context, "problems": problems})
    current = row.current
    before = check_entries(current.entries, row.kind) if current else []
    stored = [entry.as_json() for entry in entries]
    context |= {"d": _difference(before, entries, row.kind), "runs": runs_for(row)}
    chosen = next((r for r in context["runs"] if str(r.run.pk) == request.POST.get("run", "")), None)
    chosen = chosen or next(iter(context["runs"]), None)
    if chosen is not None:
        context["chosen"] = chosen
        try:
            found = preview(chosen.run, chosen.policy.spec, lists_with(chosen.policy, unsaved(row, stored)))
        except ValidationError as error:
            context["refused"] = error.messages
        else:
            context |= {"found": found, "pictures": pictures(e.image for e in found.examples)}
    return render(request, "prompts/wordlist.html#changes", context)


def pictures(ids: Any) -> dict[int, ImageAsset]:
    """Images by id, for the thumbnails of a preview. One query."""
    return ImageAsset.objects.only("path", "sha256", "state").in_bulk(list(ids))


@needs("curate", "POST")
def save(request: Request, slug: str) -> HttpResponse:
    """A new version; then, as asked, new versions of the policies that use it and a recompute of runs."""
    row = get_object_or_404(Wordlist, slug=slug)
    base = request.POST.get("base", "")
    try:
        entries = _typed(request, row.kind)
        message = request.POST.get("message", "").strip()
        if not message:
            raise ValidationError({"message": "Say in a line what changed."})
        version = actions.save_wordlist(
            row, entries, message=message, base=int(base) if base.isdecimal() else None, by=request.user
        )
    except WordlistError as error:
        return _again(request, row, {"words": [_line(p) for p in error.problems[:50]]})
    except ValidationError as error:
        return _again(request, row, error.message_dict)
    if base.isdecimal() and version.number == int(base):
        messages.info(request, "Nothing changed: no new version.")
    else:
        messages.success(request, f"Saved as version {version.number}.")
    return _carried(request, row, version)


def _carried(request: Request, row: Wordlist, version: WordlistVersion) -> HttpResponse:
    if request.POST.get("policies", "on") != "on":
        return redirect("tagging:wordlist", row.slug)
    ids = [int(pk) for pk in request.POST.getlist("recompute") if pk.isdecimal()] if "and_run" in request.POST else []
    runs = list(Run.objects.filter(pk__in=ids).select_related("recipe"))
    done = carry_on(version, runs=runs, by=request.user)
    for made in done.policies:
        messages.success(request, f"{made} uses it.")
    for text in done.refused:
        messages.warning(request, text)
    return HttpResponseRedirect(with_jobs(reverse("tagging:wordlist", args=[row.slug]), done.jobs))


def _again(request: Request, row: Wordlist, errors: dict[str, list[str]]) -> HttpResponse:
    """The page with what was typed and what is wrong with it."""
    current, runs = row.current, runs_for(row)
    context = {
        "row": row,
        "versions": list(row.versions.select_related("created_by").defer("entries").order_by("-number")[:VERSIONS]),
        "current": current,
        "shown": current,
        "words": request.POST.get("words", ""),
        "entries": None,
        "as_table": False,
        "n": request.POST.get("words", "").count("\n"),
        "message": request.POST.get("message", ""),
        "errors": errors,
        "policies": policies_using(row),
        "runs": runs,
        "using": [used for used in runs if used.uses],
        "formats": _readable(),
        "writable": [(n, label) for n, (label, _, write) in FORMATS.items() if write],
        "syntax": SYNTAX,
        "may_curate": True,
    }
    return render(request, "prompts/wordlist.html", context, status=422)


@needs("curate", "POST")
def take(request: Request, slug: str) -> HttpResponse:
    """A file into the list: in place of its words, or after them."""
    row = get_object_or_404(Wordlist, slug=slug)
    try:
        found = _from_file(request, row.kind)
        if not found:
            raise ValidationError({"file": "Choose a file with words."})
        current = row.current
        before = check_entries(current.entries, row.kind) if current and request.POST.get("way") == "append" else []
        name = getattr(request.FILES.get("file"), "name", "")
        version = actions.save_wordlist(row, [*before, *found], message=f"Imported {name}"[:200], by=request.user)
    except ValidationError as error:
        for lines in error.message_dict.values():
            for line in lines[:8]:
                messages.error(request, line)
        return redirect("tagging:wordlist", row.slug)
    messages.success(request, f"{len(found):,} entries read: version {version.number}.")
    return _carried(request, row, version)


@needs("read")
def file(request: Request, slug: str) -> HttpResponse:
    """The list as a file of the format `?format=`."""
    row = get_object_or_404(Wordlist, slug=slug)
    version, name = _shown(row, request.GET.get("v", "")), request.GET.get("format", "text")
    try:
        text = export_entries(check_entries(version.entries, row.kind) if version else [], name, row.kind)
    except LookupError as error:
        return render(request, "tagging/bad_request.html", {"text": str(error)}, status=400)
    ending = "csv" if name in ("csv", "danbooru") else "txt"
    answer = HttpResponse(text, content_type=f"text/{'csv' if ending == 'csv' else 'plain'}; charset=utf-8")
    number = f"-v{version.number}" if version else ""
    answer["Content-Disposition"] = f'attachment; filename="{row.slug}{number}.{ending}"'
    return answer


@needs("curate", "POST")
def back(request: Request, slug: str, number: int) -> HttpResponse:
    """Restore an older version: its words become the newest one."""
    row = get_object_or_404(Wordlist, slug=slug)
    get_object_or_404(row.versions, number=number)
    version = restore(row, number, by=request.user)
    messages.success(request, f"Version {version.number} has the words of version {number}.")
    return _carried(request, row, version)


@needs("curate", "POST")
def rename(request: Request, slug: str) -> HttpResponse:
    """Name and note; the slug and the kind stay, for rules refer to them."""
    row = get_object_or_404(Wordlist, slug=slug)
    row.name = request.POST.get("name", "").strip() or row.name
    row.note = request.POST.get("note", "").strip()
    try:
        row.full_clean()
    except ValidationError as error:
        for line in error.messages:
            messages.error(request, line)
    else:
        row.save(update_fields=["name", "note"])
    return redirect("tagging:wordlist", row.slug)
