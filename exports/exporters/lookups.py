"""Names of tags, runs and people, each read once, whatever the number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.contrib.auth import get_user_model

from tagging.models import Channel, Run, Tag, TagAlias
from tagging.policy.text import tag_key

NAMES_KEPT = 100_000  # about 30 MB of names; a larger vocabulary is read again now and then
#: Ids from here on are those of words that are not in the vocabulary: a run proposed them and was never shown.
UNKNOWN = 1 << 39


@dataclass(frozen=True, slots=True)
class TagName:
    """What a tag is called. `parent` is the name of the tag above it, or empty."""

    name: str
    category: str
    parent: str


class _Tags(dict[int, TagName]):
    """By id. One that was not met before is read together with all that the page at hand has: nothing is looked up for
    the millions that were."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names
        self.expected: Callable[[], Iterable[int]] = tuple

    def __missing__(self, pk: int) -> TagName:
        self._names.learn({pk, *self.expected()})
        found = self.get(pk)
        if found is None:  # deleted since its page was read
            raise KeyError(pk)
        return found


class Written(dict[int, str]):
    """Tag id → its name in some written form, made once."""

    def __init__(self, names: Names, write: Callable[[str], str]) -> None:
        super().__init__()
        self._names = names
        self._write = write

    def __missing__(self, pk: int) -> str:
        if len(self) > NAMES_KEPT:
            self.clear()
        text = self[pk] = self._write(self._names.tags[pk].name)
        return text


class Names:
    """Names of tags, runs and people, each read once."""

    def __init__(self) -> None:
        self.tags = _Tags(self)
        self.unknown: dict[int, TagName] = {}  # words without a row, by ids of our own
        self._ids: dict[str, int] = {}  # by key
        self._runs: dict[int, tuple[str, str]] = {}
        self._people: dict[int, str] = {}

    def expect(self, tag_ids: Callable[[], Iterable[int]]) -> None:
        """What to read together when one of them is asked for."""
        self.tags.expected = tag_ids

    def learn(self, tag_ids: Iterable[int]) -> None:
        """Read the names of tags not met before: one query for 5,000 of them."""
        self._let_go()
        missing = [pk for pk in tag_ids if pk not in self.tags]
        for at in range(0, len(missing), 5000):  # databases bound the number of parameters
            found = Tag.objects.filter(pk__in=missing[at : at + 5000]).order_by()
            for pk, name, category, parent in found.values_list("pk", "name", "category", "parent__name"):
                self.tags[pk] = TagName(name, category, parent or "")

    def ids_of(self, said: Iterable[tuple[str, str]]) -> dict[str, int]:
        """Name → id of these (name, category), an alias leading to its tag. Words that the vocabulary does not have get
        ids of their own (`UNKNOWN`); nothing is added to it. Names of nothing but spaces are left out."""
        self._let_go()
        categories = dict(said)
        keys = {name: key for name in categories if (key := tag_key(name[:200]))}
        missing = sorted({key for key in keys.values() if key not in self._ids})
        for at in range(0, len(missing), 5000):
            part = missing[at : at + 5000]
            self._ids.update(TagAlias.objects.filter(key__in=part).order_by().values_list("key", "tag_id"))
            self._ids.update(Tag.objects.filter(key__in=part).order_by().values_list("key", "pk"))
        for name, key in keys.items():
            if key not in self._ids:
                pk = self._ids[key] = UNKNOWN + len(self.unknown)
                self.unknown[pk] = self.tags[pk] = TagName(name, categories[name], "")
        found = {name: self._ids[key] for name, key in keys.items()}
        self.learn(found.values())
        return found

    def _let_go(self) -> None:
        if len(self.tags) > NAMES_KEPT:
            self.tags.clear()
            self.tags.update(self.unknown)

    def run(self, pk: int | None) -> tuple[str, str]:
        """(name of the run, slugs of its adapters joined with "+"); empty texts without a run."""
        if pk is None:
            return "", ""
        if pk not in self._runs:
            run = Run.objects.filter(pk=pk).first()
            slugs = Channel.objects.filter(recipe__runs=pk).order_by("position").values_list("adapter__slug", flat=True)
            self._runs[pk] = (str(run) if run else f"run {pk}", "+".join(slugs))
        return self._runs[pk]

    def person(self, pk: int | None) -> str:
        """The user name; empty without one."""
        if pk is None:
            return ""
        if pk not in self._people:
            user = get_user_model().objects.filter(pk=pk).first()
            self._people[pk] = user.get_username() if user else ""
        return self._people[pk]
