"""Files written in place: planned and shown, journalled before they are touched, provable and undoable afterwards.

A sidecar's plan is made from the bytes on the disk and what we wrote there last; the same bytes must still be there
when it is carried out. The order of writes is: journal row with backup committed → file replaced (`safe_write`) →
row `done` committed. A crash in between is settled by the file's hash.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from django.db import connection, transaction
from django.utils import timezone

from . import embedded, older, safe_write
from .embedded import Moved
from .models import ExportEntry, ExportJob
from .older import Older, Which
from .safe_write import Seen, WriteRefused
from .xmp import acdsee, containers, fields
from .xmp.document import Refused
from .xmp.packet import Packet, Property

State, Action = ExportEntry.State, ExportEntry.Action
TEXT = "text"  # the field of a file that is one text as a whole, see `text_files`
PORTION = 64 * 1024 * 1024  # bytes of files that are held at once
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- plan -------------------------------------------------------------------------------------------------------------
def plan_sidecar(
    target: Path,
    wanted: fields.Wanted,
    last: Mapping[str, Sequence[str]],
    style: fields.Style,
    *,
    embed: bool = False,
    which: Which = "leave",
) -> ExportEntry | None:
    """The entry (not saved, without job and image) for one sidecar; None when the file already says it all.

    With `embed` the target is an image, which holds the packet; `which` says what its IPTC and EXIF get. A file that
    must be left alone gives an entry with action `refuse` and the reason.
    """
    entry = ExportEntry(target=str(target), action=Action.UPDATE)
    try:
        seen = Seen.of(target)
        data = target.read_bytes() if seen else b""
        image = embedded.opened(target.name, data) if embed else None
        text = image.packet if image else data
        planned = fields.plan(Packet(text) if text else Packet.new(), wanted, last, style)
        old = Older(image, planned, wanted, last, style, which) if image and which != "leave" else None
    except (Refused, WriteRefused, fields.UnwritableWord) as e:
        return refused(target, str(e))
    except OSError as e:
        return refused(target, f"cannot be read: {e.strerror or e}")
    if not planned.changed and not (old and old.described):
        return None
    entry.action = Action.UPDATE if seen else Action.CREATE
    entry.seen = [seen.size, seen.mtime_ns, seen.inode] if seen else None
    entry.sha_before = sha256(data) if seen else ""
    entry.fields = _describe(planned)
    entry.written = planned.written
    entry.notes = list(planned.notes)
    if image:
        packet = build(image.packet or b"", entry.fields)
        if old is None:
            entry.notes += embedded.notes(image, caption=str(fields.DESCRIPTION) in entry.fields)
        else:
            entry.fields |= old.described
            entry.written = {**entry.written, **old.written}
            entry.notes += old.notes
        try:  # will it fit?
            image.edits(packet, **older.blocks(image, entry.fields))
        except Refused as e:
            return refused(target, str(e))
        entry.fields[embedded.FIELD] = embedded.described(image, data, with_older=bool(older.of(entry.fields)))
    return entry


def refused(target: Path, why: str) -> ExportEntry:
    return ExportEntry(target=str(target), action=Action.REFUSE, state=State.REFUSED, error=why)


def last_written(targets: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Target → field → our words, by the newest entry that is in force there. One query."""
    found: dict[str, dict[str, list[str]]] = {}
    rows = ExportEntry.objects.filter(target__in=list(targets), state=State.DONE).order_by("id")
    for target, written in rows.values_list("target", "written"):
        found[target] = written
    return found


def _describe(planned: fields.Plan) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for item in planned.fields:
        if item.merge.changed:
            described[str(item.prop)] = {
                "kind": item.kind,
                "words": item.merge.words,
                "changes": [[c.word, c.kind, c.why] for c in item.merge.changes],
            }
        elif any(c.kind == "withheld" for c in item.merge.changes):  # only to be shown
            described[str(item.prop)] = {"changes": [[c.word, c.kind, c.why] for c in item.merge.changes]}
    for prop, before, after in planned.texts:
        if before != after:
            described[str(prop)] = {"before": before, "after": after}
    if planned.details is not None:
        described[str(fields.DETAILS)] = {"structs_before": planned.details[0], "structs": planned.details[1]}
    return described


