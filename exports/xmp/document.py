"""The XML document of an XMP packet: where its root element begins and ends, and whether it may be edited at all.

Text around the root element (byte-order mark, declaration, xpacket instructions, padding) is nobody's to change, so it
is cut off as bytes and never parsed. What a parser would read differently from others, or expand, is refused.
"""

from __future__ import annotations

import codecs
import re

from lxml import etree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
META = "adobe:ns:meta/"
MAX_BYTES = 64 * 1024 * 1024
#: A packet that says nothing.
EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="{META}">\n'
    f' <rdf:RDF xmlns:rdf="{RDF}">\n'
    '  <rdf:Description rdf:about=""/>\n'
    " </rdf:RDF>\n"
    "</x:xmpmeta>\n"
    '<?xpacket end="w"?>\n'
).encode()

_RDF = f"{{{RDF}}}RDF"
_DECLARED = re.compile(rb"""^<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


class Refused(Exception):
    """The packet cannot be edited without risk to what it holds. The text says why; nothing was changed."""


def read(data: bytes) -> tuple[bytes, etree._Element, bytes]:
    """(before, root element, after). Refused for what is not UTF-8, has a document type, or is not well-formed."""
    before, body, after = split(data)
    parser = etree.XMLParser(
        remove_blank_text=False,
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        strip_cdata=False,
        load_dtd=False,
    )
    try:
        return before, etree.fromstring(body, parser), after
    except etree.XMLSyntaxError as e:
        raise Refused(f"not well-formed XML: {e.msg}") from None


def rdf_of(root: etree._Element) -> etree._Element:
    """The rdf:RDF element, the root itself or within it. Refused where there is none."""
    found = root if root.tag == _RDF else root.find(f".//{_RDF}")
    if found is None:
        raise Refused("no rdf:RDF element: this is not an XMP sidecar")
    return found


def split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """(before, root element, after). Refused for other encodings than UTF-8 and for document types."""
    if len(data) > MAX_BYTES:
        raise Refused(f"larger than {MAX_BYTES // 2**20} MB")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Refused("encoded in UTF-16; iwtag edits UTF-8 sidecars only")
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    declared = _DECLARED.match(data[start:])
    if declared and declared[1].decode().lower().replace("_", "-") not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise Refused(f"encoded in {declared[1].decode()}; iwtag edits UTF-8 sidecars only")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("not UTF-8 text") from None
    at = start
    while True:
        at = data.find(b"<", at)
        if at < 0:
            raise Refused("no XML element in it")
        if data.startswith(b"<?", at):
            at = _after(data, b"?>", at)
        elif data.startswith(b"<!--", at):
            at = _after(data, b"-->", at)
        elif data.startswith(b"<!", at):
            raise Refused("it has a document type declaration")
        else:
            break
    name = re.match(rb"<([^\s/>]+)", data[at:])
    end = data.rfind(b"</" + name[1]) if name else -1
    if end < 0:
        raise Refused("its root element is not closed")
    end = _after(data, b">", end)
    return data[:at], data[at:end], data[end:]


def _after(data: bytes, mark: bytes, start: int) -> int:
    found = data.find(mark, start)
    if found < 0:
        raise Refused("cut off in the middle")
    return found + len(mark)
