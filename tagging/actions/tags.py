"""The vocabulary: names to tags, and the look-up behind every tag box."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Max, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from ..models import Collection, Tag, TagAlias
from ..policy.text import clean, spaced, tag_key

NAME_LENGTH = 200
KEY_LENGTH = 220
CATEGORY_LENGTH = 40
_STEP = 500  # names per query


def check_name(name: object, field: str = "tags") -> tuple[str, str]:
    """(name as it is written, key as it is compared). ValidationError under `field` when it cannot be a tag."""
    if not isinstance(name, str):
        raise ValidationError({field: f"A tag is text, not {type(name).__name__}."})
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise ValidationError({field: "A tag must not contain halves of characters (lone surrogates)."})
    written = spaced(clean(name))
    key = tag_key(name)
    if not key:
        raise ValidationError({field: "A tag needs at least one visible character."})
    if len(written) > NAME_LENGTH or len(key) > KEY_LENGTH:
        raise ValidationError({field: f"A tag has at most {NAME_LENGTH} characters: {written[:40]!r}… has more."})
    return written, key


def resolve_tags(
    names: Iterable[str], create: bool = True, *, field: str = "tags", category: str = "general"
) -> dict[str, Tag]:
    """Each given name → its Tag, aliases applied. Unknown ones are made (in `category`) or, without `create`, left out.

    Two or three queries, two more when something is made. ValidationError under `field` for names that cannot be tags.
    """
    wanted: dict[str, tuple[str, str]] = {name: check_name(name, field) for name in names}
    written = {key: name for name, key in reversed(wanted.values())}  # the first spelling wins
    found = _by_key(list(written))
    missing = [key for key in written if key not in found]
    if missing and create:
        new = [Tag(name=written[key], key=key, category=category) for key in missing]
        # another process may make the same tag just now: then theirs is ours
        Tag.objects.bulk_create(new, ignore_conflicts=True, batch_size=_STEP)
        found |= _by_key(missing)
    return {name: found[key] for name, (_, key) in wanted.items() if key in found}


def _by_key(keys: Sequence[str]) -> dict[str, Tag]:
    found: dict[str, Tag] = {}
    for at in range(0, len(keys), _STEP):
        part = keys[at : at + _STEP]
        found |= {tag.key: tag for tag in Tag.objects.filter(key__in=part)}
        if rest := [key for key in part if key not in found]:
            aliases = TagAlias.objects.filter(key__in=rest).select_related("tag")
            found |= {alias.key: alias.tag for alias in aliases}
    return found


def create_tag(name: str, *, category: str = "general", parent: Tag | None = None, aliases: Iterable[str] = ()) -> Tag:
    """A new term of the vocabulary. ValidationError keyed by name, category or aliases; `name` when it is taken, by a
    tag or as an alias."""
    written, key = check_name(name, "name")
    category = clean(category).casefold()
    if not category or len(category) > CATEGORY_LENGTH:
        raise ValidationError({"category": f"Name a category of at most {CATEGORY_LENGTH} characters."})
    with transaction.atomic():
        _check_free(key, "name")
        tag = Tag(name=written, category=category, parent=parent)
        try:
            with transaction.atomic():
                tag.save()
        except IntegrityError:
            raise ValidationError({"name": f"There is a tag {written!r} already."}) from None
        for alias in aliases:
            add_alias(tag, alias, field="aliases")
    return tag


def add_alias(tag: Tag, name: str, *, field: str = "name") -> TagAlias:
    """Another spelling of `tag`; the one there is where it already means it. ValidationError under `field` when it
    means another tag."""
    written, key = check_name(name, field)
    if found := TagAlias.objects.filter(key=key, tag=tag).first():
        return found
    _check_free(key, field)
    try:
        with transaction.atomic():
            return TagAlias.objects.create(tag=tag, name=written)
    except IntegrityError:
        raise ValidationError({field: f"{written!r} is an alias already."}) from None


def _check_free(key: str, field: str) -> None:
    if tag := _by_key([key]).get(key):
        what = "is a tag already" if tag.key == key else f"is an alias of {tag.name!r} already"
        raise ValidationError({field: f"{key!r} {what}."})


@dataclass(frozen=True, slots=True)
class TagHit:
    """One answer to a search. `count` is the number of images that carry it (in the collection, if one was named);
    `alias` is the spelling that matched, when it was not the tag's own name."""

    id: int
    name: str
    category: str
    count: int
    match: Literal["exact", "prefix", "word", "alias", "fuzzy"]
    alias: str = ""


