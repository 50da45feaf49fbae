"""Disagreements of a judge with people, one beside the other with the image."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from tagging.actions.access import may
from tagging.models import ImageTag
from tagging.views.guard import Request, needs

from ..actions import inbox as actions
from ..judges.statistics import in_holdout
from ..models import InboxAnswer, JudgedTag
from .judges import find

WORDS = {
    InboxAnswer.Answer.JUDGE_WRONG: "noted as a mistake of the judge",
    InboxAnswer.Answer.PERSON_WRONG: "the decision was turned round",
    InboxAnswer.Answer.UNCLEAR: "put aside",
}


@needs("read")
def show(request: Request, slug: str) -> HttpResponse:
    """The surest of the judge first."""
    judge = find(slug)
    cursor = request.GET.get("cursor", "")
    rows: list[JudgedTag] = []
    after = ""
    if judge.current is not None:
        try:
            rows, after = actions.page(judge.current, cursor)
        except ValidationError:
            raise Http404("There is no such page.") from None
    waiting = actions.examples_waiting(judge.current) if judge.current else []
    context = {
        "judge": judge,
        "rows": [
            (row, ImageTag.State(row.truth).label, in_holdout(row.image.sha256 if row.image else "f"))  # type: ignore[attr-defined]
            for row in rows
        ],
        "next": after,
        "first": not cursor,
        "waiting": len(waiting),
        "may_review": may(request.user, "review"),
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "judging/inbox.html", context)


@needs("review", "POST")
def answer(request: Request, pk: int) -> HttpResponse:
    """Say who was wrong. A script gets the line that takes the place of the card."""
    said = request.POST.get("answer", "")
    try:
        row = actions.answer(pk, said, note=request.POST.get("note", ""), by=request.user)
    except JudgedTag.DoesNotExist as error:
        raise Http404(str(error)) from None
    except ValidationError as error:
        if request.htmx:
            return render(request, "judging/inbox.html#answered", {"text": " ".join(error.messages), "tone": "warning"})
        messages.warning(request, " ".join(error.messages))
        return redirect("judging:judges")
    judged = row.judged
    text = f"{judged.name}: {WORDS[InboxAnswer.Answer(row.answer)]}."
    if request.htmx:
        image = judged.image_id
        return render(request, "judging/inbox.html#answered", {"text": text, "tone": "ok", "image": image})
    messages.success(request, text)
    return redirect(reverse("judging:inbox", args=[judged.version.profile.slug]))


@needs("curate", "POST")
def learn(request: Request, slug: str) -> HttpResponse:
    """A new version with the noted mistakes as examples."""
    judge = find(slug)
    try:
        version = actions.learn(judge, by=request.user)
    except ValidationError as error:
        messages.warning(request, " ".join(error.messages))
    else:
        messages.success(request, f"{version} has them as examples. Its badge begins anew.")
    return redirect(judge)
