"""IPTC and EXIF beside the XMP of an image: older fields that many programs still read first.

By the Metadata Working Group's rules IPTC that is newer than XMP wins over it, and the EXIF description wins over the
caption, so that a picture with either shows words of long ago until they are brought up to date. Their words are merged
as XMP's are: others' stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

from PIL import Image, IptcImagePlugin

from .safe_write import WriteRefused
from .xmp import fields
from .xmp.containers import Container
from .xmp.document import Refused
from .xmp.exif import BOILERPLATE, DESCRIPTION, description, with_description
from .xmp.iptc import CAPTION_BYTES, KEYWORD_BYTES, Iptc, cut
from .xmp.merge import compare_key, merge

KEYWORDS, CAPTION, EXIF = "IPTC:Keywords", "IPTC:Caption-Abstract", "EXIF:ImageDescription"
NAMES = frozenset((KEYWORDS, CAPTION, EXIF))
_JPEG = ("JPEG", "MPO")  # as Pillow calls them
#: Leave IPTC and EXIF alone, bring up to date what is there, or make them too.
Which = Literal["leave", "present", "always"]


def of(described: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an entry's `fields` that is IPTC and EXIF."""
    return {name: what for name, what in described.items() if name in NAMES}


class Older:
    """What an image's IPTC and EXIF get: `described` and `written` as the ledger keeps them, and `notes`."""

    def __init__(
        self,
        image: Container,
        planned: fields.Plan,
        wanted: fields.Wanted,
        last: Mapping[str, Sequence[str]],
        style: fields.Style,
        which: Which,
    ) -> None:
        self.described: dict[str, Any] = {}
        self.written: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._planned, self._wanted, self._last, self._style = planned, wanted, last, style
        for step, what in ((self._iptc, "IPTC"), (self._exif, "EXIF")):
            try:
                step(image, which)
            except Refused as e:
                self.notes.append(f"its {what} stays as it is: {e}")

    def _iptc(self, image: Container, which: Which) -> None:
        if image.format != "JPEG":
            return
        iptc = Iptc(image.iptc)
        if not iptc.there and which != "always":
            return
        if iptc.newer:
            raise Refused("a program changed it without its XMP; let that program write the XMP anew first")
        said = [word for word in self._flat() if len(word.encode()) <= KEYWORD_BYTES]
        if len(said) < len(self._flat()):
            self.notes.append(f"keywords of more than {KEYWORD_BYTES} bytes are left out of IPTC")
        merged = merge(iptc.keywords, self._last.get(KEYWORDS, ()), said, self._style.mode)
        ours = {compare_key(w) for w in self._last.get(KEYWORDS, ())}
        ours |= {compare_key(c.word) for c in merged.changes if c.kind == "added"}
        withheld = [c.word for c in merged.changes if c.kind == "withheld" and compare_key(c.word) in ours]
        self.written[KEYWORDS] = [w for w in merged.words if compare_key(w) in ours] + withheld
        if merged.changed:
            changes = [[c.word, c.kind, c.why] for c in merged.changes]
            self.described[KEYWORDS] = {"kind": "IPTC", "words": merged.words, "changes": changes}
        if self._wanted.caption is not None:
            if len((self._wanted.caption or "").encode()) > CAPTION_BYTES:
                self.notes.append(f"the caption is cut to {CAPTION_BYTES:,} bytes in IPTC")
            self._text(CAPTION, iptc.caption, cut(self._wanted.caption, CAPTION_BYTES).decode())
        try:
            iptc.with_words(*_iptc_values(self.described))
        except Refused:
            for name in (KEYWORDS, CAPTION):
                self.described.pop(name, None)
                self.written.pop(name, None)
            raise

    def _flat(self) -> list[str]:
        """The flat keywords that stand in the XMP afterwards: what someone took out there is no word here either."""
        there = {compare_key(w) for w in self._planned.fields[0].merge.words}
        return [w for w in fields.flat_words(self._wanted.keywords, self._style) if compare_key(w) in there]

    def _exif(self, image: Container, which: Which) -> None:
        if self._wanted.caption is None:
            return
        before = description(image.exif)
        if not before and not (which == "always" and (image.format == "JPEG" or image.exif is not None)):
            return
        self._text(EXIF, before, self._wanted.caption, nobodys=before.casefold() in BOILERPLATE)

    def _text(self, name: str, before: str, after: str, *, nobodys: bool = False) -> None:
        """A caption goes where there is none, one of ours, one that says what the XMP said, or nobody's words."""
        ours = self._last.get(name, ())
        if not after and before not in ours:
            return
        in_xmp = next((b for prop, b, _ in self._planned.texts if prop == fields.DESCRIPTION), "")
        replaced = not before or before in ours or before == in_xmp or nobodys or self._style.mode == "replace_own"
        if before != after and not replaced:
            self.notes.append(f"{name} was written by someone else and is left as it is; many programs show it")
            return
        self.written[name] = [after]
        if before != after:
            self.described[name] = {"before": before, "after": after}


