"""What the models themselves said of an image, behind a proposal: every channel's reply as it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..adapters.base import PackedScores
from ..engine.propose import stored_labels
from ..models import Channel, ChannelResult, Prediction, Proposal

#: labels of a tagger that are shown, highest score first
MOST_LABELS = 200


@dataclass(frozen=True)
class RawReply:
    """One channel's reply. `state`: ok, empty, error or skipped; `note` says why for the last two. `scores`: label,
    category and probability of a tagger's labels above the stored floor; `tags` the same of models without labels."""

    channel: str
    adapter: str
    role: str
    prompt_version: int | None
    prompt: str
    state: str
    note: str = ""
    prediction: int | None = None
    text: str = ""
    caption: str = ""
    rating: str = ""
    rating_score: float | None = None
    scores: list[tuple[str, str, float]] = field(default_factory=list)
    tags: list[tuple[str, str, float | None]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    finish_reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float = 0.0
    cost: float | None = None
    currency: str = ""
    source: str = ""


def replies(proposal: Proposal) -> list[RawReply]:
    """In the order of the channels, a merging model last; one without a result yet is left out. Four queries."""
    channels = list(
        Channel.objects.filter(recipe=proposal.run.recipe_id)
        .select_related("adapter", "prompt_version__prompt")
        .order_by("position")
    )
    if len(channels) == 1:
        found = proposal.prediction
        return [_reply(channels[0], proposal.state, proposal.error, found)]
    rows = ChannelResult.objects.filter(run=proposal.run_id, image=proposal.image_id).select_related("prediction")
    results = {row.stage: row for row in rows}
    return [
        _reply(channel, results[channel.position].state, results[channel.position].note, found)
        for channel in channels
        if channel.position in results
        for found in [results[channel.position].prediction]
    ]


def _reply(channel: Channel, state: str, note: str, found: Prediction | None) -> RawReply:
    about: dict[str, Any] = {
        "channel": channel.source,
        "adapter": channel.adapter.label,
        "role": channel.role,
        "prompt_version": channel.prompt_version_id,
        "prompt": str(channel.prompt_version or ""),
        "state": state,
        "note": note,
    }
    if found is None:
        return RawReply(**about)
    return RawReply(
        **about,
        prediction=found.pk,
        text=found.text,
        caption=found.caption,
        rating=found.rating,
        rating_score=found.rating_score,
        scores=_scores(found),
        tags=[(name, category, score) for name, category, score in found.tags or ()],
        flags=list(found.flags),
        finish_reason=found.finish_reason,
        tokens_in=found.tokens_in,
        tokens_out=found.tokens_out,
        seconds=found.seconds,
        cost=found.cost,
        currency=found.currency or "",
        source=found.source,
    )


def _scores(found: Prediction) -> list[tuple[str, str, float]]:
    if found.scores is None or not found.labels_id:
        return []
    labels, packed = stored_labels(found.labels_id), PackedScores.from_bytes(bytes(found.scores))
    numbers: Sequence[int] = packed.labels[:MOST_LABELS].tolist()
    values = packed.probabilities[:MOST_LABELS].tolist()
    return [(labels.names[i], labels.categories[i], round(p, 4)) for i, p in zip(numbers, values, strict=True)]
