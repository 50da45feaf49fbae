"""What every dry run says: images, rows, and what is left out because nobody has reviewed it."""

from __future__ import annotations

from collections.abc import Sequence

from .base import ExportOptions, Selection

EXAMPLES = 5


def left_out(selection: Selection, options: ExportOptions, images: int) -> tuple[int, list[str]]:
    """(images of the selection that are not exported, the warning about them)."""
    more = selection.images.order_by().count() - images
    if options.proposed or more <= 0:
        return max(more, 0), []
    return more, [
        f"{more:,} {'image is' if more == 1 else 'images are'} not reviewed yet and left out; "
        "ask for what is proposed to have them too."
    ]


def some(names: Sequence[str], total: int | None = None) -> str:
    """The first names of a longer list, in words; each on one line."""
    shown = ", ".join(shown_name(name) for name in names[:EXAMPLES])
    total = len(names) if total is None else total
    return f"{shown} and {total - EXAMPLES:,} more" if total > EXAMPLES else shown


def shown_name(name: str) -> str:
    """A name that may hold anything, safe to print on a line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