def search_tags(text: str, limit: int = 20, collection: Collection | None = None) -> list[TagHit]:
    """Tags for a tag box: exact, then prefix, then the start of a later word, then close spellings; each group by use.

    Empty text gives the most used tags. Fuzzy hits are looked for only when the others leave room.
    """
    key = tag_key(text)[:KEY_LENGTH]
    limit = max(1, min(limit, 100))
    hits: dict[int, TagHit] = {}

    def take(tags: QuerySet[Tag], match: Literal["exact", "prefix", "word", "alias", "fuzzy"]) -> None:
        if len(hits) < limit:
            for tag in _with_counts(tags.exclude(pk__in=list(hits)), collection)[: limit - len(hits)]:
                hits[tag.pk] = TagHit(tag.pk, tag.name, tag.category, tag.count, match)  # type: ignore[attr-defined]

    if not key:
        take(_used(collection), "prefix")
        return list(hits.values())
    take(Tag.objects.filter(key=key), "exact")
    for pk, alias in _aliases(key, limit):
        if pk not in hits and len(hits) < limit:
            take(Tag.objects.filter(pk=pk), "alias")
            hits[pk] = TagHit(pk, hits[pk].name, hits[pk].category, hits[pk].count, "alias", alias)
    take(Tag.objects.filter(_prefix(key)), "prefix")
    take(Tag.objects.filter(key__contains=f" {key}"), "word")
    if len(hits) < limit and len(key) >= 3:
        close = _close(key, limit)
        found = {tag.pk: tag for tag in _with_counts(Tag.objects.filter(pk__in=close), collection)}
        for pk in close:
            if pk in found and pk not in hits and len(hits) < limit:
                tag = found[pk]
                hits[pk] = TagHit(pk, tag.name, tag.category, tag.count, "fuzzy")  # type: ignore[attr-defined]
    return list(hits.values())


def _prefix(key: str) -> Q:
    """A condition that the index on `key` answers: a range on SQLite (LIKE with ESCAPE cannot use an index there),
    LIKE on PostgreSQL (its pattern index; a range would follow the collation)."""
    if connection.vendor == "sqlite":
        return Q(key__gte=key, key__lt=key + "\U0010ffff")
    return Q(key__startswith=key)


def _with_counts(tags: QuerySet[Tag], collection: Collection | None) -> QuerySet[Tag]:
    within = Q(counts__collection=collection) if collection else None
    total = F("counts__proposed") + F("counts__accepted") + F("counts__added")
    return tags.annotate(count=Coalesce(Sum(total, filter=within), 0)).order_by("-count", "key")


def _used(collection: Collection | None) -> QuerySet[Tag]:
    return Tag.objects.filter(counts__collection=collection) if collection else Tag.objects.all()


def _aliases(key: str, limit: int) -> list[tuple[int, str]]:
    return list(TagAlias.objects.filter(_prefix(key)).order_by("key").values_list("tag_id", "name")[:limit])


class _Vocabulary:
    """All keys, for close spellings only: read again when a tag was made, at the latest after a minute. Names shown
    come fresh from the database."""

    keys: dict[int, str] = {}
    newest: int | None = None
    read_at = 0.0

    def current(self) -> dict[int, str]:
        newest = Tag.objects.aggregate(newest=Max("pk"))["newest"]
        if newest != self.newest or time.monotonic() - self.read_at > 60:
            self.keys = dict(Tag.objects.order_by().values_list("pk", "key"))
            self.newest, self.read_at = newest, time.monotonic()
        return self.keys


_vocabulary = _Vocabulary()


def _close(key: str, limit: int) -> list[int]:
    """Tags at an edit distance of at most a third of the length, closest first. WRatio would rank "sun" with
    "sunset" for "sunst"; the plain distance does not."""
    from rapidfuzz import process
    from rapidfuzz.distance import DamerauLevenshtein

    found = process.extract(
        key,
        _vocabulary.current(),
        scorer=DamerauLevenshtein.normalized_similarity,
        score_cutoff=0.67,
        limit=limit,
    )
    return [pk for _, _, pk in found]
