"""How far experiments are: two queries for any number of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Sum

from tagging.engine.progress import Progress
from tagging.engine.progress import progress as of_runs
from tagging.models import Chunk, Run

from .images import slices
from .models import Experiment, ExperimentRun

#: running runs whose pace is asked for
_PACED = 100


def progress(experiment: Experiment) -> Progress:
    return progress_of([experiment])[experiment.pk]


def progress_of(experiments: Sequence[Experiment]) -> dict[int, Progress]:
    """Experiment → cells of its stage that are done, over all recipes still in the race, and samples. `rate` and the
    time left are those of what is being worked on. Expects the rows to be prefetched."""
    pks = [experiment.pk for experiment in experiments]
    counted = (
        Chunk.objects.filter(
            run__experiment_links__row__experiment__in=pks, run__experiment_links__row__dropped_at=None
        )
        .order_by()
        .values("run__experiment_links__row__experiment")
        .annotate(ok=Sum("n_ok"), empty=Sum("n_empty"), error=Sum("n_error"), cached=Sum("n_cached"))
    )
    done: dict[int, dict[str, Any]] = {row["run__experiment_links__row__experiment"]: dict(row) for row in counted}
    rates = _rates([e.pk for e in experiments if e.state == Experiment.State.RUNNING])
    found = {}
    for experiment in experiments:
        rows = sum(1 for row in experiment.rows.all() if row.dropped_at is None)
        mine = done.get(experiment.pk, {})
        ok, empty, error, cached = (int(mine.get(name) or 0) for name in ("ok", "empty", "error", "cached"))
        total = max(rows * experiment.samples * _until(experiment), ok + empty + error)
        rate = rates.get(experiment.pk)
        left = total - ok - empty - error
        found[experiment.pk] = Progress(total, ok, empty, error, cached, rate, left / rate if rate else None)
    return found


def _rates(running: Sequence[int]) -> dict[int, float]:
    """Cells a second, of the runs that are being worked on."""
    if not running:
        return {}
    links = ExperimentRun.objects.filter(
        row__experiment__in=running, run__state=Run.State.RUNNING, run__started_at__isnull=False
    ).select_related("run", "row")[:_PACED]
    of = {link.run_id: link.row.experiment_id for link in links}
    found: dict[int, float] = {}
    for run, at in of_runs([link.run for link in links]).items():
        if at.rate and at.workers:
            found[of[run]] = found.get(of[run], 0.0) + at.rate
    return found


def _until(experiment: Experiment) -> int:
    """Images that it goes to: all of its stage, fewer where the race was over before."""
    over = experiment.state in (Experiment.State.DONE, Experiment.State.STOPPED) and experiment.reached
    ends = slices(experiment.reached if over else experiment.target, experiment.n_images)
    return ends[-1][1] if ends else experiment.n_images
