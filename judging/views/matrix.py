"""The matrix: images down, recipes across, what each said beside the picture; decided in place."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseBadRequest, HttpResponseBase, JsonResponse, QueryDict
from django.shortcuts import get_object_or_404, render

from tagging.actions import review
from tagging.actions.access import may
from tagging.actions.tags import resolve_tags
from tagging.models import ChannelResult, ImageAsset, Prediction, Proposal
from tagging.views.guard import Request, needs

from ..matrix import FILTERS, SORTS, Query, index_of, mark_of, select
from ..models import Experiment, ExperimentRecipe, ExperimentRun, JudgedTag, RunVerdict
from .matrix_cells import Rows, heads

PAGE = 20  # rows of a block
MOST_ROWS = 100
_NUMBER = re.compile(r"[0-9]{1,9}\Z", re.ASCII)


@needs("read")
def matrix(request: Request, pk: int) -> HttpResponseBase:
    """The page without its rows, which the browser asks for as they come into sight."""
    experiment = get_object_or_404(Experiment.objects.select_related("collection"), pk=pk)
    columns = _columns(experiment)
    query = parse(request.GET)
    shown = [c for c in columns if c.pk not in query.hidden] or columns
    toggles = [
        {"name": name, "label": label, "on": name in query.filters, "href": address(query, toggle=name)}
        for name, label in FILTERS.items()
    ]
    context = {
        "experiment": experiment,
        "query": query,
        "query_string": query_string(query),
        "sorts": [{"name": n, "label": label, "on": n == query.sort} for n, label in SORTS.items()],
        "filters": toggles,
        "heads": heads(shown, experiment.board),
        "all_columns": heads(columns, None),
        "hidden": [c for c in columns if c.pk in query.hidden],
        "baseline": _baseline(experiment, columns),
        "n_images": experiment.n_images,
        "page": PAGE,
        "may_review": may(request.user, "review"),
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "judging/matrix.html" + ("#main" if request.htmx else ""), context)


@needs("read")
def rows(request: Request, pk: int) -> HttpResponseBase:
    """Some rows as HTML. The headers X-Total and X-Mark say how many there are in all, and of which state."""
    experiment = get_object_or_404(Experiment, pk=pk)
    query = parse(request.GET)
    columns = [c for c in _columns(experiment) if c.pk not in query.hidden]
    mark = mark_of(experiment)
    index = index_of(experiment, mark)
    baseline = _baseline(experiment, columns)
    first, n = _number(request.GET.get("from"), 0), min(_number(request.GET.get("n"), PAGE), MOST_ROWS)
    found = select(experiment, index, query, baseline)
    images = [int(index.images[place]) for place in found.places[first : first + n]]
    response = HttpResponse(Rows(columns, images, baseline).html(editable=may(request.user, "review")))
    response["X-Total"], response["X-Mark"] = str(len(found.places)), mark[:16]
    response["Cache-Control"] = "no-store"
    return response


@needs("read")
def state(request: Request, pk: int) -> HttpResponseBase:
    """What a page that is open asks now and then: has anything moved?"""
    experiment = get_object_or_404(Experiment, pk=pk)
    return JsonResponse({"mark": mark_of(experiment)[:16], "state": experiment.state, "reached": experiment.reached})


@needs("review", "POST")
def decide(request: Request, pk: int) -> HttpResponseBase:
    """One tag of one image: accept, reject or clear. The image's row comes back as it is now."""
    experiment = get_object_or_404(Experiment, pk=pk)
    image = _number(request.POST.get("image"), 0)
    name, verb = request.POST.get("tag", ""), request.POST.get("verb", "")
    if image not in set(experiment.images):
        return HttpResponseBadRequest("That image is not part of this experiment.")
    try:
        tag = resolve_tags([name], field="tag")[name]
        if verb == "accept":
            review.decide(image, by=request.user, door="matrix", add=[tag.name])
        elif verb == "reject":
            review.decide(image, by=request.user, door="matrix", seen=[tag.pk], reject=[tag.pk])
        elif verb == "clear":
            review.decide(image, by=request.user, door="matrix", seen=[tag.pk], clear=[tag.pk])
        else:
            return HttpResponseBadRequest(f"{verb!r} is none of accept, reject, clear.")
    except ImageAsset.DoesNotExist:
        return HttpResponseBadRequest("That image is no longer there.")
    except ValidationError as e:
        return HttpResponseBadRequest("; ".join(e.messages))
    query = parse(request.GET)
    columns = [c for c in _columns(experiment) if c.pk not in query.hidden]
    return HttpResponse(Rows(columns, [image], _baseline(experiment, columns)).html(editable=True))


