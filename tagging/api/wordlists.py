"""/api/wordlists: lists, their versions, import from and export to the formats of other programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import File, Form, Schema, Status, UploadedFile
from pydantic import Field

from prompts import actions
from prompts.formats import export_entries, import_entries
from prompts.models import Wordlist, WordlistVersion
from prompts.wordlists import Entry, WordlistError, check_entries, parse_entry, parse_text

from .auth import allow
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

router = Router(tags=["wordlists"])
Kind = Literal["banned", "forced", "vocabulary", "replacement", "trigger"]
Format = Literal["text", "csv", "danbooru", "wd", "lightroom", "ram"]
MAX_FILE = 64 * 2**20


class WordlistOut(Schema):
    slug: str
    name: str
    kind: str
    note: str
    versions: int = Field(alias="n_versions", description="How many there are.")
    created_at: datetime


class VersionHead(Schema):
    id: int
    number: int
    digest: str
    message: str
    created_at: datetime


class WordlistVersionOut(VersionHead):
    entries: list[dict[str, Any]] = Field(description="Fields that differ from their defaults; `text` always.")


class WordlistVersionList(Listing[VersionHead]):
    pass


class WordlistIn(Schema):
    slug: str
    kind: Kind
    name: str = ""
    note: str = ""
    text: str | None = Field(None, description="The first version's words, one entry a line.")
    entries: list[dict[str, Any]] | None = Field(None, description="Or as objects.")
    message: str = ""

    model_config = {"extra": "forbid"}


class WordlistVersionIn(Schema):
    text: str | None = Field(None, description="All words, one entry a line; or:")
    entries: list[dict[str, Any]] | None = None
    message: str = ""
    base: int | None = Field(None, description="Number of the version that was edited: refused when there is a newer.")

    model_config = {"extra": "forbid"}


class EntryIn(Schema):
    line: str = Field(description="One entry as in the text form, e.g. =mood or colour -> color.")

    model_config = {"extra": "forbid"}


class EntryAliasIn(Schema):
    alias: str
    of: str = Field(description="The term it means; added when missing.")

    model_config = {"extra": "forbid"}


def _lists() -> QuerySet[Wordlist]:
    return Wordlist.objects.annotate(n_versions=Count("versions"))


def _list(slug: str) -> Wordlist:
    found = _lists().filter(slug=slug).first()
    if found is None:
        raise Wordlist.DoesNotExist(f"There is no wordlist {slug!r}.")
    return found


def _current(wordlist: Wordlist) -> WordlistVersion:
    found = wordlist.current
    if found is None:
        raise WordlistVersion.DoesNotExist(f"The wordlist {wordlist.slug!r} has no words yet.")
    return found


def _numbered(wordlist: Wordlist, number: int) -> WordlistVersion:
    found = wordlist.versions.filter(number=number).first()
    if found is None:
        raise WordlistVersion.DoesNotExist(f"The wordlist {wordlist.slug!r} has no version {number}.")
    return found


def _entries(text: str | None, entries: list[dict[str, Any]] | None, kind: str) -> list[Entry] | None:
    """The words that were sent, in one form or the other. ValidationError names each line."""
    if text is not None and entries is not None:
        raise ValidationError({"entries": "Send text or entries, not both."})
    field = "text" if text is not None else "entries"
    try:
        if text is not None:
            return parse_text(text, kind)
        return None if entries is None else check_entries(entries, kind)
    except WordlistError as error:
        raise _lines(field, error) from None


def _lines(field: str, error: WordlistError) -> ValidationError:
    return ValidationError({field: [f"{str(p)[:1].upper()}{str(p)[1:]}." for p in error.problems[:100]]})


@router.get("", response=list[WordlistOut], summary="List wordlists", operation_id="list_wordlists")
def list_wordlists(request: HttpRequest, kind: Kind | None = None) -> object:
    allow(request, "read")
    return _lists().filter(kind=kind) if kind else _lists()


@router.post("", response={201: WordlistOut}, summary="Make a wordlist", operation_id="create_wordlist")
def create_wordlist(request: HttpRequest, payload: WordlistIn) -> object:
    by = allow(request, "curate", "write")
    entries = _entries(payload.text, payload.entries, payload.kind)
    values = payload.dict(include={"slug", "kind", "name", "note", "message"})
    return Status(201, _list(actions.create_wordlist(entries=entries, by=by, **values).slug))


@router.get("/{slug}", response=WordlistVersionOut, summary="The words in force", operation_id="get_wordlist")
def get_wordlist(request: HttpRequest, slug: str) -> object:
    """The newest version with its entries."""
    allow(request, "read")
    return _current(_list(slug))


@router.get(
    "/{slug}/versions",
    response=WordlistVersionList,
    summary="Versions of a wordlist",
    operation_id="list_wordlist_versions",
)
def list_versions(request: HttpRequest, slug: str, cursor: Cursor = "", limit: Limit = 20) -> object:
    """Newest first, without their entries."""
    allow(request, "read")
    return by_id(_list(slug).versions.defer("entries"), cursor, limit)


@router.get(
    "/{slug}/versions/{int:number}",
    response=WordlistVersionOut,
    summary="One version",
    operation_id="get_wordlist_version",
)
def get_version(request: HttpRequest, slug: str, number: int) -> object:
    allow(request, "read")
    return _numbered(_list(slug), number)


@router.post(
    "/{slug}/versions",
    response={201: WordlistVersionOut},
    summary="Save a version",
    operation_id="create_wordlist_version",
)
def create_version(request: HttpRequest, slug: str, payload: WordlistVersionIn) -> object:
    """All words of the list. The current version is answered where nothing changed."""
    by = allow(request, "curate", "write")
    wordlist = _list(slug)
    entries = _entries(payload.text, payload.entries, wordlist.kind)
    if entries is None:
        raise ValidationError({"entries": "Send text or entries."})
    made = actions.save_wordlist(wordlist, entries, message=payload.message, base=payload.base, by=by)
    return Status(201, made)


@router.post("/{slug}/entries", response={201: VersionHead}, summary="Add one word", operation_id="add_wordlist_entry")
def add_entry(request: HttpRequest, slug: str, payload: EntryIn) -> object:
    """'Ban everywhere', 'add to vocabulary': a new version with one word more."""
    by = allow(request, "curate", "write")
    wordlist = _list(slug)
    try:
        entry = parse_entry(payload.line, wordlist.kind)
    except ValueError as error:
        raise ValidationError({"line": str(error)}) from None
    return Status(201, actions.add_entry(wordlist, entry, by=by))


@router.post("/{slug}/aliases", response={201: VersionHead}, summary="Add an alias", operation_id="add_wordlist_alias")
def add_alias(request: HttpRequest, slug: str, payload: EntryAliasIn) -> object:
    """'Make alias of': another name for a term of a vocabulary."""
    by = allow(request, "curate", "write")
    return Status(201, actions.add_alias(_list(slug), payload.alias, payload.of, by=by))


@router.post("/{slug}/import", response={201: VersionHead}, summary="Import a file", operation_id="import_wordlist")
def import_file(
    request: HttpRequest,
    slug: str,
    file: File[UploadedFile],
    format: Form[Format] = "text",
    mode: Form[Literal["replace", "append"]] = "replace",
    variants: File[UploadedFile | None] = None,
) -> object:
    """A new version from a file of any of the formats. `variants`: a RAM list's other language, line for line."""
    by = allow(request, "curate", "write")
    wordlist = _list(slug)
    for name, sent in (("file", file), ("variants", variants)):
        if sent is not None and (sent.size or 0) > MAX_FILE:
            raise ValidationError({name: f"At most {MAX_FILE // 2**20} MB."})
    try:
        found = import_entries(file.read(), format, wordlist.kind, variants=variants.read() if variants else b"")
    except WordlistError as error:
        raise _lines("file", error) from None
    except LookupError as error:
        raise ValidationError({"format": str(error)}) from None
    current = wordlist.current
    before = check_entries(current.entries, wordlist.kind) if current and mode == "append" else []
    made = actions.save_wordlist(wordlist, [*before, *found], message=f"Imported {file.name}"[:200], by=by)
    return Status(201, made)


@router.get(
    "/{slug}/export",
    response=None,
    summary="Export as a file",
    operation_id="export_wordlist",
    openapi_extra={"responses": {200: {"description": "The file", "content": {"text/plain": {}}}}},
)
def export_file(request: HttpRequest, slug: str, format: Format = "text", number: int | None = None) -> HttpResponse:
    """The newest version, or the one of that number."""
    allow(request, "read")
    wordlist = _list(slug)
    version = _current(wordlist) if number is None else _numbered(wordlist, number)
    try:
        text = export_entries(check_entries(version.entries, wordlist.kind), format, wordlist.kind)
    except LookupError as error:
        raise ValidationError({"format": str(error)}) from None
    ending = "csv" if format in ("csv", "danbooru") else "txt"
    answer = HttpResponse(text, content_type=f"text/{'csv' if ending == 'csv' else 'plain'}; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{wordlist.slug}-v{version.number}.{ending}"'
    return answer
