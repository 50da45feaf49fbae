"""What can be done with prompts and wordlists: one function per verb, used by admin, API and pages alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from .models import Prompt, PromptVersion, Wordlist, WordlistVersion, digest
from .rendering import MAX_TEMPLATE, check_template
from .wordlists import Entry, WordlistError, check_entries

T = TypeVar("T")
_ATTEMPTS = 5
#: texts that were tried without being saved hang on hidden prompts of this name: see `drafts.tried_version`
TRIED = "tried-texts"
_MAX_SCHEMA = 100_000


# -- prompts ---------------------------------------------------------------------------------------------------------
def create_prompt(*, slug: str, name: str = "", task: str = Prompt.Task.TAGS, families: Sequence[str] = ()) -> Prompt:
    """A prompt without a version yet. ValidationError with the field's name."""
    if not isinstance(families, list | tuple) or not all(isinstance(f, str) and "\0" not in f for f in families):
        raise ValidationError({"families": "Adapter kinds are a list of names."})
    if slug.startswith(TRIED):
        raise ValidationError({"slug": f"Names that begin with {TRIED} are taken: iwtag keeps tried texts there."})
    prompt = Prompt(slug=slug, name=name.replace("\0", "") or slug, task=task, families=list(families))
    prompt.full_clean()
    prompt.save()
    return prompt


def check_prompt(system: str, template: str, response_schema: Any = None) -> None:
    """ValidationError keyed by field, each message naming the line, where a version could not be saved."""
    errors: dict[str, list[str]] = {}
    lists = set(Wordlist.objects.values_list("slug", flat=True))
    for part, text in (("system", system), ("template", template)):
        problems = check_template(text, part=part, wordlists=lists)
        if "\0" in text:
            errors[part] = ["There is a NUL character in it, which no model reads and PostgreSQL does not keep."]
        elif problems:
            errors[part] = [f"Line {p.line}: {p.message}." if p.line else f"{p.message}." for p in problems]
    if not template.strip() and not system.strip():
        errors.setdefault("template", []).append("A prompt needs a text.")
    if len(template) > MAX_TEMPLATE:
        errors["template"] = [f"At most {MAX_TEMPLATE:,} characters."]
    if response_schema is not None:
        if not isinstance(response_schema, dict) or "type" not in response_schema:
            errors["response_schema"] = ['A JSON schema is an object with "type".']
        elif "\\x00" in str(response_schema):
            errors["response_schema"] = ["There is a NUL character in it, which PostgreSQL does not keep."]
        elif len(str(response_schema)) > _MAX_SCHEMA:
            errors["response_schema"] = [f"At most {_MAX_SCHEMA:,} characters."]
    if errors:
        raise ValidationError(errors)


def create_version(
    prompt: Prompt,
    *,
    template: str,
    system: str = "",
    message: str,
    response_schema: dict[str, Any] | None = None,
    parent: PromptVersion | None = None,
    by: AbstractBaseUser | None = None,
) -> PromptVersion:
    """The next version of a prompt, checked. `parent`: what it was made from (any prompt's; the newest by default).

    ValidationError keyed by field: system, template, response_schema, message.
    """
    system, template = system.replace("\r\n", "\n"), template.replace("\r\n", "\n")
    message = " ".join(message.replace("\0", "").split())
    if not message:
        raise ValidationError({"message": "Say in a line what changed."})
    if len(message) > 200:
        raise ValidationError({"message": "At most 200 characters."})
    check_prompt(system, template, response_schema)

    def make() -> PromptVersion:
        version = PromptVersion(
            prompt=prompt,
            system=system,
            template=template,
            response_schema=response_schema,
            message=message,
            parent=parent or prompt.versions.order_by("-number").first(),
            created_by=by,  # type: ignore[misc]
        )
        version.save()
        return version

    return _numbered(make)


def fork(
    version: PromptVersion, *, slug: str, name: str = "", message: str = "", by: AbstractBaseUser | None = None
) -> PromptVersion:
    """A new prompt that begins with a version of another one, which becomes its parent."""
    with transaction.atomic():
        origin = version.prompt
        prompt = create_prompt(slug=slug, name=name or slug, task=origin.task, families=origin.families)
        return create_version(
            prompt,
            system=version.system,
            template=version.template,
            response_schema=version.response_schema,
            message=message or f"Forked from {version}",
            parent=version,
            by=by,
        )


