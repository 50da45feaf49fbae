"""Does the new wording help? Two versions of a judge beside each other."""

from __future__ import annotations

from django.http import Http404, HttpResponse
from django.shortcuts import render

from tagging.actions.access import may
from tagging.models import Collection
from tagging.views.guard import Request, needs

from ..actions import wording as actions
from ..models import JudgedTag, JudgeProfileVersion
from .judges import find

VERSIONS = 50


@needs("read")
def show(request: Request, slug: str) -> HttpResponse:
    """`from` and `to` are numbers of versions; by default the current one against the one before."""
    judge = find(slug)
    versions = list(judge.versions.select_related("profile", "adapter", "prompt_version__prompt")[:VERSIONS])
    if judge.current is None or len(versions) < 2:
        return render(request, "judging/wording.html", {"judge": judge, "versions": versions})
    newer = _version(request.GET.get("to", ""), versions) or next(v for v in versions if v.pk == judge.current_id)
    older = _version(request.GET.get("from", ""), versions) or _before(newer, versions)
    if older == newer:
        raise Http404("A version is not compared with itself.")
    fit, held = actions.compare(older, newer)
    context = {
        "judge": judge,
        "versions": versions,
        "older": older,
        "newer": newer,
        "sides": (("that wording and examples come from", fit), ("kept to measure with", held)),
        "held": held,
        "lines": actions.changed_lines(older, newer),
        "waiting": actions.to_judge_again(older, newer).count(),
        "touched": actions.touched(older, newer),
        "turned": [
            (row, JudgedTag.Word(row.before).label)  # type: ignore[attr-defined]
            for row in actions.turned(older, newer)[: actions.SHOWN]
        ],
        "current": newer.pk == judge.current_id,
        "collections": Collection.objects.only("slug", "name"),
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "judging/wording.html", context)


def _version(text: str, versions: list[JudgeProfileVersion]) -> JudgeProfileVersion | None:
    if not text:
        return None
    found = next((v for v in versions if str(v.number) == text), None)
    if found is None:
        raise Http404("There is no such version.")
    return found


def _before(newer: JudgeProfileVersion, versions: list[JudgeProfileVersion]) -> JudgeProfileVersion:
    """The newest one before it; of the first, the one after."""
    earlier = [v for v in versions if v.number < newer.number]
    return (
        max(earlier, key=lambda v: v.number)
        if earlier
        else min((v for v in versions if v != newer), key=lambda v: v.number)
    )
