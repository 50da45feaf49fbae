"""The arena: which of two answers is better? Names are told after the vote."""

from __future__ import annotations

import random
import secrets
import time
from typing import Any

from django.core import signing
from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, render

from tagging.models import ImageAsset
from tagging.views.guard import Request, needs

from ..actions import arena as actions
from ..models import Experiment, Vote
from .matrix_cells import Cell, Rows, words_diff

_SALT = "judging.arena"
_SKIPS = 200


@needs("review", "GET", "HEAD", "POST")
def arena(request: Request, pk: int) -> HttpResponse:
    """GET shows a bout; POST takes the vote (left, right, tie, skip, undo) and shows the next, with the names of the
    one before. What is shown is signed into the page, so that a vote can only be on what was seen."""
    experiment = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    told, problem = _vote(request, experiment) if request.method == "POST" else (None, "")
    skipped = [(image, low, high) for image, low, high in request.session.get(f"arena-{pk}", [])]
    bout = actions.next_bout(experiment, request.user, random.Random(secrets.randbits(64)), skipped)
    context: dict[str, Any] = {
        "experiment": experiment,
        "problem": problem,
        "told": told,
        "mine": Vote.objects.filter(experiment=experiment, by=request.user).count(),
        "bout": None,
    }
    if bout is not None:
        context |= _shown(experiment, bout)
    return render(request, "judging/arena.html" + ("#bout" if request.htmx else ""), context)


@needs("read")
def ranking(request: Request, pk: int) -> HttpResponseBase:
    """Ranks as ranges, from the votes of people, of judges, or of both."""
    experiment = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    kind = request.GET.get("of", "all")
    control = request.GET.get("length") == "1"
    found = actions.standings(experiment, kind if kind in actions.KINDS else "all", control_length=control)
    low = min((row["low"] for row in found["rows"]), default=0.0)
    high = max((row["high"] for row in found["rows"]), default=1.0)
    span = max(high - low, 1.0)
    for row in found["rows"]:
        row["left"] = round(100 * (row["low"] - low) / span, 1)
        row["width"] = round(100 * (row["high"] - row["low"]) / span, 1)
        row["at"] = round(100 * (row["rating"] - low) / span, 1)
    context = {"experiment": experiment, "found": found, "kinds": actions.KINDS}
    return render(request, "judging/ranking.html" + ("#main" if request.htmx else ""), context)


def _vote(request: Request, experiment: Experiment) -> tuple[dict[str, Any] | None, str]:
    """(what is told of the bout before, problem)."""
    verb = request.POST.get("verb", "")
    if verb == "undo":
        gone = actions.take_back(experiment, request.user)
        return None, "" if gone else "There is no vote of yours to take back."
    try:
        image, left, right, shown_at = signing.loads(request.POST.get("bout", ""), salt=_SALT, max_age=86_400)
    except signing.BadSignature:
        return None, "That was not the pair shown last; here is another."
    bout = actions.Bout(image, left, right)
    if verb == "skip":
        key = f"arena-{experiment.pk}"
        request.session[key] = [*request.session.get(key, []), [image, *sorted((left, right))]][-_SKIPS:]
        return None, ""
    try:
        made = actions.vote(experiment, bout, verb, by=request.user, seconds=time.time() - shown_at)
    except ValidationError as e:
        return None, " ".join(e.messages)
    rows = actions.rows_of(experiment)
    by_row = {row.pk: row for row in rows}
    return {
        "left": by_row[left].name,
        "right": by_row[right].name,
        "winner": verb,
        "image": ImageAsset.objects.filter(pk=image).first(),
        "vote": made,
    }, ""


def _shown(experiment: Experiment, bout: actions.Bout) -> dict[str, Any]:
    """The two answers, what both say apart from what one says alone. Nothing here names a recipe."""
    columns = {row.pk: row for row in experiment.rows.filter(pk__in=[bout.left, bout.right])}
    rows = Rows([columns[bout.left], columns[bout.right]], [bout.image], None)
    left, right = rows.cells[bout.left, bout.image], rows.cells[bout.right, bout.image]
    both = [tag.name for key, tag in left.tags.items() if key in right.tags]
    return {
        "bout": signing.dumps([bout.image, bout.left, bout.right, round(time.time())], salt=_SALT, compress=True),
        "image": rows.images[0] if rows.images else None,
        "both": both,
        "sides": [_side("left", left, right), _side("right", right, left)],
    }


def _side(name: str, mine: Cell, other: Cell) -> dict[str, Any]:
    return {
        "name": name,
        "tags": [tag.name for key, tag in mine.tags.items() if key not in other.tags],
        "caption": mine.caption,
        "differs": words_diff(other.caption, mine.caption) if mine.caption and other.caption else "",
        "empty": not mine.tags and not mine.caption,
    }
