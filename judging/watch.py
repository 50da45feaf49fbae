"""The gate as a step of a watched collection: what the watch's recipe proposed goes through the gate by itself.

It follows the runs: each run of the recipe that has ended since the step was switched on is sent through once, one
after the other. What the gate settles and what it leaves to people is its own business (`actions.gates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from tagging.actions import labels
from tagging.models import Collection, Run, Watch
from tagging.watching import Step, StepForm

from .actions import gates, judge_jobs
from .models import Gate, JudgeJob

State = JudgeJob.State
_KNOWN = ("enabled", "max_calls", "max_cost")


class GateStep(Step):
    name = "gate"
    label = "Let the judge settle what it is sure of"
    legend = "Judge"

    # -- settings -------------------------------------------------------------------------------------------------
    def check(self, collection: Collection, given: Mapping[str, Any]) -> dict[str, Any]:
        """{"enabled", "max_calls", "max_cost"}; the budget is that of each pass. ValidationError keyed by these."""
        if unknown := [name for name in given if name not in _KNOWN]:
            raise ValidationError({unknown[0]: f"There is no {unknown[0]!r} here; known: {', '.join(_KNOWN)}."})
        found = {
            "enabled": bool(given.get("enabled")),
            "max_calls": _number(given, "max_calls", int, "At least one question, or leave it empty."),
            "max_cost": _number(given, "max_cost", float, "A budget is more than 0; leave it empty for none."),
        }
        if found["enabled"] and not Gate.objects.filter(collection=collection, enabled=True).exists():
            raise ValidationError({"enabled": f"{collection} has no open gate: choose its judge and thresholds first."})
        return found

    def form(self, watch: Watch, data: QueryDict | None) -> StepForm:
        return GateForm(watch, data)

    # -- work -----------------------------------------------------------------------------------------------------
    def run(self, watch: Watch, settings: Mapping[str, Any], last: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """Send the next run that has ended through the gate; say what became of the one before."""
        upto = last["upto"] if "upto" in last else _before(watch)
        kept = {"upto": upto, "job": last.get("job")}
        job = JudgeJob.objects.filter(pk=last.get("job") or 0).first()
        if job is not None and job.state in JudgeJob.ACTIVE:
            return {**kept, "text": f"judge job {job.pk} is at work: {job.n_done:,} of {job.n_total:,}"}
        if job is not None and job.state == State.PAUSED:
            why = f" ({job.note.rstrip('.')})" if job.note else ""
            return {**kept, "text": f"judge job {job.pk} is paused{why}: it goes on when a person resumes it"}
        if job is not None and job.state == State.FAILED:
            error = f"Judge job {job.pk} failed: {job.error}"
            judge_jobs.resume(job)
            return {**kept, "text": f"judge job {job.pk} is tried again", "error": error}
        run = _next_run(watch, upto)
        if run is None:
            return {**kept, "text": _told(job)}
        budget = {name: settings.get(name) for name in ("max_calls", "max_cost")}
        new = gates.through_gate(watch.collection, run, by=watch.changed_by, **budget)
        return {"upto": run.pk, "job": new.pk, "text": f"judge job {new.pk} looks at what run {run.pk} proposed"}


def _number(given: Mapping[str, Any], name: str, kind: type[int] | type[float], refusal: str) -> int | float | None:
    value = given.get(name)
    if value is None or value == "":
        return None
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise ValidationError({name: refusal}) from None
    if isinstance(value, bool) or not 0 < number < 10**9:
        raise ValidationError({name: refusal})
    return number


def _before(watch: Watch) -> int:
    """The last run that is none of the step's business when it is switched on: the watch's newest one counts, older
    ones are sent through by hand."""
    own = Watch.objects.filter(pk=watch.pk).values_list("run", flat=True).first()  # it may have begun in this minute
    if own:
        return own - 1
    return Run.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def _next_run(watch: Watch, upto: int) -> Run | None:
    recipe = labels.find_recipe(watch.recipe, collection=watch.collection)
    ended = Run.objects.listed().filter(collection=watch.collection, recipe=recipe, state=Run.State.DONE, pk__gt=upto)
    return ended.order_by("pk").first()


def _told(job: JudgeJob | None) -> str:
    if job is None:
        return "no run has ended yet"
    if job.state == State.CANCELLED:
        return f"judge job {job.pk} was cancelled"
    parts = [(job.n_accepted, "accepted"), (job.n_rejected, "rejected"), (job.n_review, "left to people")]
    said = ", ".join(f"{n:,} {word}" for n, word in parts if n) or "nothing to settle"
    return f"judge job {job.pk}: {said}"


class GateForm(StepForm):
    """A tick and the budget."""

    def __init__(self, watch: Watch, data: QueryDict | None) -> None:
        stored = watch.steps.get(GateStep.name, {})
        self.collection = watch.collection
        self.gate = Gate.objects.select_related("profile").filter(collection=watch.collection_id).first()
        self.enabled = bool(stored.get("enabled")) if data is None else "gate-enabled" in data
        self.max_calls = _shown(stored.get("max_calls")) if data is None else data.get("gate-max_calls", "")
        self.max_cost = _shown(stored.get("max_cost")) if data is None else data.get("gate-max_cost", "")

    def settings(self) -> dict[str, Any]:
        return {"enabled": self.enabled, "max_calls": self.max_calls, "max_cost": self.max_cost}

    def render(self, errors: Mapping[str, list[str]]) -> SafeString:
        return render_to_string("judging/watch_gate.html", {"form": self, "errors": errors})


def _shown(value: object) -> str:
    return "" if value is None else str(value)
