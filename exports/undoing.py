"""Written files taken back: exactly where they are as we left them, our words alone where others edited since."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import embedded, older, safe_write
from .embedded import Moved
from .ledger import TEXT, Action, State, mark, moved, property_named, save, sha256, verify, without
from .models import ExportEntry
from .safe_write import Seen, WriteRefused
from .xmp import containers, fields
from .xmp.document import Refused
from .xmp.merge import compare_key
from .xmp.packet import Packet


def undo(entries: Iterable[ExportEntry], *, fsync: bool = True) -> tuple[int, list[str]]:
    """Take written entries back, newest first; (how many, what could not be undone and why).

    Where the file is what we left, its old bytes come back exactly (a file we made goes). Where somebody wrote since,
    only our words are taken out and theirs stay. An undo that was interrupted may be done again. Give it some dozens
    at a time: their rows are committed together at the end.
    """
    touched: list[ExportEntry] = []
    among_others: list[ExportEntry] = []
    moves: list[Moved] = []
    problems = []
    for entry in sorted(entries, key=lambda e: -e.pk):
        if entry.state != State.DONE:
            continue
        touched.append(entry)
        try:
            exact = _undo_one(entry, fsync, moves)
        except (WriteRefused, Refused) as e:
            entry.error = f"not undone: {e}"
            problems.append(f"{entry.target}: {e}")
            continue
        entry.state, entry.error = State.UNDONE, ""
        if not exact:
            among_others.append(entry)
    save(touched, moves)
    _disown(among_others)
    return len(touched) - len(problems), problems


def _disown(undone: Sequence[ExportEntry]) -> None:
    """Words that an undo took out below a newer export of ours are no longer that one's: else the next export would
    think that a person had removed them."""
    newer = ExportEntry.objects.filter(target__in=[e.target for e in undone], state=State.DONE)
    by_target: dict[str, list[ExportEntry]] = {}
    for row in newer if undone else ():
        by_target.setdefault(row.target, []).append(row)
    for entry in undone:
        for row in by_target.get(entry.target, ()):
            for name, what in entry.fields.items():
                gone = {compare_key(w) for w, kind, _ in what.get("changes", ()) if kind == "added"}
                row.written[name] = [w for w in row.written.get(name, ()) if compare_key(w) not in gone]
            row.save(update_fields=["written"])


def _undo_one(entry: ExportEntry, fsync: bool, moves: list[Moved]) -> bool:
    """True when the file is as it was before the entry, False when others' work stays in it."""
    path = Path(entry.target)
    seen = Seen.of(path)
    if seen is None:
        return True  # taken away by someone: nothing of ours is left there
    try:
        now = path.read_bytes()
    except OSError as e:
        raise WriteRefused(f"cannot be read: {e.strerror or e}") from None
    if entry.seen and sha256(now) == entry.sha_before:
        moves += moved(entry, entry.sha_after, entry.sha_before, seen)
        return True  # undone before an interruption, or by hand
    if sha256(now) == entry.sha_after:
        if entry.action == Action.CREATE:
            safe_write.remove(path, seen=seen, fsync=fsync)
        else:
            old = zlib.decompress(bytes(entry.backup or b""))
            if embedded.FIELD in entry.fields:
                old = embedded.restore(now, old)
            if sha256(old) != entry.sha_before:
                raise WriteRefused("the backup is damaged")
            new = safe_write.replace(path, old, seen=seen, fsync=fsync, mark=mark(entry))
            moves += moved(entry, entry.sha_after, entry.sha_before, new)
        return True
    described: dict[str, Any] = {}
    if embedded.FIELD in entry.fields:
        image = embedded.opened(path.name, now)
        back = older.without_ours(image, entry.fields)
        described = {embedded.FIELD: embedded.described(image, now, with_older=bool(back)), **back}
    data = _without_ours(now, entry, described)
    if data != now:
        new = safe_write.replace(
            path, data, seen=seen, verify=lambda written: verify(written, described), fsync=fsync, mark=mark(entry)
        )
        moves += moved(entry, sha256(now), sha256(data), new)
    return False


def _without_ours(now: bytes, entry: ExportEntry, described: Mapping[str, Any]) -> bytes:
    """The content that others edited since, with what this entry added taken out and what it removed put back.
    `described`: what the same makes of the IPTC and EXIF of an image."""
    if TEXT in entry.fields:
        raise WriteRefused("edited by someone since iwtag wrote it; their text stays")
    in_image = embedded.FIELD in entry.fields
    text = containers.read_xmp(now) if in_image else now
    if text is None:
        return now  # someone took all metadata out of the image
    packet = Packet(text)
    for name, what in without(entry.fields).items():
        prop = property_named(name)
        if "words" in what:
            added = {compare_key(w) for w, kind, _ in what["changes"] if kind == "added"}
            removed = [w for w, kind, _ in what["changes"] if kind == "removed"]
            words = [w for w in fields.words_of(packet, prop) if compare_key(w) not in added]
            there = {compare_key(w) for w in words}
            words += [w for w in removed if compare_key(w) not in there]
            fields.set_words(packet, prop, words, what["kind"])
        elif "structs" in what:
            if packet.structs(prop) == what["structs"]:
                packet.set_structs(prop, what["structs_before"])
        elif "after" in what and packet.text(prop) == what["after"]:
            fields.set_text(packet, prop, what["before"])
    new = packet.to_bytes()
    if not in_image:
        return new
    return now if new == text and not older.of(described) else embedded.build(now, new, described)
