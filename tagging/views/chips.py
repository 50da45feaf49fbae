"""Tags of one image as HTML, joined in Python: a template loop over them costs ten times as much (measured)."""

from __future__ import annotations

from collections.abc import Collection as Container
from collections.abc import Iterable
from itertools import groupby

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from ..models import ImageTag
from ..queries import TagRow

_STATES = {state.value: state.label for state in ImageTag.State}
#: What pressing a chip of that state asks for (field names of the decision form).
PRESS = {"proposed": "reject", "accepted": "reject", "rejected": "accept", "added": "clear"}
_ORDER = {"rating": -3, "character": -2, "copyright": -1, "artist": -1}  # before the others, which go by name
_NUMBERED = 9
#: Shape and colour of a recipe among several, in this order: told by shape alone too.
MARKS = "●▲■◆★✚▼◗⬟✖"
COLOURS = 8


def mark(position: int) -> SafeString:
    """The mark of the column at that place."""
    shape = MARKS[position % len(MARKS)]
    return mark_safe(f'<span class="mark" data-colour="{position % COLOURS}" aria-hidden="true">{shape}</span>')


def probability(score: float | None) -> str:
    """Two digits after the point; never 1.00 or 0.00 for what is not quite certain."""
    if score is None:
        return ""
    return f"{score:.2f}" if score in (0, 1) else f"{min(max(score, 0.01), 0.99):.2f}"


def seen(rows: Iterable[TagRow]) -> str:
    """The ids in force, as the decision form posts them back."""
    return ",".join(str(row.id) for row in rows if row.in_force)


def chips(rows: Iterable[TagRow], *, editable: bool, conflicts: Container[int] = ()) -> SafeString:
    """Groups by category, each a heading (left out when there is one group) and a list of chips.

    Editable chips are submit buttons of the form "decide"; the first nine carry their number as key.
    """
    ordered = sorted(rows, key=_group)  # stable within a group
    groups = [(title, list(group)) for (_, title), group in groupby(ordered, key=_group)]
    html: list[str] = []
    number = 0
    for title, group in groups:
        if len(groups) > 1:
            html.append(f'<h3 class="chips-title">{escape(title)}</h3>')
        html.append('<ul class="chips">')
        for row in group:
            number += 1
            html.append(_chip(row, number if number <= _NUMBERED else 0, editable, row.id in conflicts))
        html.append("</ul>")
    return mark_safe("".join(html))


def _group(row: TagRow) -> tuple[int, str]:
    """Where a tag stands: by category; added ones last, so that adding one does not move the numbers of the others."""
    if row.state == ImageTag.State.ADDED:
        return 1, "added"
    return _ORDER.get(row.category, 0), row.category


def _chip(row: TagRow, number: int, editable: bool, conflict: bool) -> str:
    state = _STATES[row.state]
    mark = ' data-conflict=""' if conflict else ""
    inner = (
        f'<span class="chip-parent">{escape(row.parent)} ›</span> ' if row.parent else ""
    ) + f'<span class="chip-name">{escape(row.name)}</span>'
    if row.score is not None:
        inner += f' <span class="chip-p">{probability(row.score)}</span>'
    said = f"{state}, changed by somebody else" if conflict else state
    inner += f'<span class="chip-state visually-hidden">, {said}</span>'
    if not editable:
        return f'<li><span class="chip" data-state="{state}"{mark}>{inner}</span></li>'
    key = (
        f' data-key="{number}" aria-keyshortcuts="{number}" data-key-rank="7" data-key-label="Turn a tag off or on"'
        if number
        else ""
    )
    hint = f'<kbd aria-hidden="true">{number}</kbd>' if number else ""
    own = ' data-own=""' if row.run_id is None and row.score is None else ""  # no model ever said it
    return (
        f'<li><button class="chip" form="decide" id="t{row.id}" name="{PRESS[state]}" value="{row.id}" '
        f'data-state="{state}"{own}{mark}{key}>{hint}{inner}</button></li>'
    )
