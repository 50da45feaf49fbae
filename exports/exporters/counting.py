"""What every dry run says: images, rows, and what is left out because nobody has reviewed it."""

from __future__ import annotations

from collections.abc import Sequence

from tagging.models import ImageAsset

from .base import ExportOptions, Selection

EXAMPLES = 5


def left_out(selection: Selection, options: ExportOptions, images: int) -> tuple[int, list[str]]:
    """(images of the selection that are not exported, warnings that say why and how to have them)."""
    more = selection.images.order_by().count() - images
    if more <= 0:
        return 0, []
    if options.proposed_by:
        what = "it" if more == 1 else "them"
        return more, [f"{_are(more)} left out: {options.proposed_by} has no answer for {what}."]
    if options.proposed:
        return more, []
    judged = 0
    if not options.judged:
        judged = selection.images.order_by().filter(review_state=ImageAsset.Review.AUTO).count()
    warnings = []
    if waiting := more - judged:
        warnings.append(f"{_are(waiting)} not reviewed yet and left out; ask for what is proposed to have them too.")
    if judged:
        what = "it" if judged == 1 else "them"
        warnings.append(f"{_are(judged)} left out: a judge accepted {what}, no person. Ask for what a judge accepted.")
    return more, warnings


def _are(n: int) -> str:
    return f"{n:,} {'image is' if n == 1 else 'images are'}"


def some(names: Sequence[str], total: int | None = None) -> str:
    """The first names of a longer list, in words; each on one line."""
    shown = ", ".join(shown_name(name) for name in names[:EXAMPLES])
    total = len(names) if total is None else total
    return f"{shown} and {total - EXAMPLES:,} more" if total > EXAMPLES else shown


def shown_name(name: str) -> str:
    """A name that may hold anything, safe to print on a line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