def freeze(versions: Iterable[PromptVersion | int]) -> int:
    """Mark versions as used by a run: from now on nobody changes them. Returns how many were not yet."""
    ids = [v if isinstance(v, int) else v.pk for v in versions]
    return PromptVersion.objects.filter(pk__in=ids, used_at=None).update(used_at=timezone.now())


def _numbered(make: Callable[[], T]) -> T:
    """Two people may save at once and draw the same number: then the second draws again."""
    for attempt in range(_ATTEMPTS):
        try:
            with transaction.atomic():
                return make()
        except IntegrityError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("not reached")


# -- wordlists -------------------------------------------------------------------------------------------------------
def create_wordlist(
    *,
    slug: str,
    kind: str,
    name: str = "",
    note: str = "",
    entries: Iterable[Entry | Mapping[str, Any] | str] | None = None,
    message: str = "",
    by: AbstractBaseUser | None = None,
) -> Wordlist:
    """A list, with its first version where `entries` are given. ValidationError with the field's name."""
    wordlist = Wordlist(slug=slug, name=name or slug, kind=kind, note=note)
    wordlist.full_clean()
    with transaction.atomic():
        wordlist.save()
        if entries is not None:
            save_wordlist(wordlist, entries, message=message, by=by)
    return wordlist


def save_wordlist(
    wordlist: Wordlist,
    entries: Iterable[Entry | Mapping[str, Any] | str],
    *,
    message: str = "",
    base: int | None = None,
    by: AbstractBaseUser | None = None,
) -> WordlistVersion:
    """The next version of a list; the current one where nothing changed.

    `base`: the number of the version that was edited (0: none yet); where somebody saved a newer one meanwhile, this
    is refused. ValidationError keyed by field: entries (each message naming its line), message, base.
    """
    try:
        checked = check_entries(entries, wordlist.kind)
    except WordlistError as error:
        raise ValidationError({"entries": [f"{str(p)[:1].upper()}{str(p)[1:]}." for p in error.problems]}) from None
    message = " ".join(message.replace("\0", "").split())
    if len(message) > 200:
        raise ValidationError({"message": "At most 200 characters."})
    stored = [entry.as_json() for entry in checked]

    def make() -> WordlistVersion:
        current = wordlist.current
        number = current.number if current else 0
        if base is not None and base != number:
            raise ValidationError({"base": f"Version {number} was saved meanwhile: look at it, then save again."})
        if current is not None and current.digest == digest([wordlist.kind, stored]):
            return current
        version = WordlistVersion(
            wordlist=wordlist,
            entries=stored,
            message=message,
            created_by=by,  # type: ignore[misc]
        )
        version.save()
        return version

    return _numbered(make)


def add_entry(
    wordlist: Wordlist,
    entry: Entry | Mapping[str, Any] | str,
    *,
    by: AbstractBaseUser | None = None,
) -> WordlistVersion:
    """One more word, from any chip ('ban everywhere', 'add to vocabulary'): a new version, unless it is there."""
    for _ in range(_ATTEMPTS):
        current = wordlist.current
        try:
            added = check_entries([entry], wordlist.kind)[0]
        except WordlistError as error:
            raise ValidationError({"entries": error.problems[0].message}) from None
        try:
            return save_wordlist(
                wordlist,
                [*(current.entries if current else []), added],
                message=f"Added {added.text}"[:200],
                base=current.number if current else 0,
                by=by,
            )
        except ValidationError as error:
            if "base" not in getattr(error, "error_dict", {}):
                raise
    raise ValidationError({"base": "The list is being changed by others: try again."})


def add_alias(wordlist: Wordlist, alias: str, of: str, *, by: AbstractBaseUser | None = None) -> WordlistVersion:
    """'Make alias of' from any chip: `alias` becomes another name of the term `of`, which is added when missing."""
    if wordlist.kind != Wordlist.Kind.VOCABULARY:
        raise ValidationError({"wordlist": f"{wordlist.slug} is a {wordlist.kind} list: aliases are in a vocabulary."})
    current = wordlist.current
    entries = check_entries(current.entries if current else [], wordlist.kind)
    wanted = " ".join(of.split())
    at = next((i for i, e in enumerate(entries) if e.text.casefold() == wanted.casefold()), None)
    if at is None:
        entries.append(Entry(text=wanted, aliases=(alias,)))
    else:
        term = entries[at]
        entries[at] = Entry.model_validate({**term.model_dump(), "aliases": (*term.aliases, alias)})
    number = current.number if current else 0
    return save_wordlist(wordlist, entries, message=f"{alias} means {wanted}"[:200], base=number, by=by)
