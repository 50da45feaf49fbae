"""What the queue calls. Each task is thin: load by id, call the action; problems are stored, never raised."""

from __future__ import annotations

import logging

from tagging import queue

log = logging.getLogger(__name__)


def advance(experiment_id: int) -> None:
    """What is due in an experiment now: start runs, judge the race, end it."""
    from .actions.advance import advance as go_on
    from .actions.overnight_steps import experiment_moved

    experiment = go_on(experiment_id)
    if experiment is not None and experiment.state not in experiment.OPEN:
        experiment_moved(experiment_id)


def run_ended(run_id: int) -> None:
    """A run has ended: the experiments that started it look what is due, and a gate may be waiting for it."""
    from .actions.advance import run_ended as tell
    from .actions.gates import run_ended as pass_on
    from .actions.overnight_steps import run_ended as count

    tell(run_id)
    pass_on(run_id)
    count(run_id)


def search(search_id: int) -> None:
    """What is due in a search for the best recipe: another round, the last check, the end."""
    from .actions.overnight_steps import advance_search

    advance_search(search_id)


@queue.register_sweep
def sweep_experiments() -> None:
    """Ring again for experiments that wait for nobody."""
    from .actions import overnight_steps
    from .actions.advance import sweep

    sweep()
    overnight_steps.sweep()


def judge(job_id: int) -> None:
    """One slice of a JudgeJob, in a worker of its model's queue; rings again while there is more to do."""
    from tagging.engine.residency import Tired

    from .actions.judge_jobs import SLICE_SECONDS, ring, run_job
    from .models import JudgeJob

    try:
        job = run_job(job_id, seconds=SLICE_SECONDS)
    except Tired as e:  # memory that unloading did not free: the next process has it
        log.warning("%s", e)
        queue.replace_worker()
        job = JudgeJob.objects.get(pk=job_id)
    if job.state == job.State.RUNNING and not job.owner:
        ring(job)


def calibrate(version_id: int) -> None:
    """A judge compared with people's decisions, now."""
    from .actions.calibrating import calibrate as compare
    from .models import JudgeProfileVersion

    version = JudgeProfileVersion.objects.select_related("profile").filter(pk=version_id).first()
    if version is not None:
        compare(version)


@queue.register_sweep
def sweep_judges() -> None:
    """Ring again for judges whose doorbell was lost or whose owner died, and for calibrations that are due."""
    from .actions import calibrating, judge_jobs

    judge_jobs.sweep()
    calibrating.sweep()
