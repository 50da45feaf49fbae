"""One XMP packet as an editable document: every element, attribute and text that we do not set stays as it was.

Format: XMP specification part 1 (ISO 16684-1), RDF/XML serialisation. A property may come as an attribute of
rdf:Description, as an element with text, or as an element with rdf:Bag, rdf:Seq or rdf:Alt; there may be several
rdf:Description elements and any prefix. Right containers matter to other readers: dc:subject and
lr:hierarchicalSubject are bags, digiKam:TagsList is a sequence, dc:description an alternative by language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from lxml import etree

from . import document
from .document import RDF, Refused

XML = "http://www.w3.org/XML/1998/namespace"
Kind = Literal["Bag", "Seq"]

_DESCRIPTION, _LI = f"{{{RDF}}}Description", f"{{{RDF}}}li"
_CONTAINERS = {f"{{{RDF}}}{kind}": kind for kind in ("Bag", "Seq", "Alt")}
_LANG = f"{{{XML}}}lang"


class Property(NamedTuple):
    """A property's namespace, the prefix to declare where none is, and its name."""

    uri: str
    prefix: str
    name: str

    @property
    def qname(self) -> str:
        return f"{{{self.uri}}}{self.name}"

    def __str__(self) -> str:
        return f"{self.prefix}:{self.name}"


@dataclass(slots=True)
class _Place:
    """Where a property stands: on `description`, as an attribute (`element` None) or an element."""

    description: etree._Element
    element: etree._Element | None