@needs("read")
def cell(request: Request, pk: int, row: int, image: int) -> HttpResponseBase:
    """Everything one recipe said of one image: raw replies, the fate of each tag, the judges' reasons."""
    column = get_object_or_404(ExperimentRecipe.objects.select_related("experiment", "recipe"), pk=row, experiment=pk)
    asset = get_object_or_404(ImageAsset.objects.select_related("collection"), pk=image)
    links = {link.run_id: link.sample for link in ExperimentRun.objects.filter(row=column)}
    proposals = Proposal.objects.filter(run__in=list(links), image=asset).select_related("prediction", "policy_version")
    verdicts = RunVerdict.objects.filter(run__in=list(links), image=asset).select_related("verdict", "version__profile")
    judged = JudgedTag.objects.filter(verdict__in=[v.verdict_id for v in verdicts]).order_by("pk")
    tags: dict[int, list[JudgedTag]] = {}
    for one in judged:
        tags.setdefault(one.verdict_id, []).append(one)
    context = {
        "column": column,
        "channels": list(column.recipe.channels.select_related("adapter", "prompt_version").order_by("position")),
        "image": asset,
        "samples": [
            {"sample": links[p.run_id], "proposal": p, "fates": [_fate(tag) for tag in p.tags], "replies": _replies(p)}
            for p in sorted(proposals, key=lambda p: (links[p.run_id], p.run_id))
        ],
        "verdicts": [{"of": v, "tags": tags.get(v.verdict_id, [])} for v in verdicts],
    }
    return render(request, "judging/matrix_cell.html", context)


def _fate(tag: list[Any]) -> dict[str, Any]:
    name, category, score, state, reason, source, original = (*tag, "", "", "", "")[:7]
    return {
        "name": name,
        "category": category,
        "score": score,
        "state": state,
        "reason": reason,
        "source": source,
        "original": original if original != name else "",
    }


def _replies(proposal: Proposal) -> list[tuple[str, Prediction | None, str]]:
    """(channel, its prediction, note) of each channel that was asked."""
    if proposal.prediction is not None:
        return [("", proposal.prediction, "")]
    results = ChannelResult.objects.filter(run=proposal.run_id, image=proposal.image_id).select_related("prediction")
    return [(f"channel {r.stage + 1}", r.prediction, r.note) for r in results.order_by("stage")]


# -- the address ------------------------------------------------------------------------------------------------------
def parse(data: QueryDict) -> Query:
    """What cannot be read is left out: an old address still opens."""
    sort = data.get("sort", "disagreement")
    hidden = tuple(int(v) for v in data.getlist("hide") if _NUMBER.match(v))
    filters = tuple(name for name in FILTERS if name in data.getlist("only"))
    return Query(sort if sort in SORTS else "disagreement", filters, data.get("tag", "").strip()[:200], hidden)


def query_string(query: Query, *, toggle: str = "") -> str:
    """The address of a query; with `toggle` that filter switched."""
    only = [name for name in FILTERS if (name in query.filters) != (name == toggle)]
    pairs = [("sort", query.sort)] if query.sort != "disagreement" else []
    pairs += [("only", name) for name in only]
    pairs += [("tag", query.tag)] if query.tag else []
    pairs += [("hide", str(pk)) for pk in query.hidden]
    return urlencode(pairs)


def address(query: Query, *, toggle: str = "") -> str:
    return "?" + query_string(query, toggle=toggle)


def _columns(experiment: Experiment) -> list[ExperimentRecipe]:
    return list(experiment.rows.order_by("position"))


def _baseline(experiment: Experiment, columns: list[ExperimentRecipe]) -> int | None:
    found = next((c.pk for c in columns if c.recipe_id == experiment.baseline_id), None)
    return found if found is not None else (columns[0].pk if columns else None)


def _number(text: str | None, default: int) -> int:
    return int(text) if text and _NUMBER.match(text) else default
