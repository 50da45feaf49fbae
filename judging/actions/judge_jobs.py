"""Verdicts in the background: a job on the queue of the judge's model, in slices, resumable, within a budget."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction
from django.db.models import F, Q
from django.utils import timezone

from tagging import queue
from tagging.actions.runs import NotNow
from tagging.adapters import registry
from tagging.adapters.base import ModelUnavailable
from tagging.engine import job_leases
from tagging.engine.residency import Tired
from tagging.models import Collection, Run

from ..judges.content import seeded
from ..judges.statistics import in_holdout
from ..models import Experiment, Gate, JudgeJob, JudgeProfile, JudgeProfileVersion, JudgeVerdict
from . import gates, judge_costs
from .judge_juries import Jury
from .judge_subjects import Subject, count_subjects, next_subjects
from .judge_verdicts import link, write
from .judge_watch import LEASE, Watch
from .judge_work import Draft, Judge

log = logging.getLogger(__name__)
log = logging.getLogger(__name__)
State = JudgeJob.State
TASK = "judging.tasks.judge"
#: a task works this long, then rings again, so that other work gets its turn
SLICE_SECONDS = 20.0
RENEW = 20.0
#: at the same place so often: the job fails
MOST_HANGS = 3
#: subjects that are judged and written together
STEP = 16
MOST_PROBLEMS = 20
#: failures on so many subjects at once are the model's, not the images'
HOPELESS = 3


def start_job(
    version: JudgeProfileVersion,
    *,
    runs: Sequence[Run] = (),
    others: Sequence[Run] = (),
    reviewed: Collection | None = None,
    experiment: Experiment | None = None,
    gate: Gate | None = None,
    share: float = 1.0,
    part: str = "",
    sample: int = 0,
    max_calls: int | None = None,
    max_cost: float | None = None,
    by: AbstractBaseUser | None = None,
) -> JudgeJob:
    """Queue verdicts on what `runs` proposed, on what people decided in the collection `reviewed`, or, for a pairwise
    judge, on `runs` against `others`. ValidationError keyed by field."""
    _check(version, runs, others, reviewed, share, max_calls, max_cost)
    if part and part not in JudgeJob.Part.values:
        raise ValidationError({"part": f"{part!r} is none of {', '.join(JudgeJob.Part.values)}."})
    subject = JudgeJob.Subject.REVIEWED if reviewed else JudgeJob.Subject.PROPOSALS
    if others:
        subject = JudgeJob.Subject.PAIRS
    collection = reviewed or (runs[0].collection if runs else None)
    job = JudgeJob(
        version=version,
        subject=subject,
        collection=collection,
        runs=sorted(run.pk for run in runs),
        others=sorted(run.pk for run in others),
        experiment=experiment,
        gate=gate,
        share=share,
        part=part,
        sample=sample,
        max_calls=max_calls,
        max_cost=max_cost,
        created_by=by,  # type: ignore[misc]
    )
    job.n_total = count_subjects(job) * len(stages(version))
    job.save()
    ring(job)
    return job


def _check(
    version: JudgeProfileVersion,
    runs: Sequence[Run],
    others: Sequence[Run],
    reviewed: Collection | None,
    share: float,
    max_calls: int | None,
    max_cost: float | None,
) -> None:
    profile, errors = version.profile, {}
    if not profile.enabled:
        errors["judge"] = f"{profile.name} is switched off: switch it on first."
    elif version.ready:
        errors["judge"] = version.ready
    pairwise = JudgeProfile.Kind.PAIRWISE in (profile.kind, version.rules.get("of"))
    if pairwise and not others:
        errors["others"] = "A pairwise judge compares two runs: name the other one."
    if others and not pairwise:
        errors["others"] = f"{profile.name} is no pairwise judge."
    if bool(runs) == bool(reviewed):
        errors["runs"] = "Name runs, or a collection whose reviewed images are judged."
    if not 0 < share <= 1:
        errors["share"] = "The part of the images lies above 0 and up to 1."
    if max_calls is not None and max_calls < 1:
        errors["max_calls"] = "At least one question."
    if max_cost is not None and max_cost <= 0:
        errors["max_cost"] = "A budget is more than 0."
    if errors:
        raise ValidationError(errors)


def stages(version: JudgeProfileVersion) -> list[JudgeProfileVersion]:
    """The judges that have their turn one after the other: of a jury its members, then itself."""
    if version.profile.kind != JudgeProfile.Kind.JURY:
        return [version]
    members = version.members.select_related("profile", "adapter", "prompt_version").order_by("pk")
    return [*members, version]


def queue_of(version: JudgeProfileVersion) -> str:
    """Where the judge's model is: the gpu or the io queue; the default one where none is asked."""
    if version.adapter is None:
        return queue.DEFAULT
    try:
        return registry.adapter_class(version.adapter.kind).capabilities.queue
    except LookupError:
        return queue.DEFAULT  # the job will say what is wrong


