"""Words in the cells of a CSV table: safe to open in a spreadsheet, and exact to read back.

A cell that a spreadsheet would take for a formula gets a leading apostrophe; `unescape_cell` takes exactly that back.
The rule is for every text cell, applied after joining: quoting does not stop formulas.
"""

from __future__ import annotations

from collections.abc import Iterable

#: First characters that make a spreadsheet compute: ASCII and full-width operators, and white space it skips.
DANGEROUS = frozenset("=+-@\t\r\n＝＋－＠")
#: First characters that `escape_cell` acts on.
ESCAPED = DANGEROUS | {"'"}
TEXT_SEPARATOR = "; "


def escape_cell(text: str) -> str:
    """A leading apostrophe before what would be a formula, and before an apostrophe: so that it can be taken back."""
    return f"'{text}" if text[:1] in ESCAPED else text


def unescape_cell(text: str) -> str:
    """The inverse of `escape_cell`: exactly one leading apostrophe goes."""
    return text[1:] if text[:1] == "'" else text


def escape_name(name: str) -> str:
    """A name as it stands among others in one cell: backslashes and semicolons get a backslash before them."""
    return name.replace("\\", "\\\\").replace(";", "\\;") if "\\" in name or ";" in name else name


def join_text(names: Iterable[str]) -> str:
    """Names in one readable cell, joined by "; "."""
    return TEXT_SEPARATOR.join(escape_name(name) for name in names)


def split_text(text: str) -> list[str]:
    """The inverse of `join_text`, for names without outer white space. Empty names do not exist and are left out."""
    names, name, escaped = [], [], False
    for character in text:
        if escaped or character not in "\\;":
            name.append(character)
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            names.append("".join(name).strip())
            name = []
    return [found for found in (*names, "".join(name).strip()) if found]
