"""What several channels said of one image, made into one list of tags and one caption. Pure: no models, no database.

    spec = check_combine({"rule": "votes", "votes": 2}, ["wd", "qwen", "ram"])
    combined = combine(spec, [ChannelOutput("wd", tags=[…]), ChannelOutput("qwen", tags=[…], caption="…"), …])

Tags of different channels are the same tag when `key` says so (by default: case, spaces and underscores aside); the
engine passes the policy's own, so that aliases vote together. Everything that a rule leaves out is a Fate with the
reason. Union, intersection, votes and weighted do not depend on the order of the channels, save for the caption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prompts.wordlists import first_error

from .spec import Candidate, Fate, Probability
from .text import tag_key

MAX_CHANNELS = 5
ANY = "*"  # all categories that are not named
Weight = Annotated[float, Field(ge=0.0, le=100.0)]


class CombineError(ValueError):
    """The rule cannot be used with these channels; the text names the field and the mend."""


class CascadeSpec(BaseModel):
    """When the next channel is asked: only where those before are unsure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["score", "margin", "count", "disagreement"] = Field(
        default="score",
        title="Unsure by",
        description="score: the highest is low; margin: the two highest are close; count: few or very many tags; "
        "disagreement: the channels before the last say different things.",
    )
    below: Probability = Field(default=0.6, title="Score or margin below")
    fewer: int = Field(default=3, ge=0, le=1000, title="Fewer tags than")
    more: int | None = Field(default=None, ge=1, le=2000, title="More tags than", description="Empty: never.")
    above: Probability = Field(
        default=0.5, title="Disagreement above", description="0: all tags shared; 1: none of them."
    )


class CombineSpec(BaseModel):
    """How a recipe's channels are asked and made into one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["single", "union", "intersection", "votes", "weighted", "priority", "llm_merge"] = Field(
        default="single", title="Combine by"
    )
    order: Literal["parallel", "sequential", "cascade"] = Field(
        default="parallel",
        title="Channels are asked",
        description="parallel: all at once; sequential: a later prompt sees what came before; cascade: the next only "
        "where the last is unsure.",
    )
    votes: int = Field(default=2, ge=1, le=MAX_CHANNELS, title="Votes needed", description="Of rule votes.")
    trust: dict[str, dict[str, Weight]] = Field(
        default_factory=dict,
        title="Trust by channel and category",
        description='{"wd": {"character": 1, "*": 0.5}}. 1 where nothing is said; 0: not believed.',
    )
    at_least: Probability = Field(
        default=0.0, title="Weighted score at least", description="Of rule weighted: less is left out."
    )
    unscored: Probability = Field(
        default=1.0, title="A tag without a score counts as", description="Language models give none."
    )
    priority: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        title="Channels by category",
        description='{"character": ["wd", "qwen"], "*": ["qwen"]}: the first that says something of it. A category '
        "without a word here, and no *, takes all channels in their order.",
    )
    caption: tuple[str, ...] = Field(
        default=(), title="Caption from", description="The first of these channels that has one; else any."
    )
    cascade: CascadeSpec = CascadeSpec()

    @field_validator("caption", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) and value else value or ()

    @model_validator(mode="after")
    def _of_its_rule(self) -> CombineSpec:
        if self.rule == "single" and self.order != "parallel":
            raise ValueError("a single channel has no order")
        if self.rule == "priority" and not self.priority:
            raise ValueError('priority: name the channels by category, {"*": ["…"]}')
        return self

    def stored(self) -> dict[str, Any]:
        """What a recipe keeps: what differs from the defaults, with rule and order always (a single one: the rule)."""
        if self.rule == "single":
            return {"rule": "single"}
        return {"rule": self.rule, "order": self.order, **self.model_dump(mode="json", exclude_defaults=True)}


def check_combine(given: Mapping[str, Any] | CombineSpec, channels: Sequence[str]) -> CombineSpec:
    """The rule for channels of these names. CombineError names the field."""
    try:
        spec = given if isinstance(given, CombineSpec) else CombineSpec.model_validate(dict(given))
    except ValidationError as error:
        raise CombineError(first_error(error)) from None
    n = len(channels)
    if not 1 <= n <= MAX_CHANNELS:
        raise CombineError(f"A recipe has 1 to {MAX_CHANNELS} channels, not {n}.")
    if len(set(channels)) != n:
        raise CombineError("Two channels have the same name: give each its own.")
    if (spec.rule == "single") != (n == 1):
        raise CombineError(f"rule: {spec.rule!r} does not go with {n} channel{'' if n == 1 else 's'}.")
    if spec.rule == "votes" and spec.votes > n:
        raise CombineError(f"votes: {spec.votes} cannot be had from {n} channels.")
    if spec.order == "cascade" and spec.cascade.by == "disagreement" and n < 3:
        raise CombineError("cascade: a disagreement needs two channels before the last; there is one.")
    for what, names in _named(spec):
        for name in names:
            if name not in channels:
                raise CombineError(f"{what}: there is no channel {name!r}; there is {', '.join(channels)}.")
    return spec


def _named(spec: CombineSpec) -> list[tuple[str, Iterable[str]]]:
    """Where a rule names channels."""
    return [
        ("trust", spec.trust),
        ("caption", spec.caption),
        *(("priority", names) for names in spec.priority.values()),
    ]


@dataclass(frozen=True, slots=True)
class ChannelOutput:
    """What one channel said of one image: tags above its thresholds, in its order.

    `state`: ok, empty, error (no answer: it has no vote) or skipped (not asked). `note` says why for the latter two.
    """

    name: str
    tags: Sequence[Candidate] = ()
    caption: str = ""
    rating: tuple[str, float] | None = None
    state: Literal["ok", "empty", "error", "skipped"] = "ok"
    note: str = ""

    @property
    def answered(self) -> bool:
        return self.state in ("ok", "empty")


@dataclass(slots=True)
class Combined:
    """One image's tags and caption before the policy. `left_out`: what the rule dropped, with the reason. `votes`: how
    many channels said a tag, by its name. `reasons`: what is worth saying of a tag that stays, by its name."""

    tags: list[Candidate] = field(default_factory=list)
    caption: str = ""
    rating: tuple[str, float] | None = None
    left_out: list[Fate] = field(default_factory=list)
    votes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


#: (name, category) → what makes two tags the same
Key = Callable[[str, str], str]


def plain_key(name: str, category: str) -> str:
    return tag_key(name)


class _Said(NamedTuple):
    """One tag with every channel that said it: its best word from each."""

    by: dict[str, Candidate]

    @property
    def best(self) -> Candidate:
        """The word that stands for it: the highest score, then by name, whatever the order of the channels."""
        return min(self.by.values(), key=_rank)

    @property
    def source(self) -> str:
        return ", ".join(sorted(self.by))

    def candidate(self, score: float | None) -> Candidate:
        best = self.best
        above = (
            best
            if best.ancestors or best.parent
            else next((c for c in sorted(self.by.values(), key=_rank) if c.ancestors or c.parent), best)
        )
        return Candidate(best.name, best.category, score, self.source, above.parent, above.ancestors)

    def left_out(self, score: float | None, reason: str) -> Fate:
        best = self.best
        return Fate(best.name, best.category, score, "dropped", reason, self.source, best.name)


def _rank(c: Candidate) -> tuple[Any, ...]:
    return (c.score is None, -(c.score or 0.0), c.name, c.category)


def sources(source: str) -> list[str]:
    """The channels that a tag's `source` names."""
    return [name for name in source.split(", ") if name]


