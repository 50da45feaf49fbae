"""The keywords that ACDSee and digiKam keep as a small XML document in one text: acdsee:categories.

Format, by what digiKam writes and reads: `<Categories><Category Assigned="0">animal<Category Assigned="1">dog
</Category></Category></Categories>`; a level that is a keyword of the picture itself has Assigned="1".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lxml import etree

from .document import Refused

SEPARATOR = "|"
_DEEPEST = 64


def paths(text: str) -> list[str]:
    """The assigned categories as paths joined by "|", in order. Raises Refused for what is no such document."""
    if not text.strip():
        return []
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError:
        raise Refused("its acdsee:categories are damaged") from None
    if root.tag != "Categories" or root.getroottree().docinfo.doctype:
        raise Refused("its acdsee:categories are of an unknown form")
    return list(dict.fromkeys(_walk(root, ())))


def _walk(element: etree._Element, above: tuple[str, ...]) -> Iterator[str]:
    for category in element:
        if category.tag != "Category" or len(above) > _DEEPEST:
            raise Refused("its acdsee:categories are of an unknown form")
        here = (*above, (category.text or "").strip())
        if category.get("Assigned", "0") != "0":
            yield SEPARATOR.join(here)
        yield from _walk(category, here)


def text(categories: Iterable[str]) -> str:
    """The inverse: one document with every path; levels that no path ends at are not assigned. Empty without any."""
    root = etree.Element("Categories")
    for path in categories:
        at = root
        for level in path.split(SEPARATOR):
            found = next((c for c in at if (c.text or "") == level), None)
            if found is None:
                found = etree.SubElement(at, "Category", Assigned="0")
                found.text = level
            at = found
        if at is not root:
            at.set("Assigned", "1")
    return etree.tostring(root, encoding="unicode") if len(root) else ""
