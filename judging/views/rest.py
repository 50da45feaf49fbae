"""Judge the rest: an image, a tag, one key."""

from __future__ import annotations

from typing import Any

from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from tagging.actions.review import NothingToUndo, undo
from tagging.actions.tags import resolve_tags
from tagging.models import ImageAsset, ImageTag
from tagging.views.guard import Request, needs

from ..actions import rest as actions
from ..models import Experiment

KEPT = 3600  # seconds that a queue is remembered
UNDOS = 50


@needs("review", "GET", "HEAD", "POST")
def rest(request: Request, pk: int) -> HttpResponse:
    """GET begins the queue anew; POST decides on the pair shown (right, wrong, skip, undo) and shows the next."""
    experiment = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    key = f"judge-rest-{pk}-{request.user.pk}"
    state = cache.get(key) if request.method == "POST" else None
    if state is None:
        pairs = [(pair.image, pair.tag) for pair in actions.unjudged(experiment)]
        state = {"pairs": pairs, "at": 0, "done": [], "total": len(pairs)}
    problem = _decide(request, experiment, state) if request.method == "POST" else ""
    _pass_judged(state)
    cache.set(key, state, KEPT)
    context = {**_context(experiment, state), "problem": problem}
    return render(request, "judging/rest.html" + ("#pair" if request.htmx else ""), context)


def _decide(request: Request, experiment: Experiment, state: dict[str, Any]) -> str:
    verb, image, tag = (request.POST.get(name, "") for name in ("verb", "image", "tag"))
    if verb == "undo":
        if not state["done"]:
            return "There is nothing to undo."
        at, batch = state["done"].pop()
        try:
            if batch:
                undo(batch, by=request.user)
        except NothingToUndo as e:
            return str(e)
        state["at"] = at
        return ""
    if not (image.isascii() and image.isdigit() and len(image) < 19):
        return "Say which image."
    at = state["at"]
    batch = ""
    if verb in ("right", "wrong"):
        try:
            made = actions.judge(experiment, actions.Pair(int(image), tag), right=verb == "right", by=request.user)
            batch = str(made.batch or "")
        except ValidationError as e:
            return " ".join(e.messages)
        except ImageAsset.DoesNotExist:
            return "This image is gone."
    elif verb != "skip":
        return f"{verb!r} is none of right, wrong, skip, undo."
    if at < len(state["pairs"]) and tuple(state["pairs"][at]) == (int(image), tag):
        state["done"] = [*state["done"][-UNDOS:], (at, batch)]
        state["at"] = at + 1
    return ""


def _pass_judged(state: dict[str, Any]) -> None:
    """What somebody judged meanwhile is not asked again. Two queries for the next few."""
    while ahead := state["pairs"][state["at"] : state["at"] + 20]:
        tags = resolve_tags([tag for _, tag in ahead], create=False)
        judged = set(
            ImageTag.objects.filter(
                image__in={image for image, _ in ahead},
                tag__in=[tag.pk for tag in tags.values()],
                state__in=ImageTag.TRUTH,
            ).values_list("image_id", "tag_id")
        )
        for image, tag in ahead:
            if tag not in tags or (image, tags[tag].pk) not in judged:
                return
            state["at"] += 1


def _context(experiment: Experiment, state: dict[str, Any]) -> dict[str, Any]:
    ahead = state["pairs"][state["at"] : state["at"] + 30]
    image, tag = ahead[0] if ahead else (None, "")
    coming = next((other for other, _ in ahead if other != image), None)
    assets = ImageAsset.objects.in_bulk([pk for pk in (image, coming) if pk])
    return {
        "experiment": experiment,
        "image": assets.get(image) if image else None,
        "tag": tag,
        "coming": assets.get(coming) if coming else None,
        "left": len(state["pairs"]) - state["at"],
        "place": state["at"] + 1,
        "total": state["total"],
        "undoable": bool(state["done"]),
    }
