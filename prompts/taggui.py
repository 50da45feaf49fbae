"""Prompt templates of TagGUI as ours."""

from __future__ import annotations

import re

_CURLY = re.compile(r"(?<!\\)\{([^{}]+)(?<!\\)\}")
_TAGGUI = {"tags": "tags", "name": "image.stem", "directory": "image.folder", "folder": "image.folder"}


def from_taggui(text: str) -> str:
    """A TagGUI prompt as ours: {tags}, {name}, {directory} or {folder}, \\{ and \\} for braces.

    Other braces (a JSON example) stay text instead of vanishing.
    """

    def swap(match: re.Match[str]) -> str:
        known = _TAGGUI.get(match.group(1).strip().casefold())
        return f"\x00{known}\x01" if known else match.group()

    text = _CURLY.sub(swap, text).replace("\\{", "{").replace("\\}", "}")
    text = re.sub(
        r"(\{[{%#]+|[}%#]+\})", lambda m: "{{ '" + m.group() + "' }}" if _is_mark(m.group()) else m.group(), text
    )
    return text.replace("\x00", "{{ ").replace("\x01", " }}")


def _is_mark(text: str) -> bool:
    """Would Jinja read this as its own sign?"""
    return text[:2] in ("{{", "{%", "{#")