def ring(job: JudgeJob) -> None:
    """Ring for the stage that is next."""
    at = stages(job.version)
    queue.defer(TASK, job.pk, cluster=queue_of(at[min(job.stage, len(at) - 1)]))


# -- verbs ------------------------------------------------------------------------------------------------------------
def pause(job: JudgeJob) -> None:
    """Stop after what is in work. NotNow when it is over or paused."""
    _move(job, JudgeJob.ACTIVE, State.PAUSED, "This job is not running.")


def resume(job: JudgeJob) -> None:
    """Go on where it stopped; a budget that ran out has to be raised first. NotNow."""
    job.refresh_from_db()
    if said := _over_budget(job):
        raise NotNow(f"{said}: raise the budget first.")
    _move(job, (State.PAUSED, State.FAILED), State.QUEUED, "Only a job that is paused or has failed goes on.")
    ring(job)


def cancel(job: JudgeJob) -> None:
    """Stop for good; the verdicts so far stay. NotNow when it is over."""
    _move(job, JudgeJob.OPEN, State.CANCELLED, "This job is over already.")


def set_budget(job: JudgeJob, *, max_calls: int | None, max_cost: float | None) -> None:
    """Another budget; None: none. ValidationError."""
    if max_calls is not None and max_calls < 1:
        raise ValidationError({"max_calls": "At least one question."})
    if max_cost is not None and max_cost <= 0:
        raise ValidationError({"max_cost": "A budget is more than 0."})
    JudgeJob.objects.filter(pk=job.pk).update(max_calls=max_calls, max_cost=max_cost)
    job.refresh_from_db()


def _move(job: JudgeJob, before: Sequence[str], after: str, refusal: str) -> None:
    values: dict[str, Any] = {"state": after, "token": F("token") + 1, "owner": "", "lease_until": None, "note": ""}
    if after == State.CANCELLED:
        values["finished_at"] = timezone.now()
    if after == State.QUEUED:
        values |= {"error": "", "finished_at": None}
    if not JudgeJob.objects.filter(pk=job.pk, state__in=before).update(**values):
        raise NotNow(refusal)
    job.refresh_from_db()


# -- the work ---------------------------------------------------------------------------------------------------------
def run_job(job_id: int, *, seconds: float | None = None, report: Callable[[JudgeJob], None] | None = None) -> JudgeJob:
    """Do the work of a job, or of the first `seconds` of what is left; the job as it is then.

    With `seconds` only the stage that is next, in a worker of its queue; without, all stages here. Nothing happens when
    it is over or another process works on it. Raises Tired when this process has to be replaced before the model fits:
    the job is free for the next one then.
    """
    job = _claim(job_id)
    if job is None:
        return JudgeJob.objects.get(pk=job_id)
    end = None if seconds is None else time.monotonic() + seconds
    turns = stages(job.version)
    try:
        while job.stage < len(turns):
            work = _Work(job, turns[job.stage], end)
            with Watch(work.renew, work.hung) as work.watch:
                while work.step():
                    if report:
                        report(job)
            if not work.finished:
                break
            if end is not None and job.stage < len(turns):
                _held(job).update(owner="", lease_until=None)
                break
    except ModelUnavailable as error:
        _finish(job, State.FAILED, error.message)
        return job
    except Tired:  # this worker is replaced, and another one goes on at once
        _held(job).update(owner="", lease_until=None)
        raise
    except DatabaseError:  # what was not written is done again, as soon as the database answers
        job_leases.let_go(_held(job))
        raise
    except Exception as error:
        log.exception("judge job %s", job.pk)
        _finish(job, State.FAILED, f"It could not go on. {type(error).__name__}: {error}"[:2000])
        return job
    if job.stage >= len(turns):
        _finish(job, State.DONE)
        gates.after(job)
    job.refresh_from_db()
    return job