def insert(entries: Sequence[ExportEntry]) -> None:
    """Save new entries with plain statements, without their ids: `bulk_create` costs half as much as the plan."""
    if not entries:
        return
    now = timezone.now()
    columns = [c for c in ExportEntry._meta.concrete_fields if not c.primary_key]
    quote = connection.ops.quote_name
    names = ", ".join(quote(str(c.column)) for c in columns)
    sql = f"INSERT INTO {quote(ExportEntry._meta.db_table)} ({names}) VALUES ({', '.join(['%s'] * len(columns))})"
    for entry in entries:
        entry.at = now
    rows = [[c.get_db_prep_save(getattr(e, c.attname), connection) for c in columns] for e in entries]
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)


# -- apply ------------------------------------------------------------------------------------------------------------
def apply(entries: Sequence[ExportEntry], *, fsync: bool = True) -> None:
    """Write planned entries: one journal transaction, the files, one closing transaction; large files in portions.

    Each entry ends as done, skipped (the file is not what the plan was made from) or failed, with the reason. Give it
    some dozens at a time: that many are in doubt after a crash.
    """
    portion: list[ExportEntry] = []
    size = 0
    for entry in entries:
        portion.append(entry)
        size += entry.seen[0] if entry.seen else 0
        if size >= PORTION:
            _apply(portion, fsync)
            portion, size = [], 0
    _apply(portion, fsync)


def _apply(entries: Sequence[ExportEntry], fsync: bool) -> None:
    ready: list[tuple[ExportEntry, bytes]] = []
    for entry in entries:
        if entry.state != State.PLANNED or not entry.selected:
            continue
        entry.error = ""
        try:
            before = _bytes_as_planned(entry)
            after = build(before, entry.fields)
            old = embedded.backup(before, after, entry.fields) if embedded.FIELD in entry.fields else before
        except (WriteRefused, Refused) as e:
            entry.state, entry.error = State.SKIPPED, str(e)
            continue
        entry.backup = zlib.compress(old) if entry.seen else None
        entry.sha_after = sha256(after)
        entry.state = State.WRITING
        ready.append((entry, after))
    save(entries, backups=True)
    moves = []
    for entry, data in ready:
        try:
            new = safe_write.replace(
                Path(entry.target), data, seen=_seen(entry), verify=_verifier(entry), fsync=fsync, mark=mark(entry)
            )
            entry.state = State.DONE
            moves += moved(entry, entry.sha_before, entry.sha_after, new)
        except WriteRefused as e:
            entry.state, entry.error = State.FAILED, str(e)
    save([entry for entry, _ in ready], moves)


def build(before: bytes, described: Mapping[str, Any]) -> bytes:
    """The new content of a sidecar or image from its old one (empty: none) and an entry's `fields`. Refused."""
    if TEXT in described:
        return str(described[TEXT]["after"]).encode()
    if embedded.FIELD in described:
        text = build(containers.read_xmp(before) or b"", without(described))
        return embedded.build(before, text, described)
    packet = Packet(before) if before else Packet.new()
    for name, what in described.items():
        prop = property_named(name)
        if "words" in what:
            fields.set_words(packet, prop, what["words"], what["kind"])
        elif "structs" in what:
            packet.set_structs(prop, what["structs"])
        elif "after" in what:
            fields.set_text(packet, prop, what["after"])
    return packet.to_bytes()


def verify(data: bytes, described: Mapping[str, Any]) -> None:
    """Read the words back with another parser (expat) than the one that wrote them. Raises WriteRefused."""
    if TEXT in described:
        return  # compared byte by byte already
    if image := described.get(embedded.FIELD):
        verify(embedded.packet_read_back(data, image), without(described))
        older.verify(data, described)
        return
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as e:
        raise WriteRefused(f"the new content does not read back: {e}") from None
    for name, what in described.items():
        prop = property_named(name)
        if "structs" in what:
            if len(root.findall(f".//{prop.qname}/{_RDF}Bag/{_RDF}li")) != len(what["structs"]):
                raise WriteRefused(f"the new content does not read back: {name}")
            continue
        if "words" not in what:
            continue
        if what["kind"] == "XML":
            holder = next(root.iterfind(f".//{prop.qname}"), None)
            said = next((e.get(prop.qname) for e in root.iter() if e.get(prop.qname)), None)
            found = acdsee.paths(said or ("".join(holder.itertext()) if holder is not None else ""))
            if sorted(found) != sorted(what["words"]):  # a document of levels keeps them together
                raise WriteRefused(f"the new content does not read back: {name} would be {found!r}")
            continue
        found = [li.text or "" for li in root.iterfind(f".//{prop.qname}/{_RDF}{what['kind']}/{_RDF}li")]
        if found != what["words"]:
            raise WriteRefused(f"the new content does not read back: {name} would be {found!r}")