def gather(outputs: Sequence[ChannelOutput], key: Key = plain_key) -> dict[str, _Said]:
    """All tags by what makes them the same, in the order they are first said."""
    found: dict[str, _Said] = {}
    for output in outputs:
        if not output.answered:
            continue
        for tag in output.tags:
            said = found.setdefault(key(tag.name, tag.category), _Said({}))
            other = said.by.get(output.name)
            if other is None or _rank(tag) < _rank(other):
                said.by[output.name] = tag
    return found


def combine(spec: CombineSpec, outputs: Sequence[ChannelOutput], *, key: Key = plain_key) -> Combined:
    """Apply a rule that needs no model (llm_merge: the weighted union that it falls back to).

    `outputs` in the order of the channels, those that failed or were not asked among them.
    """
    said = gather(outputs, key)
    answered = [o.name for o in outputs if o.answered]
    match spec.rule:
        case "intersection":
            combined = _voted(said, len(answered), len(answered))
        case "votes":
            combined = _voted(said, min(spec.votes, len(answered)), len(answered))
        case "weighted":
            combined = _weighted(spec, said, answered, spec.at_least)
        case "llm_merge":
            combined = _weighted(spec, said, answered, 0.0)
        case "priority":
            combined = _by_priority(spec, said, [o.name for o in outputs])
        case _:
            combined = _voted(said, 1, len(answered))
    combined.votes = {s.best.name: len(s.by) for s in said.values()}
    combined.caption = caption_of(spec, outputs)
    ratings = [o.rating for o in outputs if o.answered and o.rating]
    combined.rating = min(ratings, key=lambda r: (-r[1], r[0])) if ratings else None
    return combined


def caption_of(spec: CombineSpec, outputs: Sequence[ChannelOutput]) -> str:
    """The caption of the first channel that has one: those the rule names first, then all in their order."""
    by_name = {o.name: o.caption for o in outputs if o.answered and o.caption}
    return next((by_name[name] for name in (*spec.caption, *(o.name for o in outputs)) if name in by_name), "")


def _score(said: _Said) -> float | None:
    """The highest that any channel gave."""
    return said.best.score


