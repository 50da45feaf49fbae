"""Names that models say → rows of Tag: found once, made when new, remembered in the process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..models import Tag, TagAlias
from ..policy.text import clean, spaced, tag_key

_KNOWN: dict[str, int] = {}  # by key
_NAMES: dict[str, int] = {}  # by name as it is said: making the key costs more than all look-ups
_LIMIT = 500_000
NAME_LENGTH = 200


def forget() -> None:
    """Ask the database again: a tag was merged or deleted by a person meanwhile."""
    _KNOWN.clear()
    _NAMES.clear()


def known(name: str) -> bool:
    """Was this name met before?"""
    return name in _NAMES


def tag_ids(names: Mapping[str, tuple[str, tuple[str, ...]]]) -> dict[str, int]:
    """Name → Tag id, of these and all names met before. New terms are made with their parents.

    `names`: name → (category, ancestors from the nearest up).

    What a person edited (category, parent, aliases) stays: only missing rows are made. Names are compared by
    `tag_key`; an alias leads to its tag. A name too long for the vocabulary is cut.
    """
    if len(_NAMES) > _LIMIT:
        forget()
    keys = {name: tag_key(name[:NAME_LENGTH]) for name in names if name not in _NAMES}
    unknown = {name: key for name, key in keys.items() if key and key not in _KNOWN}
    if unknown:
        _learn(unknown, names)
    _NAMES.update({name: _KNOWN[key] for name, key in keys.items() if key in _KNOWN})
    return _NAMES


def _learn(unknown: Mapping[str, str], names: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
    wanted: dict[str, tuple[str, str, str | None]] = {}  # key → name, category, key of the parent
    for name in unknown:
        category, ancestors = names[name]
        wanted[tag_key(name[:NAME_LENGTH])] = (name[:NAME_LENGTH], category, _key_of_first(ancestors))
    for name in unknown:  # after all of them: a term that is said itself is written as it is said
        category, ancestors = names[name]
        for i, above in enumerate(ancestors):
            row = (spaced(clean(above))[:NAME_LENGTH], category, _key_of_first(ancestors[i + 1 :]))
            wanted.setdefault(tag_key(above[:NAME_LENGTH]), row)
    _look_up(wanted)
    # in the order of keys: two workers that learn the same words in different orders would wait for each other
    missing = {key: wanted[key] for key in sorted(wanted) if key and key not in _KNOWN}
    if not missing:
        return
    Tag.objects.bulk_create(
        [Tag(name=name, key=key, category=category[:40] or "general") for key, (name, category, _) in missing.items()],
        ignore_conflicts=True,
        batch_size=500,
    )
    _look_up(missing)
    _set_parents({key: above for key, (_, _, above) in missing.items() if above})


def _key_of_first(names: tuple[str, ...]) -> str | None:
    return tag_key(names[0][:NAME_LENGTH]) if names else None


def _look_up(keys: Iterable[str]) -> None:
    todo = [key for key in keys if key and key not in _KNOWN]
    for lo in range(0, len(todo), 500):
        some = todo[lo : lo + 500]
        _KNOWN.update(TagAlias.objects.filter(key__in=some).values_list("key", "tag_id"))
        # a term of its own goes before an alias of another
        _KNOWN.update(Tag.objects.filter(key__in=some).values_list("key", "id"))


def _set_parents(parents: Mapping[str, str]) -> None:
    rows = {row.key: row for row in Tag.objects.filter(key__in=list(parents), parent=None)}
    for key, row in rows.items():
        above = _KNOWN.get(parents[key])
        if above and above != row.pk:
            row.parent_id = above
    Tag.objects.bulk_update(rows.values(), ["parent"], batch_size=500)
