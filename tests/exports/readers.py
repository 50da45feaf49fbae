"""Sidecars as other programs read them: exiftool and exiv2 themselves, and the precedence of each photo tool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"
LR = "{http://ns.adobe.com/lightroom/1.0/}"
DIGIKAM = "{http://www.digikam.org/ns/1.0/}"
MICROSOFT = "{http://ns.microsoft.com/photo/1.0/}"
MEDIAPRO = "{http://ns.iview-multimedia.com/mediapro/1.0/}"
OURS = (
    "Subject",
    "HierarchicalSubject",
    "TagsList",
    "Description",
    "LastKeywordXMP",
    "CatalogSets",
    "Categories",
    "ImageDescription",
)


def needs(program: str) -> str:
    """The program's path; skipped where it is missing, a failure in CI."""
    found = shutil.which(program)
    if found is None:
        message = f"no {program}: install Debian's libimage-exiftool-perl and exiv2"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def exiftool(*paths: Path) -> list[dict[str, Any]]:
    """Each file's XMP, by group and name; lists are lists."""
    command = [needs("exiftool"), "-j", "-struct", "-G1", "-a", "-XMP:all", *map(str, paths)]
    out = subprocess.run(command, capture_output=True, check=False)
    return json.loads(out.stdout.decode())


def others(found: dict[str, Any]) -> dict[str, Any]:
    """What is not ours to change."""
    return {k: v for k, v in found.items() if not k.endswith(OURS) and k not in ("SourceFile",) and "iwtag" not in k}


def exiv2_types(path: Path) -> dict[str, tuple[str, int]]:
    """Key → (type, number of items)."""
    out = subprocess.run([needs("exiv2"), "-PXkyc", str(path)], capture_output=True, check=False)
    assert out.returncode == 0, out.stderr
    rows = (line.split() for line in out.stdout.decode().splitlines())
    return {row[0]: (row[1], int(row[2])) for row in rows if len(row) >= 3}


def items(path: Path, prop: str, kind: str) -> list[str]:
    """The items of a property in exactly that container, as strict readers see them."""
    root = ElementTree.parse(path).getroot()
    return [li.text or "" for li in root.iterfind(f".//{prop}/{RDF}{kind}/{RDF}li")]


# -- how each tool reads ----------------------------------------------------------------------------------------------
def darktable(path: Path) -> list[str]:
    """Once a hierarchical list exists, dc:subject is not read."""
    return items(path, f"{LR}hierarchicalSubject", "Bag") or items(path, f"{DC}subject", "Bag")


def digikam(path: Path) -> list[str]:
    """The first that is not empty, each only in its right container; paths with "/"."""
    found = items(path, f"{DIGIKAM}TagsList", "Seq") or items(path, f"{MICROSOFT}LastKeywordXMP", "Bag")
    if found:
        return found
    piped = items(path, f"{LR}hierarchicalSubject", "Bag") or items(path, f"{MEDIAPRO}CatalogSets", "Bag")
    return [p.replace("|", "/") for p in piped] or items(path, f"{DC}subject", "Bag")


def immich(path: Path) -> list[str]:
    """TagsList, then the hierarchical list; dc:subject never."""
    found = items(path, f"{DIGIKAM}TagsList", "Seq")
    return found or [t.replace("/", "|").replace("|", "/") for t in items(path, f"{LR}hierarchicalSubject", "Bag")]


def photoprism(path: Path) -> list[str]:
    """dc:subject, Bag or Seq, as elements."""
    return items(path, f"{DC}subject", "Bag") or items(path, f"{DC}subject", "Seq")


def caption(path: Path) -> str:
    """Only in an rdf:Alt, as PhotoPrism reads it."""
    return next(iter(items(path, f"{DC}description", "Alt")), "")