def _held(job: JudgeJob) -> Any:
    """The job's row as long as it is ours."""
    return job_leases.ours(job, state=State.RUNNING)


def _claim(job_id: int) -> JudgeJob | None:
    related = ("version__profile", "version__adapter", "version__prompt_version", "gate__version", "experiment")
    job = JudgeJob.objects.select_related(*related).filter(pk=job_id).first()
    if job is None or job.state not in JudgeJob.ACTIVE or _alive(job):
        return None
    return job if job_leases.take(job, LEASE, where={"state": job.state}, state=State.RUNNING, error="") else None


def _alive(job: JudgeJob) -> bool:
    """Does somebody who lives work on it?"""
    return job.state == State.RUNNING and job_leases.alive(job)


def _finish(job: JudgeJob, state: str, error: str = "") -> None:
    _held(job).update(state=state, error=error, owner="", lease_until=None, finished_at=timezone.now())
    job.refresh_from_db()


class _Work:
    """One stage of a claimed job."""

    def __init__(self, job: JudgeJob, version: JudgeProfileVersion, end: float | None) -> None:
        self.job, self.version, self.end = job, version, end
        jury = version.profile.kind == JudgeProfile.Kind.JURY
        self.judge: Judge | Jury = Jury(version, job.sample) if jury else Judge(version, job.sample)
        self.last = version.pk == job.version_id
        self.finished = False
        self.renewed = time.monotonic()
        self.held = True
        self.watch: Watch | None = None

    def step(self) -> bool:
        """One slice, judged and then written at once with the cursor. False when the stage is over, the time is, or the
        job is no longer ours."""
        job, began = self.job, time.monotonic()
        if self.watch:
            self.watch.progress()
        if self.end is not None and began >= self.end:
            self._let_go()
            return False
        if said := _over_budget(job):
            _held(job).update(state=State.PAUSED, note=f"{said}."[:300], owner="", lease_until=None)
            return False
        left = STEP if job.max_calls is None else max(1, min(STEP, job.max_calls - job.n_calls))
        subjects = next_subjects(job, left)
        if not subjects:
            self.finished = self._next_stage()
            return False
        drawn = [s for s in subjects if _drawn(job, s)]
        drafts = self.judge.judge(drawn, stop=self._stop, doing=self._doing) if drawn else []
        if len(drafts) >= HOPELESS and all(d.error for d in drafts):
            raise ModelUnavailable(f"The judge's model failed on {len(drafts)} images in a row: {drafts[0].error}")
        written = self._write(subjects, drawn, drafts, time.monotonic() - began)
        if written and not self.held:
            return False
        if not written and self.held:  # stopped before the first answer
            self._let_go()
        return written

    def _stop(self) -> bool:
        """Is the time over, or the job paused, cancelled or taken over?"""
        self._doing("")
        return not self.held or (self.end is not None and time.monotonic() >= self.end)

    def _doing(self, text: str) -> None:
        """At each sign of progress the lease is renewed, and a pause noticed."""
        if self.watch:
            self.watch.progress(loading=bool(text))
        if text or time.monotonic() - self.renewed >= min(RENEW, 1.0):
            self.renewed = time.monotonic()
            self.held = self.renew()

    def renew(self) -> bool:
        """False when the job is no longer ours."""
        return bool(_held(self.job).update(lease_until=timezone.now() + LEASE))

    def hung(self, silent: float) -> None:
        """Give the job back, and end a worker that hangs: nothing else ends a hung call. Called in the watch's thread.

        A job that hangs again and again at the same place fails."""
        job = self.job
        line = f"No answer for {silent:.0f} s after {job.n_done} of {job.n_total}: the call was given up."
        again = sum(1 for p in job.problems if p.endswith(line.partition(" s ")[2])) + 1
        values: dict[str, Any] = {"problems": [line, *job.problems][:MOST_PROBLEMS], "owner": "", "lease_until": None}
        if again >= MOST_HANGS:
            why = f"The judge's model hung {again} times at the same place. {line}"
            values |= {"state": State.FAILED, "error": why, "finished_at": timezone.now()}
        if not _held(job).update(**values, token=F("token") + 1):
            return
        log.critical("%s: %s", job, line)
        if again < MOST_HANGS:
            ring(job)
        if self.end is not None:  # in a worker, not in a command that somebody looks at
            os.kill(os.getpid(), signal.SIGKILL)

    def _let_go(self) -> None:
        _held(self.job).update(owner="", lease_until=None)

    def _next_stage(self) -> bool:
        job = self.job
        if not _held(job).update(stage=job.stage + 1, cursor=0):
            return False
        job.stage, job.cursor = job.stage + 1, 0
        return True

    def _write(
        self, subjects: Sequence[Subject], drawn: Sequence[Subject], drafts: Sequence[Draft], seconds: float
    ) -> bool:
        """All that was answered up to the first subject that was not, and the cursor with it. False where that is
        nothing, or the job is no longer ours."""
        answered = {id(d.subject) for d in drafts}
        waiting = [s.place for s in drawn if id(s) not in answered]
        done = [s for s in subjects if not waiting or s.place < min(waiting)]
        if not done:
            return False
        ours = {id(s) for s in done}
        kept = [d for d in drafts if id(d.subject) in ours]
        values = self._progress(done, kept, seconds)
        with transaction.atomic():
            if not _held(self.job).update(**values, lease_until=timezone.now() + LEASE):
                self.held = False
                return False
            found = write(self.version, kept, sample=self.job.sample)
            if self.last:
                link(self.job, self.version, kept, found)
                if self.job.gate_id:
                    gated = gates.apply(self.job, kept, found)
                    _held(self.job).update(**{name: F(name) + n for name, n in gated.items()})
                    values |= {name: getattr(self.job, name) + n for name, n in gated.items()}
        for name, value in values.items():
            setattr(self.job, name, value)
        return True

    def _progress(self, done: Sequence[Subject], kept: Sequence[Draft], seconds: float) -> dict[str, Any]:
        job = self.job
        replies = {r.pk: r for d in kept for r in d.replies if r.created_at >= job.created_at}
        failed = [d for d in kept if d.error]
        invalid = [d for d in kept if not (d.known or d.error) and d.state == JudgeVerdict.State.INVALID]
        lines = [f"{d.subject.image.path}: {d.error or d.problem}" for d in [*failed, *invalid]]
        return {
            "cursor": done[-1].place,
            "n_done": job.n_done + len(done),
            "n_total": max(job.n_total, job.n_done + len(done)),
            "n_cached": job.n_cached + sum(1 for d in kept if d.known),
            "n_verdicts": job.n_verdicts + sum(1 for d in kept if not (d.known or d.error or d.nothing)),
            "n_invalid": job.n_invalid + len(invalid),
            "n_error": job.n_error + len(failed),
            "n_skipped": job.n_skipped + len(done) - len(kept) + sum(1 for d in kept if d.nothing),
            "n_calls": job.n_calls + len(replies),
            "problems": [*job.problems, *lines][:MOST_PROBLEMS],
            "tokens_in": job.tokens_in + sum(r.tokens_in or 0 for r in replies.values()),
            "tokens_out": job.tokens_out + sum(r.tokens_out or 0 for r in replies.values()),
            "cost": job.cost + judge_costs.cost(self.version, replies.values()),
            "seconds": job.seconds + seconds,
        }


def _drawn(job: JudgeJob, subject: Subject) -> bool:
    """Is the image in the part that is judged? By its content: the same images for every judge."""
    if job.part and in_holdout(subject.image.sha256) != (job.part == JudgeJob.Part.HELD):
        return False
    return job.share >= 1 or seeded("share", subject.image.sha256).random() < job.share


def _over_budget(job: JudgeJob) -> str:
    if job.max_calls is not None and job.n_calls >= job.max_calls:
        return f"{job.n_calls:,} questions were asked, as many as allowed"
    if job.max_cost is not None and job.cost >= job.max_cost:
        return f"The replies cost {job.cost:.2f}, the budget was {job.max_cost:.2f}"
    return ""


def sweep() -> None:
    """Ring again for jobs that have waited for a minute or whose owner died."""
    due = Q(state=State.RUNNING) | Q(state=State.QUEUED, created_at__lt=timezone.now() - timedelta(minutes=1))
    for job in JudgeJob.objects.filter(due).select_related("version__profile", "version__adapter").order_by("pk"):
        if not _alive(job):
            ring(job)