def _verifier(entry: ExportEntry) -> Callable[[bytes], None]:
    return lambda data: verify(data, entry.fields)


def without(described: Mapping[str, Any]) -> dict[str, Any]:
    """What is written into the packet, without what goes beside it in an image."""
    return {n: what for n, what in described.items() if n != embedded.FIELD and n not in older.NAMES}


def moved(entry: ExportEntry, before: str, after: str, seen: Seen) -> list[Moved]:
    """What the tables must follow: nothing for a sidecar."""
    if embedded.FIELD not in entry.fields or entry.image_id is None or before == after:
        return []
    return [Moved(entry.image_id, before, after, seen)]


def _bytes_as_planned(entry: ExportEntry) -> bytes:
    path = Path(entry.target)
    if Seen.of(path) != _seen(entry):
        raise WriteRefused("changed by another program since the plan was made")
    if entry.seen is None:
        return b""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise WriteRefused(f"cannot be read: {e.strerror or e}") from None
    if sha256(data) != entry.sha_before:
        raise WriteRefused("changed by another program since the plan was made")
    return data


def mark(entry: ExportEntry) -> str:
    """In the names of temp files, so that a job sweeps only its own."""
    return f"{entry.job_id}-"


def _seen(entry: ExportEntry) -> Seen | None:
    return Seen(*entry.seen) if entry.seen else None


def save(entries: Iterable[ExportEntry], moves: Sequence[Moved] = (), *, backups: bool = False) -> None:
    """One transaction with plain statements: bulk_update costs more than writing the files."""
    now = timezone.now()
    rows = list(entries)
    names = ("state", "error", "at", *(("sha_after", "backup") if backups else ()))
    columns = [c for c in ExportEntry._meta.concrete_fields if c.name in names]
    table, quote = ExportEntry._meta.db_table, connection.ops.quote_name
    assignments = ", ".join(f"{quote(str(c.column))} = %s" for c in columns)
    sql = f"UPDATE {quote(table)} SET {assignments} WHERE {quote('id')} = %s"
    for entry in rows:
        entry.at = now
    values = [[*(c.get_db_prep_save(getattr(e, c.attname), connection) for c in columns), e.pk] for e in rows]
    embedded.copy_renditions(moves)
    with transaction.atomic():
        if values:
            with connection.cursor() as cursor:
                cursor.executemany(sql, values)
        embedded.follow(moves)


_PROPERTIES = {
    str(p): p
    for p in (
        fields.SUBJECT,
        fields.HIERARCHY,
        fields.TAGS_LIST,
        fields.LAST_KEYWORD,
        fields.CATALOG_SETS,
        fields.CATEGORIES,
        fields.DESCRIPTION,
        fields.IMAGE_DESCRIPTION,
        *fields.PLAIN,
        fields.DETAILS,
    )
}


def property_named(name: str) -> Property:
    return _PROPERTIES[name]


# -- after a crash ----------------------------------------------------------------------------------------------------
def settle(job: ExportJob | None = None) -> int:
    """Decide what became of entries that a crash left in the middle; how many there were.

    The new content is there: done. The old content is there: planned again. Anything else: failed, left to a person.
    """
    rows = ExportEntry.objects.filter(state=State.WRITING)
    if job is not None:
        rows = rows.filter(job=job)
    entries = list(rows)
    folders = set()
    moves = []
    for entry in entries:
        path = Path(entry.target)
        folders.add((path.parent, mark(entry)))
        try:
            stat = path.stat()
            now = sha256(path.read_bytes())
        except FileNotFoundError:
            now = ""
        except OSError as e:
            entry.state, entry.error = State.FAILED, f"cannot be read after an interruption: {e.strerror or e}"
            continue
        if now and now == entry.sha_after:
            entry.state = State.DONE
            seen = Seen(stat.st_size, stat.st_mtime_ns, stat.st_ino)
            moves += moved(entry, entry.sha_before, now, seen)
        elif now == entry.sha_before:
            entry.state = State.PLANNED
        else:
            entry.state = State.FAILED
            entry.error = "interrupted, and changed by another program since: look at the file"
    for folder, ours in folders:  # first: once the rows are settled, nobody looks for what a second crash left
        safe_write.sweep(folder, ours)
    save(entries, moves)
    return len(entries)
