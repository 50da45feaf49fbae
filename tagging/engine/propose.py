"""From a stored prediction to what a run proposes: thresholds and policy, without any inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..adapters.base import Adapter, AdapterOptions, LabelSet, PackedScores, Reply
from ..models import PolicyVersion, StoredLabelSet
from ..policy import select
from ..policy.combine import ChannelOutput, Combined
from ..policy.parse import Parsed
from ..policy.pipeline import CompiledPolicy, compile_policy
from ..policy.spec import Candidate, Fate, WordList


@dataclass(slots=True)
class Proposed:
    """What goes on a Proposal and, if the run is shown, on its image. `kept` are the tags that stay, in order."""

    kept: list[Fate] = field(default_factory=list)
    noted: list[Fate] = field(default_factory=list)  # dropped by a rule, with the reason
    caption: str = ""
    rating: str = ""
    rating_score: float | None = None
    ancestors: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of names as the model said them
    flags: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.kept and not self.caption

    @property
    def top_score(self) -> float | None:
        return max((fate.score for fate in self.kept if fate.score is not None), default=None)

    def tags_json(self) -> list[list[Any]]:
        """As Proposal.tags holds them: [name, category, score, state, reason, source, original]."""
        return [
            [
                f.name,
                f.category,
                None if f.score is None else round(f.score, 4),
                f.state,
                f.reason,
                f.source,
                f.original,
            ]
            for f in (*self.kept, *self.noted)
        ]


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


@lru_cache(maxsize=64)
def compiled_policy(version_id: int) -> CompiledPolicy:
    """The policy version with its lists, compiled once per process: versions never change."""
    version = PolicyVersion.objects.prefetch_related("wordlists__wordlist").get(pk=version_id)
    lists = [WordList(v.wordlist.slug, v.wordlist.kind, v.entries) for v in version.wordlists.all()]
    return compile_policy(version.spec, lists)


@lru_cache(maxsize=16)
def stored_labels(digest: str) -> LabelSet:
    """A label set by its content hash. StoredLabelSet.DoesNotExist."""
    row = StoredLabelSet.objects.get(digest=digest)
    return LabelSet(tuple(row.names), tuple(row.categories), tuple(row.parents), row.published)


class Proposer:
    """Applies one channel's thresholds and one policy to replies. Not for several threads."""

    def __init__(
        self, adapter: type[Adapter], options: AdapterOptions, policy: CompiledPolicy, *, source: str = ""
    ) -> None:
        self._adapter = adapter
        self._options = options
        self._policy = policy
        self._source = source
        self._scores: npt.NDArray[np.float32] | None = None

    def propose(self, reply: Reply, labels: LabelSet | None) -> Proposed:
        """What is proposed of one reply. Pure: the same reply gives the same proposal."""
        candidates: Sequence[Candidate] = []
        thresholds: Mapping[str, float] = {}
        caption, problem = reply.caption or "", ""
        if reply.scores is not None and labels is not None:
            thresholds = self._thresholds(labels, reply.scores)
            candidates = self._policy.select(labels, reply.scores, thresholds, source=self._source)
        else:
            candidates, caption, problem = self._said(reply)
        outcome = self._policy.apply(candidates, caption=caption, thresholds=thresholds)
        rating, score = reply.rating or ("", None)
        kept = [f for f in outcome.tags if f.state != "dropped"]
        noted = [f for f in outcome.tags if f.state == "dropped"]
        ancestors = {c.name: c.ancestors for c in candidates if c.ancestors}
        flags = ("parse_failed",) if problem else ()
        return Proposed(kept, noted, outcome.caption, rating, score, ancestors, flags)

    def output(self, reply: Reply, labels: LabelSet | None, *, by_policy: bool = True) -> ChannelOutput:
        """What one of several channels says, above its thresholds. The policy's own thresholds go before the model's;
        without `by_policy` they do not count: what other models are shown then stays the same under every policy."""
        tags: Sequence[Candidate]
        if reply.scores is not None and labels is not None:
            thresholds = self._thresholds(labels, reply.scores)
            if by_policy:
                own, single = self._policy.thresholds_for(thresholds), self._policy.tag_thresholds_for(labels)
                tags = select.candidates(labels, reply.scores, own, single, source=self._source)
            else:
                tags = select.candidates(labels, reply.scores, thresholds, source=self._source)
            caption = reply.caption or ""
        else:
            tags, caption, _ = self._said(reply)
        state: Literal["ok", "empty"] = "ok" if tags or caption else "empty"
        return ChannelOutput(self._source, tags, caption, reply.rating, state)

    def _said(self, reply: Reply) -> Parsed:
        """Tags and caption of a reply without scores."""
        if reply.tags:
            tags = [Candidate(t.name, t.category, t.score, self._source) for t in reply.tags]
            return Parsed(tags, reply.caption or "")
        if reply.text and not reply.caption:
            parsed = self._policy.parse(reply.text)
            return parsed._replace(tags=[c._replace(source=self._source) for c in parsed.tags])
        return Parsed([], reply.caption or "")

    def _thresholds(self, labels: LabelSet, packed: PackedScores) -> Mapping[str, float]:
        # one array for all images: zeroing ten thousand labels for each would cost more than all else here
        if self._scores is None or len(self._scores) != len(labels.names):
            self._scores = np.zeros(len(labels.names), dtype=np.float32)
        self._scores[packed.labels] = packed.probabilities
        try:
            return self._adapter.thresholds(labels, self._scores, self._options)
        finally:
            self._scores[packed.labels] = 0


def propose_combined(policy: CompiledPolicy, combined: Combined, flags: Sequence[str] = ()) -> Proposed:
    """What is proposed of several channels' outputs, once they are combined."""
    outcome = policy.apply(combined.tags, caption=combined.caption)
    kept = [_with_reason(f, combined.reasons) for f in outcome.tags if f.state != "dropped"]
    noted = [f for f in outcome.tags if f.state == "dropped"] + combined.left_out
    rating, score = combined.rating or ("", None)
    ancestors = {c.name: c.ancestors for c in combined.tags if c.ancestors}
    return Proposed(kept, noted, outcome.caption, rating, score, ancestors, tuple(flags))


def _with_reason(fate: Fate, reasons: Mapping[str, str]) -> Fate:
    own = reasons.get(fate.original) if fate.state != "added" else None
    return fate._replace(reason="; ".join(filter(None, (own, fate.reason)))) if own else fate
