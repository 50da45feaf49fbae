"""What the queue calls. Each task is thin: load by id, call the action; problems are stored, never raised."""

from __future__ import annotations

from tagging import queue


def advance(experiment_id: int) -> None:
    """What is due in an experiment now: start runs, judge the race, end it."""
    from .actions.advance import advance as go_on

    go_on(experiment_id)


def run_ended(run_id: int) -> None:
    """A run has ended: the experiments that started it look what is due."""
    from .actions.advance import run_ended as tell

    tell(run_id)


@queue.register_sweep
def sweep_experiments() -> None:
    """Ring again for experiments that wait for nobody."""
    from .actions.advance import sweep

    sweep()