class Packet:
    """A parsed packet. `Packet.new()` makes an empty one; `to_bytes()` gives back the file's bytes with the edits.

    Text outside the root element (byte-order mark, declaration, xpacket instructions, padding) is kept byte for byte.
    """

    def __init__(self, data: bytes) -> None:
        """Raises Refused for what cannot be edited safely: not XML, not UTF-8, a DOCTYPE, no rdf:RDF, or a property
        that stands twice."""
        self._head, self._root, self._tail = document.read(data)
        self._rdf = document.rdf_of(self._root)
        self._refuse_loose_text()
        self._refuse_doubles()

    @classmethod
    def new(cls) -> Packet:
        return cls(document.EMPTY)

    def to_bytes(self) -> bytes:
        """UTF-8. Equal to what was parsed when nothing was set, but for quoting and white space inside tags."""
        return self._head + etree.tostring(self._root, encoding="unicode", with_tail=False).encode() + self._tail

    # -- reading ----------------------------------------------------------------------------------------------------
    def values(self, prop: Property) -> list[str] | None:
        """The items of an array, or the one value of a plain property; None when the property is not there."""
        place = self._find(prop)
        if place is None:
            return None
        if place.element is None:
            text = place.description.get(prop.qname) or ""
            return [text] if text else []
        container = _container(place.element)
        if container is None:
            text = _text(place.element)
            return [text] if text.strip() else []
        return [_text(li) for li in container.findall(_LI) if _text(li).strip()]

    def text(self, prop: Property) -> str:
        """The x-default text of a language alternative (else its first), or a plain value; '' when not there."""
        place = self._find(prop)
        if place is None:
            return ""
        if place.element is None:
            return place.description.get(prop.qname) or ""
        container = _container(place.element)
        if container is None:
            return _text(place.element)
        items = container.findall(_LI)
        default = [li for li in items if (li.get(_LANG) or "").lower() == "x-default"]
        return _text((default or items)[0]) if items else ""

    def structs(self, prop: Property) -> list[dict[str, str]]:
        """The items of an array of structures, as field name → text; only fields of the property's own namespace.

        All three serialisations are read: rdf:parseType="Resource", a nested rdf:Description, and attributes.
        """
        place = self._find(prop)
        container = _container(place.element) if place is not None and place.element is not None else None
        return [] if container is None else [_fields_of(li, prop.uri) for li in container.findall(_LI)]

    def kind(self, prop: Property) -> str | None:
        """Bag, Seq, Alt, 'text' or 'attribute'; None when the property is not there."""
        place = self._find(prop)
        if place is None:
            return None
        if place.element is None:
            return "attribute"
        container = _container(place.element)
        return "text" if container is None else _CONTAINERS[container.tag]

    # -- writing ----------------------------------------------------------------------------------------------------
    def set_array(self, prop: Property, values: list[str], kind: Kind = "Bag") -> bool:
        """Make the property an rdf:`kind` of exactly `values`; an empty list removes it. True when it changed."""
        if self.values(prop) == (values or None) and self.kind(prop) == kind:
            return False
        if not values:
            return self.remove(prop)
        container = self._container_for(prop, kind)
        stood: dict[str, list[etree._Element]] = {}
        for li in list(container):
            container.remove(li)
            if li.tag == _LI:  # an item that stays keeps its qualifiers
                stood.setdefault(_text(li), []).append(li)
        for value in values:
            if stood.get(value):
                container.append(stood[value].pop(0))
            else:
                etree.SubElement(container, _LI).text = value
        _indent(container)
        return True

    def set_structs(self, prop: Property, items: list[dict[str, str]]) -> bool:
        """Make the property an rdf:Bag of exactly these structures, whose fields are of its namespace. An item that is
        there already stays as it is written. An empty list removes the property. True when it changed."""
        if self.structs(prop) == items:
            return False
        if not items:
            return self.remove(prop)
        container = self._container_for(prop, "Bag")
        stood = [(li, _fields_of(li, prop.uri)) for li in container.findall(_LI)]
        for child in list(container):
            container.remove(child)
        for item in items:
            same = next((pair for pair in stood if pair[1] == item), None)
            if same is not None:
                stood.remove(same)
                container.append(same[0])
                continue
            li = etree.SubElement(container, _LI)
            li.set(f"{{{RDF}}}parseType", "Resource")
            for name, text in item.items():
                etree.SubElement(li, f"{{{prop.uri}}}{name}").text = text
        _indent(container)
        return True

    def set_text(self, prop: Property, value: str) -> bool:
        """Set the x-default item of a language alternative; other languages stay. '' removes x-default."""
        if self.text(prop) == value and (self.kind(prop) in ("Alt", None)):
            return False
        if not value and self.kind(prop) != "Alt":
            return self.remove(prop)
        container = self._container_for(prop, "Alt")
        default = [li for li in container.findall(_LI) if (li.get(_LANG) or "").lower() == "x-default"]
        if not value:
            for item in default:
                container.remove(item)
            if not len(container):
                self.remove(prop)
            return bool(default)
        if default:
            item = default[0]
            for child in list(item):
                item.remove(child)
        else:
            item = etree.Element(_LI)
            item.set(_LANG, "x-default")
            container.insert(0, item)
        item.text = value
        _indent(container)
        return True

    def set_plain(self, prop: Property, value: str) -> bool:
        """Set a simple value (xmp:Rating, xmp:Label) in the form that it has, as an attribute where it is new."""
        place = self._find(prop)
        if not value:
            return self.remove(prop)
        if place is None:
            self._home(prop, attribute=True).set(prop.qname, value)
            return True
        if place.element is None:
            changed = place.description.get(prop.qname) != value
            place.description.set(prop.qname, value)
            return changed
        changed = place.element.text != value
        place.element.text = value
        return changed

    def remove(self, prop: Property) -> bool:
        """Take the property out. True when it was there."""
        place = self._find(prop)
        if place is None:
            return False
        if place.element is None:
            del place.description.attrib[prop.qname]
        else:
            _drop(place.element)
        return True

    # -- inside -----------------------------------------------------------------------------------------------------
    def _descriptions(self) -> list[etree._Element]:
        return [e for e in self._rdf if e.tag == _DESCRIPTION]

    def _find(self, prop: Property) -> _Place | None:
        for description in self._descriptions():
            if prop.qname in description.attrib:
                return _Place(description, None)
            element = description.find(prop.qname)
            if element is not None:
                return _Place(description, element)
        return None

    def _refuse_doubles(self) -> None:
        """XMP forbids a property twice on one resource; readers fail on it or take either, so we touch neither."""
        seen: set[tuple[str, str]] = set()
        for description in self._descriptions():
            about = description.get(f"{{{RDF}}}about") or ""
            names = [n for n in description.attrib if not n.startswith((f"{{{RDF}}}", f"{{{XML}}}"))]
            names += [e.tag for e in description if isinstance(e.tag, str)]
            for name in names:
                if (about, name) in seen:
                    raise Refused(f"the property {etree.QName(name).localname} stands twice")
                seen.add((about, name))

    def _refuse_loose_text(self) -> None:
        """Text between properties or beside a container is no RDF: readers drop it or fail, and an edit would move or
        lose it."""
        holders = [self._rdf, *self._descriptions()]
        for description in self._descriptions():
            for element in description:
                container = _container(element)
                if container is not None:
                    holders += [element, container]
        for holder in holders:
            for text in (holder.text, *(child.tail for child in holder)):
                if text and text.strip():
                    raise Refused(f"loose text where properties are expected: {text.strip()[:40]!r}")

    def _home(self, prop: Property, *, attribute: bool = False) -> etree._Element:
        """The rdf:Description to put a new property on: one that knows its namespace, else the first."""
        descriptions = self._descriptions()
        for description in descriptions:
            if prop.uri in description.nsmap.values():
                return description
        if attribute or not descriptions:
            # lxml cannot add a namespace declaration to an element that is there: a new Description carries it
            made = etree.SubElement(self._rdf, _DESCRIPTION, nsmap={prop.prefix: prop.uri})
            made.set(f"{{{RDF}}}about", (descriptions[0].get(f"{{{RDF}}}about") or "") if descriptions else "")
            made.tail = "\n "
            return made
        return descriptions[0]

    def _container_for(self, prop: Property, kind: Literal["Bag", "Seq", "Alt"]) -> etree._Element:
        """The property's rdf container of that kind, made or converted from any other form."""
        place = self._find(prop)
        tag = f"{{{RDF}}}{kind}"
        if place is not None and place.element is not None:
            container = _container(place.element)
            if container is not None:
                container.tag = tag
                return container
            element, text = place.element, _text(place.element)
            element.text = None
            element.attrib.pop(f"{{{RDF}}}resource", None)
        else:
            text = ""
            if place is not None:  # an attribute becomes an element on the same Description
                text = place.description.attrib.pop(prop.qname) or ""
            home = place.description if place is not None else self._home(prop)
            element = etree.SubElement(home, prop.qname, nsmap={prop.prefix: prop.uri})
            _place_last(home, element)
        container = etree.SubElement(element, tag)
        if kind == "Alt" and text.strip():
            item = etree.SubElement(container, _LI)
            item.set(_LANG, "x-default")
            item.text = text
        return container


