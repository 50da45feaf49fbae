"""What an import becomes: decisions, a run to compare with, or a word list. Each goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils.text import slugify

from prompts.actions import create_wordlist, save_wordlist
from prompts.models import Wordlist, WordlistVersion
from tagging.actions.imported import (
    add_imported,
    close_imported_run,
    drop_imported_run,
    imported_recipe,
    open_imported_run,
)
from tagging.actions.many import Wish, decide_many
from tagging.actions.review import NothingToUndo, undo
from tagging.actions.tags import resolve_tags
from tagging.adapters.base import Reply, ScoredTag
from tagging.models import ImageAsset, Run, Tag

from .import_leases import report
from .import_models import ImportJob, ImportRow
from .importers.difference import TAKEN, unfit

AT_ONCE = 256
DOOR = "import"
State = ImportRow.State
#: Fates of words that a run or a word list takes: all that the source says is there.
_SAID = ("new", "added", "confirmed", "there", "refused")


class NotApplied(Exception):
    """The import cannot be carried out. The text says why; nothing of it was done in this step."""


def waiting(job: ImportJob) -> QuerySet[ImportRow]:
    """Rows that are still to be applied, in order."""
    rows = ImportRow.objects.filter(job=job, selected=True, image__isnull=False).order_by("pk")
    if job.target == ImportJob.Target.TRUTH:
        return rows.filter(state=State.CHANGE)
    return rows.filter(state__in=(State.CHANGE, State.SAME))


def _pages(rows: QuerySet[ImportRow]) -> Iterator[list[ImportRow]]:
    last = 0
    while page := list(rows.filter(pk__gt=last)[:AT_ONCE]):
        last = page[-1].pk
        yield page


def applying(job: ImportJob) -> User | None:
    """The person who applied it; whoever made it else."""
    pk = job.choices.get("by") or job.created_by_id
    return User.objects.filter(pk=pk).first() if pk else None


# -- as decisions -----------------------------------------------------------------------------------------------------
def apply_truth(job: ImportJob) -> None:
    """Every chosen row as decisions of one batch. A row is marked in the transaction that decides: nothing is done
    twice, whenever it is cut off."""
    if job.batch is None:
        job.batch = uuid.uuid4()
        report(job, batch=job.batch)
    by, parents = applying(job), Parents()
    for page in _pages(waiting(job)):
        tags = parents.resolve(
            [word for row in page for word in row.words if word[2] in (*TAKEN, "refused", "removed")]
        )
        wishes = {row.image_id: _wish(row, tags, job.choices) for row in page if row.image_id is not None}
        with transaction.atomic():
            report(job, n_rows=F("n_rows") + len(page))
            granted = decide_many(wishes, by=by, door=DOOR, batch=job.batch)
            _mark_all(page, granted, tags)


def _wish(row: ImportRow, tags: dict[str, int], choices: dict[str, Any]) -> Wish:
    accept = ["new", "added", "confirmed", *(["refused"] if choices.get("overrule") else [])]
    reject = ["rejected", *(["removed"] if choices.get("removals") else [])]
    texts = {name: (str(pair[0]), str(pair[1])) for name, pair in row.texts.items()}
    accepted = {tags[w[0]] for w in row.words if w[2] in accept and w[0] in tags}
    return Wish(
        accept=accepted,
        reject={tags[w[0]] for w in row.words if w[2] in reject and w[0] in tags} - accepted,
        caption=texts.get("caption"),
        rating=texts.get("rating"),
        overrule=bool(choices.get("overrule")),
        reviewed=bool(choices.get("reviewed")),
    )


def _mark_all(page: Sequence[ImportRow], granted: dict[int, Any], tags: dict[str, int]) -> None:
    """What became of the rows; one statement for all those with nothing to say (bulk_update took half of the time)."""
    said: list[ImportRow] = []
    quiet: dict[str, list[int]] = {}
    for row in page:
        before = len(row.notes)
        _mark(row, granted.get(row.image_id or 0), tags)
        if row.error or len(row.notes) > before:
            said.append(row)
        else:
            quiet.setdefault(row.state, []).append(row.pk)
    for state, ids in quiet.items():
        ImportRow.objects.filter(pk__in=ids).update(state=state)
    ImportRow.objects.bulk_update(said, ["state", "notes", "error"], batch_size=100)


def _mark(row: ImportRow, granted: Any, tags: dict[str, int]) -> None:
    if granted is None:
        row.state, row.error = State.LEFT, "the image was deleted since"
        return
    row.state = State.APPLIED if granted.edits else State.LEFT
    refused = {w[0] for w in row.words if w[2] == "refused"}  # known from the preview
    ids = set(granted.left_tags)
    meanwhile = [w[0] for w in row.words if w[0] not in refused and tags.get(w[0]) in ids]
    if meanwhile:
        row.notes = [*row.notes, f"left out, rejected since the preview: {', '.join(meanwhile)}"]
    if granted.left:
        row.notes = [*row.notes, f"left as somebody wrote it since the preview: {', '.join(granted.left)}"]


class Parents:
    """Names to tags; new tags get the place in the hierarchy that the import says, known ones keep theirs."""

    def resolve(self, words: Iterable[Sequence[Any]]) -> dict[str, int]:
        """Name → tag id, unknown ones made. Of [name, ancestors, fate, why, score, category]."""
        rows = list(words)
        names = {str(w[0]) for w in rows} | {str(a) for w in rows for a in w[1] if not unfit(str(a))}
        known = resolve_tags(names, create=False)
        for category in sorted({str(w[5]) for w in rows if w[0] not in known and w[5] != "general"}):
            made = {str(w[0]) for w in rows if w[5] == category and w[0] not in known}
            resolve_tags(made, category=category)
        tags = resolve_tags(names)
        new = {tags[name].pk for name in names if name not in known}
        for word in rows:
            path = [*(str(a) for a in word[1] if str(a) in tags), str(word[0])]
            for parent, child in itertools.pairwise(path):
                if tags[child].pk in new:
                    self._place(tags[child], tags[parent])
        return {name: tag.pk for name, tag in tags.items()}

    @staticmethod
    def _place(tag: Tag, parent: Tag) -> None:
        """Below `parent`, unless it has a place or that would make a circle."""
        if tag.parent_id is not None or tag.pk == parent.pk:
            return
        at: int | None = parent.pk
        for _ in range(50):
            if at is None:
                break
            if at == tag.pk:
                return
            at = Tag.objects.filter(pk=at).values_list("parent_id", flat=True).first()
        if Tag.objects.filter(pk=tag.pk, parent=None).update(parent=parent):
            tag.parent_id = parent.pk


def undo_truth(job: ImportJob) -> dict[str, Any]:
    """Take the whole batch back; what somebody decided anew since stays. Safe to repeat."""
    if job.batch is None:
        return {"undone": 0, "kept": 0}
    try:
        undone = undo(job.batch, by=applying(job))
    except NothingToUndo:
        return {**job.result, "undone": job.result.get("undone", 0)}
    return {"undone": len(undone.image_ids), "kept": len(undone.skipped)}


# -- as a run ---------------------------------------------------------------------------------------------------------
def apply_run(job: ImportJob) -> None:
    """Every chosen row as the proposal of a run that no model made."""
    by = applying(job)
    run = job.run
    if run is None:
        rows = waiting(job)
        total = rows.count()
        if not total:
            raise NotApplied("No row has an image: there is nothing to compare.")
        name = f"Imported: {job.name or job.get_source_display()}"
        recipe = imported_recipe(content=_content(rows), source=f"{job.source}: {job.name}", name=name, by=by)
        with transaction.atomic():
            run = open_imported_run(recipe, job.collection, name=f"{name} on {job.collection}", total=total, by=by)
            report(job, run=run)
        job.run = run
    run = Run.objects.select_related("recipe").get(pk=run.pk)
    for page in _pages(waiting(job)):
        images = ImageAsset.objects.in_bulk([row.image_id for row in page])
        with transaction.atomic():
            report(job, n_rows=F("n_rows") + len(page))
            add_imported(run, [(images[row.image_id], _reply(row)) for row in page if row.image_id in images])
            ImportRow.objects.filter(pk__in=[row.pk for row in page]).update(state=State.APPLIED)
    close_imported_run(run)


def _content(rows: QuerySet[ImportRow]) -> str:
    """sha256 of what is imported: the same content is the same recipe."""
    found = hashlib.sha256()
    for page in _pages(rows):
        for row in page:
            said = [row.key, [[w[0], w[1], w[4]] for w in row.words if w[2] in _SAID], row.texts.get("caption", [])[1:]]
            found.update(json.dumps(said, ensure_ascii=False).encode() + b"\n")
    return found.hexdigest()


def _reply(row: ImportRow) -> Reply:
    tags = tuple(ScoredTag(w[0], w[5], w[4]) for w in row.words if w[2] in (*_SAID, "undecided"))
    caption, rating = row.texts.get("caption"), row.texts.get("rating")
    return Reply(
        tags=tags,
        caption=caption[1] if caption else None,
        rating=(rating[1], None) if rating else None,  # type: ignore[arg-type]  # a person gave no probability
        flags=("imported",),
    )


def undo_run(job: ImportJob) -> dict[str, Any]:
    return {"undone": drop_imported_run(job.run) if job.run is not None else 0}


# -- as a word list ---------------------------------------------------------------------------------------------------
def apply_vocabulary(job: ImportJob) -> None:
    """All words, those of rows without an image too, as the next version of a vocabulary. One transaction."""
    words: dict[str, dict[str, Any]] = {}
    rows = ImportRow.objects.filter(job=job, selected=True).exclude(state=State.PROBLEM).order_by("pk")
    for page in _pages(rows):
        for row in page:
            for name, ancestors, fate, _, _, category in row.words:
                if fate in _SAID:
                    _learn(words, [*ancestors, name], category)
        report(job, n_rows=F("n_rows") + len(page))
    if not words:
        raise NotApplied("There is no word in it.")
    by, slug = applying(job), str(job.choices.get("wordlist") or "")
    message = f"Imported from {job.name or job.get_source_display()}"[:200]
    try:
        with transaction.atomic():
            wordlist = Wordlist.objects.filter(slug=slug).first()
            if wordlist is None:
                wordlist = create_wordlist(slug=slug, kind=Wordlist.Kind.VOCABULARY, name=slug, note=message, by=by)
            version = _save(wordlist, words, message, by)
            report(job, wordlist_version=version)
            rows.filter(state__in=(State.CHANGE, State.SAME)).update(state=State.APPLIED)
    except ValidationError as e:
        raise NotApplied(" ".join(e.messages)) from None
    job.wordlist_version = version


def _learn(words: dict[str, dict[str, Any]], path: Sequence[str], category: str) -> None:
    for at, name in enumerate(path):
        entry: dict[str, Any] = {"text": name}
        if at:
            entry["parent"] = path[at - 1]
        if category != "general" and at == len(path) - 1:
            entry["category"] = category
        known = words.setdefault(name.casefold(), entry)
        if at and "parent" not in known and known is not entry:
            known["parent"] = path[at - 1]


def _save(wordlist: Wordlist, words: dict[str, dict[str, Any]], message: str, by: User | None) -> WordlistVersion:
    current = wordlist.current
    entries = list(current.entries if current else [])
    there = {str(e["text"]).casefold() for e in entries} | {
        str(a).casefold() for e in entries for a in e.get("aliases", ())
    }
    entries += [entry for key, entry in words.items() if key not in there]
    return save_wordlist(wordlist, entries, message=message, base=current.number if current else 0, by=by)


def undo_vocabulary(job: ImportJob) -> dict[str, Any]:
    """The list as it was before, as a new version. NotApplied where somebody changed it since."""
    version = job.wordlist_version
    if version is None:
        return {"undone": 0}
    wordlist = version.wordlist
    current = wordlist.current
    if current is None or current.pk != version.pk:
        raise NotApplied(f"{wordlist.slug} was changed since: take the words out of its newest version by hand.")
    before = wordlist.versions.filter(number__lt=version.number).order_by("-number").first()
    entries = before.entries if before else []
    save_wordlist(wordlist, entries, message=f"Undid the import {job.pk}", base=version.number, by=applying(job))
    return {"undone": len(version.entries) - len(entries)}


def check_slug(text: str) -> str:
    """The slug of the word list to write to. ValidationError keyed by "wordlist"."""
    slug = slugify(text)[:80]
    if not slug:
        raise ValidationError({"wordlist": "Name the word list."})
    found = Wordlist.objects.filter(slug=slug).first()
    if found is not None and found.kind != Wordlist.Kind.VOCABULARY:
        raise ValidationError({"wordlist": f"{slug} is a {found.kind} list; words are imported into a vocabulary."})
    return slug
