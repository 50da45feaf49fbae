"""What an import would change, image by image: the items of a source compared with what is decided here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError

from tagging.actions.review import CAPTION_LENGTH, RATING_LENGTH
from tagging.actions.tags import CATEGORY_LENGTH, check_name, resolve_tags
from tagging.models import Collection, ImageAsset, ImageTag
from tagging.policy.text import clean, tag_key

from ..import_models import ImportJob, ImportRow
from .base import MAX_WORDS, Item, Word
from .matching import Index

AT_ONCE = 256
State = ImportRow.State

#: What happens to a word, and how it is said.
FATES = {
    "new": "new, and unknown here so far",
    "added": "new",
    "confirmed": "proposed here, confirmed",
    "there": "there already",
    "refused": "rejected here, left out",
    "rejected": "rejected there",
    "removed": "taken out elsewhere",
    "undecided": "only proposed there, left out",
    "unfit": "cannot be a tag",
}
#: Fates that change the image when the import is applied as decisions.
TAKEN = ("new", "added", "confirmed", "rejected")


@dataclass
class Comparison:
    """Compares page by page and counts. `unknown` are the keys of words that no tag has yet."""

    job: ImportJob
    index: Index
    several: bool
    counts: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)

    @property
    def collection(self) -> Collection:
        return self.job.collection

    def store(self, items: Sequence[Item]) -> None:
        """Write the rows of at most AT_ONCE items."""
        items = [_storable(item) for item in items]
        matches = self.index.match(items)
        found = [i for m in matches if (i := m.image_id) is not None]
        images = {image.pk: image for image in ImageAsset.objects.filter(pk__in=found)}
        earlier = {row.image_id: row for row in ImportRow.objects.filter(job=self.job, image__in=found)}
        states = _states(found)
        known = _known(items)
        new: list[ImportRow] = []
        more: dict[int, ImportRow] = {}
        for item, match in zip(items, matches, strict=True):
            row = ImportRow(job=self.job, number=item.number, key=item.key[:1200], notes=list(item.notes))
            if match.image_id is None or match.image_id not in images:
                row.state = State.PROBLEM if item.error else State.UNMATCHED
                row.error = match.why or "the image is gone"
                self._keep_words(row, item)
                new.append(row)
                continue
            image = images[match.image_id]
            if match.note:
                row.notes.append(match.note)
            before = earlier.get(image.pk)
            if before is not None and not self.several:
                row.state = State.PROBLEM
                row.error = f"{image.path} was named before, in row {before.number}: only that one is taken"
                new.append(row)
                continue
            row.image = image
            self._compare(row, item, image, states.get(image.pk, {}), known)
            if before is not None:
                _join(before, row)
                if before.pk:
                    more[before.pk] = before
                continue
            earlier[image.pk] = row
            new.append(row)
        for row in (*new, *more.values()):
            _count(row)
        ImportRow.objects.bulk_create(new, batch_size=100)
        columns = ["words", "texts", "notes", "elsewhere", "state", *_NUMBERS]
        ImportRow.objects.bulk_update(list(more.values()), columns, batch_size=50)

    def _keep_words(self, row: ImportRow, item: Item) -> None:
        """A word list takes the words of rows without an image too."""
        if self.job.target == ImportJob.Target.VOCABULARY and not item.error:
            row.words = [[w.name, list(w.ancestors), "added", "", None, w.category] for w in item.words]

    def _compare(
        self, row: ImportRow, item: Item, image: ImageAsset, states: dict[int, int], known: dict[str, int | None]
    ) -> None:
        for word in item.words:
            fate, why = self._fate(word, states, known)
            if not fate:
                continue
            row.words.append([word.name, list(word.ancestors), fate, why, word.score, word.category])
            if fate == "new":
                self.unknown.add(tag_key(word.name))
        row.elsewhere = item.elsewhere
        if self.job.options.get("captions") != "leave":
            replace = self.job.options.get("captions") == "replace"
            for what, value, length in (
                ("caption", item.caption, CAPTION_LENGTH),
                ("rating", item.rating, RATING_LENGTH),
            ):
                if value:
                    _text(row, image, what, value, length, replace=replace)

    def _fate(self, word: Word, states: dict[int, int], known: dict[str, int | None]) -> tuple[str, str]:
        if word.name not in known:
            return "unfit", unfit(word.name)
        tag_id = known[word.name]
        state = states.get(tag_id) if tag_id is not None else None
        positive = state in ImageTag.POSITIVE
        if word.state == "removed elsewhere":
            return ("removed" if state in ImageTag.IN_FORCE else "", word.why)  # gone on both sides: nothing to say
        if word.state == "rejected":
            return (
                ("there", "rejected here too") if state == ImageTag.State.REJECTED else ("rejected", "rejected there")
            )
        if word.state == "proposed":
            return ("there", word.why) if positive else ("undecided", "only proposed there")
        if positive:
            return "there", word.why
        if state == ImageTag.State.REJECTED:
            return "refused", word.why or "rejected here"
        if state == ImageTag.State.PROPOSED:
            return "confirmed", word.why
        return ("added" if tag_id is not None else "new"), word.why


def _storable(item: Item) -> Item:
    """The item without what no database keeps (NUL, halves of characters); refused where it has too many words."""
    item.key, item.error = _text_of(item.key), _text_of(item.error)
    item.caption = _text_of(item.caption) if item.caption else None
    item.rating = _text_of(item.rating) if item.rating else None
    item.notes = [_text_of(note) for note in item.notes]
    item.words = [
        w._replace(
            name=_text_of(w.name),
            ancestors=tuple(_text_of(a) for a in w.ancestors),
            category=_text_of(w.category)[:CATEGORY_LENGTH],
        )
        for w in item.words
    ]
    if len(item.words) > MAX_WORDS:
        item.error = item.error or f"{len(item.words):,} words; one image takes at most {MAX_WORDS}"
    return item


def _text_of(text: str) -> str:
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


_NUMBERS = ("n_new", "n_there", "n_unknown", "n_refused", "n_removed")


def _count(row: ImportRow) -> None:
    fates = Counter(word[2] for word in row.words)
    row.n_new = fates["new"] + fates["added"] + fates["confirmed"]
    row.n_unknown, row.n_there = fates["new"], fates["there"]
    row.n_refused, row.n_removed = fates["refused"], fates["removed"]
    if row.image_id is not None and not row.error:
        changes = any(fates[f] for f in (*TAKEN, "refused", "removed")) or row.texts
        row.state = State.CHANGE if changes else State.SAME


def _join(row: ImportRow, other: ImportRow) -> None:
    """Another row of the same image. What was taken out in one of two sidecars was taken out."""
    at = {tag_key(word[0]): i for i, word in enumerate(row.words)}
    for word in other.words:
        i = at.get(tag_key(word[0]))
        if i is None:
            row.words.append(word)
        elif word[2] == "removed":
            row.words[i] = word
    row.texts = {**other.texts, **row.texts}
    row.notes = [*row.notes, *(note for note in other.notes if note not in row.notes)]
    row.elsewhere |= other.elsewhere


def _text(row: ImportRow, image: ImageAsset, what: str, value: str, length: int, *, replace: bool) -> None:
    """The change of a caption or rating, where there is one to make."""
    before = getattr(image, what)
    value = (
        clean(value)
        if what == "rating"
        else value.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").strip()
    )
    if len(value) > length:
        row.notes.append(f"its {what} is left out: it has more than {length:,} characters")
        return
    if what == "caption":
        decided = image.caption_state in ("accepted", "edited")
    else:
        decided = bool(before) and image.rating_score is None
    if value == before and decided:
        return
    if decided and before and not replace:
        row.notes.append(f"its {what} differs from the one that a person wrote here, which stays")
        return
    row.texts[what] = [before, value]


def _states(image_ids: Iterable[int]) -> dict[int, dict[int, int]]:
    found: dict[int, dict[int, int]] = {}
    rows = ImageTag.objects.filter(image_id__in=list(image_ids))
    for image_id, tag_id, state in rows.values_list("image_id", "tag_id", "state"):
        found.setdefault(image_id, {})[tag_id] = state
    return found


def _known(items: Iterable[Item]) -> dict[str, int | None]:
    """Name → tag id, None where it would be made; names that cannot be tags are left out."""
    names = [name for name in {w.name for item in items for w in item.words} if not unfit(name)]
    tags = resolve_tags(names, create=False)
    return {name: tags[name].pk if name in tags else None for name in names}


def unfit(name: str) -> str:
    """Why a name cannot be a tag, or nothing."""
    try:
        check_name(name)
    except ValidationError as e:
        return " ".join(e.messages)
    return ""


def summary(job: ImportJob, unknown: set[str], warnings: Sequence[str]) -> dict[str, Any]:
    """Counts of the job's rows by state and of their words. One query."""
    from django.db.models import Count, Q, Sum

    rows = ImportRow.objects.filter(job=job)
    changes = Q(state=State.CHANGE)
    counted = rows.aggregate(
        rows=Count("pk"),
        changes=Count("pk", filter=changes),
        same=Count("pk", filter=Q(state=State.SAME)),
        unmatched=Count("pk", filter=Q(state=State.UNMATCHED)),
        problems=Count("pk", filter=Q(state=State.PROBLEM)),
        elsewhere=Count("pk", filter=Q(elsewhere=True)),
        texts=Count("pk", filter=changes & ~Q(texts={})),
        added=Sum("n_new", filter=changes, default=0),
        there=Sum("n_there", default=0),
        refused=Sum("n_refused", default=0),
        removed=Sum("n_removed", default=0),
    )
    return {**counted, "unknown": len(unknown), "warnings": list(warnings)}