def _container(element: etree._Element) -> etree._Element | None:
    return next((e for e in element if e.tag in _CONTAINERS), None)


def _fields_of(li: etree._Element, uri: str) -> dict[str, str]:
    inner = li.find(_DESCRIPTION)
    holder = li if inner is None else inner
    start = f"{{{uri}}}"
    found = {str(k).removeprefix(start): str(v) for k, v in holder.attrib.items() if str(k).startswith(start)}
    for child in holder:
        if isinstance(child.tag, str) and child.tag.startswith(start):
            found[child.tag.removeprefix(start)] = _text(child)
    return found


def _text(element: etree._Element) -> str:
    return "".join(element.itertext())


def _drop(element: etree._Element) -> None:
    """Remove an element with its line's white space, leaving what stands around it in place."""
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def _place_last(home: etree._Element, element: etree._Element) -> None:
    """White space around a new last child, in the manner of its siblings."""
    before = element.getprevious()
    if before is not None:
        element.tail = before.tail
        before.tail = home.text
    else:
        outer = home.getprevious()
        line = (outer.tail if outer is not None else None) or (
            home.getparent().text if home.getparent() is not None else None
        )
        line = line if line and not line.strip() else "\n  "
        home.text, element.tail = line + " ", line


def _indent(container: etree._Element) -> None:
    """One item a line, one step deeper than the container's property."""
    element = container.getparent()
    line = None
    if element is not None:
        before = element.getprevious()
        home = element.getparent()
        line = before.tail if before is not None else (home.text if home is not None else None)
    line = line if line and not line.strip() else "\n   "
    if element is not None:
        element.text, container.tail = line + " ", line
    container.text = line + "  "
    items = list(container)
    for item in items:
        item.tail = line + "  "
    if items:
        items[-1].tail = line + " "
