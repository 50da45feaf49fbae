"""Damaged sidecars: edited without harm or refused, never anything else.

SIDECAR_FUZZ sets how many cases (3,000).
"""

from __future__ import annotations

import os
import random
import re
from xml.etree import ElementTree

import pytest

from exports import ledger, safe_write
from exports.xmp import fields
from exports.xmp.document import Refused
from exports.xmp.packet import Packet

from .folders import SAMPLES

CASES = int(os.environ.get("SIDECAR_FUZZ", "3000"))
WANTED = fields.Wanted(
    (fields.Keyword(("animal", "dog")), fields.Keyword(("beach",))),
    caption="A dog",
    details=(fields.Detail("dog", "model", "r", "0.9000"),),
)
OURS = {p.qname for p in (fields.SUBJECT, fields.HIERARCHY, fields.TAGS_LIST, fields.LAST_KEYWORD)}
OURS |= {
    p.qname
    for p in (fields.CATALOG_SETS, fields.CATEGORIES, fields.DESCRIPTION, fields.IMAGE_DESCRIPTION, fields.DETAILS)
}
DESCRIPTION = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
PIECES = [
    b"<rdf:li/>",
    b"</rdf:Bag>",
    b"<rdf:Bag>",
    b"\x00",
    b"\xff\xfe",
    b"<!-- x -->",
    b"<![CDATA[x]]>",
    b"&amp;",
    b"&#x1F3D6;",
    b"&unknown;",
    b"<!DOCTYPE x>",
    b'dc:subject="x"',
    b" xmlns:dc='x'",
    b"<rdf:Description rdf:about=''/>",
    b"\r\n",
    b"<",
    b">",
    b'"',
    b"<rdf:Seq><rdf:li>a</rdf:li></rdf:Seq>",
    b"<?pi x?>",
    b"]]>",
    b"\xc3",
    b'rdf:parseType="Resource"',
]


def mutated(draw: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(found) + 1)
        match draw.randrange(7):
            case 0:
                del found[at:]
            case 1 if at < len(found):
                found[at] ^= 1 << draw.randrange(8)
            case 2:
                found[at : at + draw.randrange(80)] = b""
            case 3:
                found[at:at] = found[at : at + draw.randrange(200)]
            case 4:
                found[at:at] = draw.choice(PIECES)
            case 5:  # whole lines, so that what comes out is often well-formed
                lines = bytes(found).split(b"\n")
                draw.shuffle(lines) if draw.random() < 0.1 else lines.insert(
                    draw.randrange(len(lines)), draw.choice(lines)
                )
                found = bytearray(b"\n".join(lines))
            case _:
                lines = bytes(found).split(b"\n")
                del lines[draw.randrange(len(lines))]
                found = bytearray(b"\n".join(lines))
        if not found:
            break
    return bytes(found)


def altered(draw: random.Random, data: bytes) -> bytes:
    """Still well-formed: other containers, attributes gone, other texts, elements gone or emptied."""
    text = data.decode()
    for _ in range(draw.choice((1, 2, 4))):
        match draw.randrange(5):
            case 0:
                one, two = draw.sample(("rdf:Bag", "rdf:Seq", "rdf:Alt"), 2)
                text = text.replace(one, two)
            case 1:
                text = _once(draw, r' [A-Za-z]+:(?!xmlns)[A-Za-z]+="[^"]*"', "", text)
            case 2:
                text = _once(draw, r">[^<>]+<", f">{draw.choice(('', 'x', ' dog ', 'a|b', '&amp;', 'Ø'))}<", text)
            case 3:
                text = _once(draw, r"<(rdf:li)[^<>]*>[^<>]*</rdf:li>", draw.choice(("", "<rdf:li/>")), text)
            case _:
                text = _once(draw, r"<([a-zA-Z]+:[A-Za-z]+)>\s*<rdf:(?:Bag|Seq|Alt)>.*?</\1>", "", text)
    return text.encode()


def _once(draw: random.Random, pattern: str, new: str, text: str) -> str:
    found = list(re.finditer(pattern, text, re.DOTALL))
    if not found:
        return text
    one = draw.choice(found)
    return text[: one.start()] + new + text[one.end() :]


def others(data: bytes) -> list[object]:
    """Everything but our properties, as another parser sees it."""
    root = ElementTree.fromstring(data)

    def seen(e: ElementTree.Element) -> object:
        attributes = sorted((k, v) for k, v in e.attrib.items() if k not in OURS)
        children = [seen(c) for c in e if c.tag not in OURS]
        if e.tag == DESCRIPTION and not children and len(attributes) <= 1:
            return None  # one of these may be made for a new property
        text = (e.text or "").strip(), (e.tail or "").strip()
        return e.tag, attributes, text, [c for c in children if c is not None]

    return [seen(root)]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda p: p.stem)
def test_mutations_are_edited_without_harm_or_refused(sample):
    draw, original = random.Random(sample.stem), sample.read_bytes()
    edited = refused = 0
    for case in range(CASES // len(SAMPLES)):
        data = draw.choice((mutated, altered))(draw, original)
        try:
            packet = Packet(data)
            planned = fields.plan(packet, WANTED, {}, fields.Style(prefix="iw"))
            described = ledger._describe(planned)
            after = ledger.build(data, described)
        except Refused:
            refused += 1
            continue
        try:
            ledger.verify(after, described)
        except safe_write.WriteRefused:
            refused += 1  # the second reader does not agree: not written
            continue
        edited += 1
        assert others(after) == others(data), (case, data)
        again = fields.plan(Packet(after), WANTED, planned.written, fields.Style(prefix="iw"))
        assert not again.changed, (case, data)
    assert edited > 300
    assert refused > 50


def test_random_bytes_are_refused():
    draw = random.Random(1)
    for _ in range(300):
        data = draw.randbytes(draw.randrange(1, 400))
        with pytest.raises(Refused):
            Packet(data)