def _sorted(tags: list[Candidate]) -> list[Candidate]:
    return sorted(tags, key=_rank)


def _voted(said: Mapping[str, _Said], needed: int, of: int) -> Combined:
    combined = Combined()
    for one in said.values():
        if len(one.by) >= needed:
            combined.tags.append(one.candidate(_score(one)))
        else:
            reason = f"said by {len(one.by)} of {of} channels, {needed} needed"
            combined.left_out.append(one.left_out(_score(one), reason))
    combined.tags = _sorted(combined.tags)
    return combined


def trust_in(spec: CombineSpec, channel: str, category: str) -> float:
    """1 where nothing is said."""
    own = spec.trust.get(channel, {})
    return own.get(category, own.get(ANY, 1.0))


def _weighted(spec: CombineSpec, said: Mapping[str, _Said], answered: Sequence[str], at_least: float) -> Combined:
    """Mean of the scores by trust, over all channels that answered: one that does not say a tag counts as 0."""
    combined = Combined()
    for one in said.values():
        category = one.best.category
        trust = {name: trust_in(spec, name, category) for name in sorted(answered)}
        total = sum(trust.values())
        scores = {name: spec.unscored if c.score is None else c.score for name, c in one.by.items()}
        score = sum(trust[name] * scores[name] for name in sorted(scores)) / total if total else 0.0
        score = min(1.0, score)
        if score <= 0.0 or score < at_least:
            reason = f"weighted {score:.2f}, below {at_least:.2f}" if score > 0 else "no trust in who says it"
            combined.left_out.append(one.left_out(_score(one), reason))
        else:
            combined.tags.append(one.candidate(score))
    combined.tags = _sorted(combined.tags)
    return combined


def _by_priority(spec: CombineSpec, said: Mapping[str, _Said], names: Sequence[str]) -> Combined:
    """For each category only the first of its channels that says anything of it."""
    heard: dict[str, set[str]] = {}
    for one in said.values():
        for name, tag in one.by.items():
            heard.setdefault(tag.category, set()).add(name)
    chosen: dict[str, set[str]] = {}
    for category, there in heard.items():
        order = spec.priority.get(category, spec.priority.get(ANY))
        first = next((name for name in order or () if name in there), None)
        chosen[category] = {first} if first else there if order is None else set()
    combined = Combined()
    for one in said.values():
        stays = {name: tag for name, tag in one.by.items() if name in chosen[tag.category]}
        if stays:
            best = _Said(stays)
            combined.tags.append(best.candidate(best.best.score)._replace(source=one.source))
            continue
        category = one.best.category
        first = ", ".join(n for n in names if n in chosen[category])
        reason = f"{category}: taken from {first}" if first else f"{category}: taken from no channel that says it"
        combined.left_out.append(one.left_out(_score(one), reason))
    combined.tags = _sorted(combined.tags)
    return combined


# -- cascade ----------------------------------------------------------------------------------------------------------
def sure(spec: CombineSpec, before: Sequence[ChannelOutput], last: bool, *, key: Key = plain_key) -> str:
    """Why the next channel of a cascade need not be asked, in a few words; empty: ask it.

    `before`: what the channels before it said. `last`: it is the last one. A channel that failed is unsure.
    """
    rule = spec.cascade
    if rule.by == "disagreement":
        return _agreed(rule, [o for o in before if o.answered], key) if last else ""
    asked = [o for o in before if o.state != "skipped"]
    if len(asked) < len(before):
        return f"{asked[-1].name} was sure" if asked else ""
    output = before[-1]
    if output.state == "error":
        return ""
    if rule.by == "count":
        n = len(gather([output], key))
        enough = n >= rule.fewer and (rule.more is None or n <= rule.more)
        return f"{output.name} has {n} tags" if enough else ""
    scores = sorted((tag.score for tag in output.tags if tag.score is not None), reverse=True)
    if not scores:
        return ""
    value = scores[0] if rule.by == "score" else scores[0] - (scores[1] if len(scores) > 1 else 0.0)
    what = "highest score" if rule.by == "score" else "margin"
    return f"{output.name}: {what} {value:.2f}, not below {rule.below:.2f}" if value >= rule.below else ""


def _agreed(rule: CascadeSpec, outputs: Sequence[ChannelOutput], key: Key) -> str:
    if len(outputs) < 2:
        return ""
    value = disagreement(outputs, key=key)
    return f"disagreement {value:.2f}, not above {rule.above:.2f}" if value <= rule.above else ""


def disagreement(outputs: Sequence[ChannelOutput], *, key: Key = plain_key) -> float:
    """1 minus the mean Jaccard index of each two channels' tags: 0 where all say the same (nothing at all, too)."""
    sets = [set(gather([o], key)) for o in outputs]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    if not pairs:
        return 0.0
    return 1.0 - sum(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs) / len(pairs)
