"""The second look: an image, a decided tag, one key, without seeing how it was decided."""

from __future__ import annotations

from itertools import islice

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from tagging.actions.access import may
from tagging.models import Collection
from tagging.views.guard import REFUSALS, Request, needs

from ..actions import people
from ..actions import second_looks as actions

ANSWERS = {"right": True, "wrong": False, "skip": None}


@needs("review", "GET", "HEAD", "POST")
def look(request: Request, slug: str) -> HttpResponse:
    """GET shows the next question; POST answers the one shown (right, wrong, skip), or goes back to the last one."""
    collection = get_object_or_404(Collection, slug=slug)
    problem, again = "", None
    if request.method == "POST":
        if request.POST.get("verb") == "back":
            again = actions.last_of(collection, request.user)
            problem = "" if again else "There is no answer of yours to go back to."
        else:
            problem = _answer(request, collection)
    ahead = list(islice(actions.questions(collection, request.user), 40))
    question = again or (ahead[0] if ahead else None)
    coming = next((q.image for q in ahead if question and q.image.pk != question.image.pk), None)
    context = {
        "collection": collection,
        "question": question,
        "coming": coming,
        "again": again is not None,
        "left": actions.images_for(collection, request.user).count(),
        "undoable": again is None and actions.last_of(collection, request.user) is not None,
        "share": round(100 * actions.share_of(collection), 1),
        "agreement": None if question else people.people_agreement([], [collection.pk]),
        "may_curate": may(request.user, "curate"),
        "problem": problem,
    }
    return render(request, "judging/second_look.html" + ("#question" if request.htmx else ""), context)


def _answer(request: Request, collection: Collection) -> str:
    verb, image, tag = (request.POST.get(name, "") for name in ("verb", "image", "tag"))
    if verb not in ANSWERS:
        return f"{verb!r} is none of right, wrong, skip, back."
    if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in (image, tag)):
        return "Say which image and which tag."
    try:
        actions.answer(collection, int(image), int(tag), ANSWERS[verb], by=request.user)
    except ValidationError as error:
        return " ".join(error.messages)
    return ""


@needs("curate", "POST")
def share(request: Request, slug: str) -> HttpResponse:
    """How many of the reviewed images are asked about."""
    collection = get_object_or_404(Collection, slug=slug)
    if not may(request.user, "curate"):
        raise PermissionDenied(REFUSALS["curate"])
    try:
        part = float(request.POST.get("share", "").replace(",", ".")) / 100
        actions.set_share(collection, part, by=request.user)
    except ValueError:
        messages.warning(request, "The part of the images is a number of percent.")
    except ValidationError as error:
        messages.warning(request, " ".join(error.messages))
    else:
        messages.success(request, "Nobody is asked twice." if not part else f"{100 * part:g} % of the reviewed images.")
    return redirect("judging:second_look", slug)
