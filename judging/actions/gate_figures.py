"""What calibration says of a gate: what thresholds would have done, and whether the last audits keep the promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tagging.models import ImageAsset, ImageTag

from ..judges import gate as bands
from ..models import Gate, GateOutcome, JudgedTag, JudgeProfileVersion
from .compared import Decision, triple

#: audits that a rolling window looks at
WINDOW = 50
Role = JudgedTag.Role


def curve(judged: Sequence[Decision]) -> dict[str, Any]:
    curve = bands.curve(bands.Judged(d.image, d.p_ok, d.right) for d in judged)
    chosen = bands.choose(curve)
    return {
        "accept": [[p.threshold, p.n, triple(p.precision)] for p in curve.accept],
        "reject": [[p.threshold, p.n, triple(p.precision)] for p in curve.reject],
        "chosen": {"accept": chosen.accept, "reject": chosen.reject, "target": bands.TARGET},
        "needed": bands.decisions_needed(),
    }


def settled(version: JudgeProfileVersion) -> dict[str, Any]:
    """How many of all judged images each pair of thresholds settles: rows by accept threshold, columns by reject
    threshold, the first for a closed reject band. `rejected`: with a closed accept band, by reject threshold."""
    accept, reject = np.array(bands.STEPS), np.array(bands.REJECT_STEPS)
    counts = np.zeros((len(accept), len(reject) + 1), dtype=np.int64)
    rejected = np.zeros(len(reject), dtype=np.int64)
    n, image, values = 0, None, list[float]()
    rows = JudgedTag.objects.filter(version=version, role=Role.CANDIDATE).order_by("verdict_id")
    for verdict, p_ok in rows.values_list("verdict_id", "p_ok").iterator(chunk_size=5000):
        if verdict != image and values:
            _add_settled(counts, np.sort(np.array(values)), accept, reject)
            rejected += max(values) <= reject + 1e-9
            n, values = n + 1, []
        image = verdict
        values.append(p_ok)
    if values:
        _add_settled(counts, np.sort(np.array(values)), accept, reject)
        rejected += max(values) <= reject + 1e-9
        n += 1
    return {"images": n, "counts": counts.tolist(), "rejected": rejected.tolist()}


def _add_settled(counts: Any, p: Any, accept: Any, reject: Any) -> None:
    """Settled where no tag lies between the thresholds: the highest below `accept` is at or below `reject`."""
    below = np.searchsorted(p, accept - 1e-9)
    highest = np.where(below > 0, p[np.maximum(below - 1, 0)], -1.0)
    counts[:, 0] += below == 0
    counts[:, 1:] += highest[:, None] <= reject[None, :] + 1e-9


def drift(version: JudgeProfileVersion) -> dict[str, Any]:
    """The last audited images that people have reviewed: how many of the accepted tags were right. `below`: a full
    window, and less than the lower bound that the gate was opened with."""
    reviewed = GateOutcome.objects.filter(
        version=version, audit=True, image__review_state=ImageAsset.Review.REVIEWED
    ).order_by("-id")
    window = list(reviewed.select_related("job__gate").values_list("image_id", "verdict_id", "job__gate_id")[:WINDOW])
    if not window:
        return {"audits": 0}
    gates = {gate.pk: gate for gate in Gate.objects.filter(pk__in={g for _, _, g in window if g})}
    tags = JudgedTag.objects.filter(verdict__in=[v for _, v, _ in window], role=Role.CANDIDATE, tag__isnull=False)
    truth = {
        (row.image_id, row.tag_id): row.state
        for row in ImageTag.objects.filter(image__in=[i for i, _, _ in window], state__in=ImageTag.TRUTH)
    }
    of = {verdict: (image, gates.get(gate)) for image, verdict, gate in window}
    right = n = 0
    low = None
    for verdict, tag, p_ok in tags.values_list("verdict_id", "tag_id", "p_ok"):
        image, gate = of[verdict]
        state = truth.get((image, tag))
        if state is None or p_ok < (gate.accept_at if gate and gate.accept_at is not None else 0.5):
            continue
        n += 1
        right += state in ImageTag.POSITIVE
        low = gate.precision_low if gate and gate.precision_low is not None else low
    if not n:
        return {"audits": len(window)}
    precision = right / n
    below = len(window) >= WINDOW and low is not None and precision < low
    return {"audits": len(window), "tags": n, "precision": precision, "low": low, "below": below}
