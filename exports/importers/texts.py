"""Text files beside images, as trainers read them: kohya's one line of tags, a tag a line, or a caption.

`img.txt` and `img.jpg.txt` both belong to img.jpg. Two images that share a text file are listed, not guessed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from tagging.imaging import kinds

from .base import ImportOptions, Item, Word
from .tree import Tree

MAX_BYTES = 1024 * 1024
_BRACKETS = re.compile(r"\\([()\[\]{}])")  # escaped for weighting syntax


class TextImportOptions(ImportOptions):
    content: Literal["tags", "lines", "caption"] = Field(
        "tags",
        title="What the files hold",
        json_schema_extra={
            "labels": {
                "tags": "tags in one line (kohya)",
                "lines": "a tag on each line (Hydrus)",
                "caption": "a caption",
            }
        },
    )
    extension: str = Field(".txt", max_length=20, pattern=r"^\.?\w+$", title="Extension of the files")
    separator: str = Field(",", min_length=1, max_length=5, title="Between tags", json_schema_extra={"advanced": True})


class TextReader:
    """Every file of a tree with the extension."""

    Options: ClassVar[type[ImportOptions]] = TextImportOptions
    several = False

    def __init__(self, tree: Tree, options: TextImportOptions) -> None:
        self.warnings: list[str] = []
        self._tree, self._options = tree, options
        self._suffix = f".{options.extension.lstrip('.')}".lower()

    def total(self) -> int | None:
        return None

    def items(self) -> Iterator[Item]:
        number = several = 0
        for listing in self._tree.folders():
            names = {name.casefold() for name in listing.names}
            for name in listing.names:
                if not name.lower().endswith(self._suffix):
                    continue
                number += 1
                base = name[: -len(self._suffix)]
                # img.jpg.txt where img.jpg stands beside it, or, in a folder of texts alone, where it looks like one
                exact = base.casefold() in names or kinds.has_image_extension(base)
                item = Item(number, listing.path(base), by_stem=not exact)
                try:
                    text = self._tree.read(listing.path(name), MAX_BYTES).decode("utf-8-sig")
                    several += self._read(text, item)
                except UnicodeDecodeError:
                    item.error = f"{posixpath.basename(name)} is not UTF-8 text"
                except OSError as e:
                    item.error = f"{name}: {e.strerror or e}"
                yield item
        if several:
            self.warnings.append(f"{several:,} files have more than one line; as in kohya, only the first is read.")
        if not number:
            self.warnings.append(f"There is no file with the extension {self._suffix}.")

    def _read(self, text: str, item: Item) -> bool:
        """Fill the item; True where lines were left out."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if self._options.content == "caption":
            item.caption = "\n".join(lines) or None
            return False
        if self._options.content == "lines":
            item.words = [Word(line) for line in dict.fromkeys(lines)]
            return False
        found = lines[0].split(self._options.separator) if lines else []
        names = [_BRACKETS.sub(r"\1", name.strip()) for name in found]
        item.words = [Word(name) for name in dict.fromkeys(names) if name]
        return len(lines) > 1