def _iptc_values(described: Mapping[str, Any]) -> tuple[list[str] | None, str | None]:
    words, caption = described.get(KEYWORDS), described.get(CAPTION)
    return (words["words"] if words else None), (caption["after"] if caption else None)


def blocks(image: Container, described: Mapping[str, Any]) -> dict[str, bytes]:
    """The new EXIF and IPTC blocks as `Container.edits` takes them. Refused."""
    found: dict[str, bytes] = {}
    if EXIF in described:
        found["exif"] = with_description(image.exif, described[EXIF]["after"])
    if KEYWORDS in described or CAPTION in described:
        found["iptc"] = Iptc(image.iptc).with_words(*_iptc_values(described))
    return found


def rest(data: bytes) -> str:
    """A digest of all EXIF and IPTC values that are not ours, as Pillow reads them: another reader than the writer."""
    with Image.open(BytesIO(data)) as image:
        exif = image.getexif()
        values: list[Any] = [(tag, _plain(value)) for tag, value in sorted(exif.items()) if tag != DESCRIPTION]
        values += [sorted((t, _plain(v)) for t, v in exif.get_ifd(ifd).items()) for ifd in (0x8769, 0x8825, 0xA005)]
        found = IptcImagePlugin.getiptcinfo(image) or {} if image.format in _JPEG else {}
        values.append(sorted((k, _plain(v)) for k, v in found.items() if k not in ((1, 90), (2, 0), (2, 25), (2, 120))))
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _plain(value: Any) -> str:
    return repr(value)


def verify(data: bytes, described: Mapping[str, Any]) -> None:
    """Read our words back with Pillow. Raises WriteRefused."""
    with Image.open(BytesIO(data)) as image:
        text = image.getexif().get(DESCRIPTION) or ""
        found = IptcImagePlugin.getiptcinfo(image) or {} if image.format in _JPEG else {}
    said = str(text).encode("latin-1", "replace").decode("utf-8", "replace").rstrip("\0")  # Pillow reads it as Latin-1
    if EXIF in described and described[EXIF]["after"] not in (said, str(text).rstrip("\0")):
        raise WriteRefused(f"the new content does not read back: {EXIF} would be {said!r}")
    words, caption = _iptc_values(described)
    if words is not None and _texts(found.get((2, 25))) != words:
        raise WriteRefused(f"the new content does not read back: {KEYWORDS}")
    if caption is not None and "\n".join(_texts(found.get((2, 120)))) != caption:
        raise WriteRefused(f"the new content does not read back: {CAPTION}")


def _texts(values: Any) -> list[str]:
    return [v.decode() for v in (values if isinstance(values, list) else [values]) if isinstance(v, bytes)]


def without_ours(image: Container, entry_fields: Mapping[str, Any]) -> dict[str, Any]:
    """What takes an entry's words out of IPTC and EXIF that others edited since; as `described`."""
    found: dict[str, Any] = {}
    if (what := entry_fields.get(EXIF)) and description(image.exif) == what["after"]:
        found[EXIF] = {"before": what["after"], "after": what["before"]}
    if KEYWORDS not in entry_fields and CAPTION not in entry_fields:
        return found
    iptc = Iptc(image.iptc)
    if what := entry_fields.get(KEYWORDS):
        added = {compare_key(w) for w, kind, _ in what["changes"] if kind == "added"}
        words = [w for w in iptc.keywords if compare_key(w) not in added]
        there = {compare_key(w) for w in words}
        words += [w for w, kind, _ in what["changes"] if kind == "removed" and compare_key(w) not in there]
        found[KEYWORDS] = {"kind": "IPTC", "words": words, "changes": []}
    if (what := entry_fields.get(CAPTION)) and iptc.caption == what["after"]:
        found[CAPTION] = {"before": what["after"], "after": what["before"]}
    return found
