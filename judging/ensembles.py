"""What would these models score together? Rules over stored answers, with nothing asked again.

Members are recipes of one channel that an experiment compares. Their predictions go through the same combining and the
same policy as a run of several channels would send them: `policy.combine`, then the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError

from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.adapters.base import LabelSet, ModelUnavailable, PackedScores, Reply, ScoredTag
from tagging.engine.calls import Call
from tagging.engine.propose import Proposer, compiled_policy, propose_combined, stored_labels
from tagging.models import Channel, PolicyVersion, Proposal, Recipe
from tagging.policy import combine
from tagging.policy.combine import ChannelOutput, CombineError, CombineSpec, check_combine
from tagging.policy.pipeline import CompiledPolicy

from . import metrics, ranking
from .metrics import Said, Truth
from .metrics_loading import said_of, truth_of
from .models import Experiment, ExperimentRecipe, ExperimentRun

_STEP = 500
MOST = combine.MAX_CHANNELS
#: what is tried when no rule is named
USUAL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("union", {"rule": "union"}),
    ("intersection", {"rule": "intersection"}),
    ("votes", {"rule": "votes", "votes": 2}),
    ("weighted", {"rule": "weighted", "at_least": 0.3}),
    ("weighted by precision", {"rule": "weighted", "at_least": 0.3, "trust": "precision"}),
    ("cascade", {"rule": "union", "order": "cascade"}),
)


@dataclass(slots=True)
class Outcome:
    """One rule. `standing` is against the best single member; `adds`: row → F1 with all minus F1 without it;
    `asked`: row → share of the images on which it would be asked (below 1 in a cascade)."""

    name: str
    rule: dict[str, Any]
    values: dict[str, Any]
    standing: dict[str, Any] | None = None
    adds: dict[int, float | None] = field(default_factory=dict)
    asked: dict[int, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(slots=True)
class Together:
    """All rules over the same images, and the members by themselves. `best`: the row they are compared with."""

    images: int
    judged: int
    members: list[tuple[ExperimentRecipe, dict[str, Any]]]
    best: int | None
    outcomes: list[Outcome]


@dataclass(slots=True)
class _Member:
    row: ExperimentRecipe
    channel: Channel
    name: str
    proposer: Proposer
    outputs: dict[int, ChannelOutput] = field(default_factory=dict)  # place → what it said
    shown: dict[int, ChannelOutput] = field(default_factory=dict)  # the same without the policy's own thresholds


def together(
    experiment: Experiment,
    rows: Sequence[int],
    rules: Sequence[tuple[str, Mapping[str, Any]]] = USUAL,
    *,
    policy: PolicyVersion | None = None,
    ablate: bool = True,
) -> Together:
    """What the rules make of the members' stored answers to sample 0, in the order of `rows` (a cascade asks them so).

    `policy`: that of the first member when left out. A rule's trust may be "precision": each member's share of right
    tags by category, from these images. ValidationError under "rows" for fewer than two members, more than five, or
    recipes of several channels; under "policy"; a rule that cannot be used says so in its outcome.
    """
    members = _members(experiment, rows, policy)
    images = list(experiment.images)
    places = {pk: at for at, pk in enumerate(images)}
    for member in members:
        _answers(member, images, places)
    compiled = _policy(members, policy)
    within = [at for at in range(len(images)) if all(at in member.outputs for member in members)]
    runner = _Runner(members, compiled, within, images)
    singles = [runner.run({"rule": "single"}, [n])[0] for n in range(len(members))]
    held = experiment.held_out
    dev = np.zeros(len(images), bool)
    dev[[at for at in within if not (at < len(held) and held[at])]] = True
    # sizes of the vocabulary differ from rule to rule: all are resolved against one truth
    outcomes = [_outcome(runner, name, dict(rule)) for name, rule in rules]
    truth, said = runner.resolve()
    found = Together(int(dev.sum()), int((dev & truth.reviewed).sum()), [], None, [o for o, _ in outcomes])
    results = {key: metrics.measure(truth, one, dev) for key, one in said.items()}
    for n, member in enumerate(members):
        found.members.append((member.row, results[singles[n]].values))
    trusted = _trust(members, [results[key] for key in singles])
    for outcome, wanted in outcomes:
        if wanted == "precision":
            _retry(runner, outcome, trusted)
    if any(wanted for _, wanted in outcomes):
        truth, said = runner.resolve()
        results = {key: metrics.measure(truth, one, dev) for key, one in said.items()}
    best = max(range(len(members)), key=lambda n: (results[singles[n]].values["f1"] or -1.0, -n))
    found.best = members[best].row.pk
    _fill(found, runner, results, said, singles[best], dev & truth.reviewed, experiment)
    if ablate:
        _ablate(found, runner, members, dev)
    return found


def _members(experiment: Experiment, rows: Sequence[int], policy: PolicyVersion | None) -> list[_Member]:
    chosen = list(dict.fromkeys(rows))
    if not 2 <= len(chosen) <= MOST:
        raise ValidationError({"rows": f"Choose from 2 to {MOST} recipes."})
    there = experiment.rows.select_related("recipe__policy_version").in_bulk(chosen)
    found: list[_Member] = []
    for pk in chosen:
        if pk not in there:
            raise ValidationError({"rows": f"This experiment has no row {pk}."})
        row = there[pk]
        channels = list(
            Channel.objects.filter(recipe=row.recipe_id)
            .select_related("adapter", "prompt_version")
            .order_by("position")
        )
        if len(channels) != 1:
            raise ValidationError({"rows": f"{row} has several channels: choose recipes of one model each."})
        name = channels[0].adapter.slug
        taken = {member.name for member in found}
        n = 2
        while name in taken:
            name, n = f"{channels[0].adapter.slug}-{n}", n + 1
        version = policy or row.recipe.policy_version
        try:
            call = Call(
                channels[0].adapter.slug, channels[0].adapter.label, channels[0].adapter_config, channels[0].options
            )
            proposer = Proposer(call.adapter_class, call.options, compiled_policy(version.pk), source=name)
        except (ModelUnavailable, ValueError) as e:
            raise ValidationError({"rows": str(e)}) from None
        found.append(_Member(row, channels[0], name, proposer))
    return found


def _policy(members: Sequence[_Member], policy: PolicyVersion | None) -> CompiledPolicy:
    try:
        return compiled_policy((policy or members[0].row.recipe.policy_version).pk)
    except ValueError as e:
        raise ValidationError({"policy": str(e)}) from None


_FIELDS = (
    "image_id prediction__labels_id prediction__scores prediction__tags prediction__caption prediction__rating "
    "prediction__rating_score prediction__text"
).split()


def _answers(member: _Member, images: Sequence[int], places: Mapping[int, int]) -> None:
    """What the member said of each image, above its thresholds, from its stored predictions."""
    runs = list(ExperimentRun.objects.filter(row=member.row, sample=0).values_list("run_id", flat=True))
    ordered = sorted(images)
    for at in range(0, len(ordered), _STEP):
        rows = Proposal.objects.filter(run__in=runs, image__in=ordered[at : at + _STEP], prediction__isnull=False)
        for image, labels, scores, tags, caption, rating, value, text in (
            rows.exclude(state=Proposal.State.ERROR).order_by("run_id").values_list(*_FIELDS).iterator(chunk_size=500)
        ):
            reply = Reply(
                scores=PackedScores.from_bytes(bytes(scores)) if scores is not None else None,
                tags=tuple(ScoredTag(*tag) for tag in tags or ()),
                caption=caption or None,
                rating=(rating, value or 0.0) if rating else None,
                text=text or "",
            )
            known: LabelSet | None = stored_labels(labels) if labels else None
            member.outputs[places[image]] = member.proposer.output(reply, known)
            member.shown[places[image]] = member.proposer.output(reply, known, by_policy=False)


class _Runner:
    """Rules over outputs in memory; words are looked up for all of them at once."""

    def __init__(
        self, members: Sequence[_Member], policy: CompiledPolicy, within: Sequence[int], images: Sequence[int]
    ) -> None:
        self.members, self.policy, self.within, self.images = members, policy, within, images
        self.made: dict[str, list[tuple[int, list[str], list[float]]]] = {}
        self.asked: dict[str, list[int]] = {}

    def _key(self, name: str, category: str) -> str:
        return self.policy.words.of(name, category).key

    def run(self, rule: Mapping[str, Any], which: Sequence[int]) -> tuple[str, CombineSpec]:
        """(key of what was made, the rule). CombineError."""
        names = [self.members[n].name for n in which]
        spec = check_combine(rule if len(which) > 1 else {"rule": "single"}, names)
        key = f"{spec.model_dump_json()} {names}"
        if key not in self.made:
            asked = [0] * len(self.members)
            rows = []
            for at in self.within:
                outputs = self._outputs(spec, which, at, asked)
                proposed = propose_combined(self.policy, combine.combine(spec, outputs, key=self._key))
                rows.append(
                    (
                        at,
                        [fate.name for fate in proposed.kept],
                        [np.nan if fate.score is None else fate.score for fate in proposed.kept],
                    )
                )
            self.made[key], self.asked[key] = rows, asked
        return key, spec

    def _outputs(self, spec: CombineSpec, which: Sequence[int], at: int, asked: list[int]) -> list[ChannelOutput]:
        """A cascade is decided on as a run decides it: by what the models said, whatever the policy's thresholds."""
        found: list[ChannelOutput] = []
        before: list[ChannelOutput] = []
        for position, n in enumerate(which):
            member, why = self.members[n], ""
            if spec.order == "cascade" and position:
                why = combine.sure(spec, before, position == len(which) - 1, key=self._key)
            if why:
                skipped = ChannelOutput(member.name, state="skipped", note=why)
                found.append(skipped)
                before.append(skipped)
                continue
            asked[n] += 1
            found.append(member.outputs[at])
            before.append(member.shown[at])
        return found

    def resolve(self) -> tuple[Truth, dict[str, Said]]:
        """Everything that was made, as arrays against one truth."""
        truth, words = truth_of(
            self.images, (name for rows in self.made.values() for _, names, _ in rows for name in names)
        )
        return truth, {key: said_of(rows, len(self.images), words) for key, rows in self.made.items()}


def _outcome(runner: _Runner, name: str, rule: dict[str, Any]) -> tuple[Outcome, str]:
    wanted = str(rule.pop("trust")) if isinstance(rule.get("trust"), str) else ""
    outcome = Outcome(name, rule, {})
    _make(runner, outcome)
    return outcome, wanted


def _make(runner: _Runner, outcome: Outcome) -> None:
    everyone = range(len(runner.members))
    try:
        key, spec = runner.run(outcome.rule, list(everyone))
    except CombineError as e:
        outcome.problem = str(e)
        return
    outcome.rule = spec.stored()
    outcome.values["key"] = key
    n = max(1, len(runner.within))
    outcome.asked = {runner.members[i].row.pk: runner.asked[key][i] / n for i in everyone}


def _retry(runner: _Runner, outcome: Outcome, trust: dict[str, dict[str, float]]) -> None:
    """Again with what each member was found to be worth."""
    outcome.rule["trust"] = trust
    _make(runner, outcome)


def _trust(members: Sequence[_Member], results: Sequence[metrics.Result]) -> dict[str, dict[str, float]]:
    """Member → category → its precision there; * is that of all its tags."""
    found: dict[str, dict[str, float]] = {}
    for member, result in zip(members, results, strict=True):
        by = {name: v["precision"] for name, v in result.by_category.items() if v["precision"] is not None}
        by["*"] = result.values["precision"] if result.values["precision"] is not None else 0.5
        found[member.name] = {name: round(float(value), 3) for name, value in by.items()}
    return found


def _fill(
    found: Together,
    runner: _Runner,
    results: Mapping[str, metrics.Result],
    said: Mapping[str, Said],
    best: str,
    use: Any,
    experiment: Experiment,
) -> None:
    """The numbers of each rule, and its standing against the best member."""
    good = [o for o in found.outcomes if not o.problem]
    keys = [best, *(o.values["key"] for o in good)]
    pairs = [metrics.ratio("f1", results[key].counts, said[key]) for key in keys]
    num, den = np.stack([a[use] for a, _ in pairs]), np.stack([b[use] for _, b in pairs])
    standings: Sequence[ranking.Standing | None] = [None] * len(keys)
    if use.any() and (den.sum(axis=1) > 0).any():
        standings = ranking.compare(num, den, 0, seed=experiment.seed, margin=experiment.margin)
    for outcome, standing in zip(good, standings[1:], strict=True):
        outcome.values |= results[outcome.values["key"]].values
        outcome.standing = standing.as_dict() if standing else None


def _ablate(found: Together, runner: _Runner, members: Sequence[_Member], dev: Any) -> None:
    """What each member adds to each rule: F1 with all minus F1 without it."""
    without: dict[tuple[int, int], str] = {}
    for o, outcome in enumerate(found.outcomes):
        if outcome.problem:
            continue
        for n in range(len(members)):
            rest = [i for i in range(len(members)) if i != n]
            try:
                without[o, n], _ = runner.run(_without(outcome.rule, members[n].name, len(rest)), rest)
            except CombineError:
                continue
    truth, said = runner.resolve()
    scores: dict[str, float | None] = {}
    for key in set(without.values()):
        scores[key] = metrics.measure(truth, said[key], dev).values["f1"]
    for o, outcome in enumerate(found.outcomes):
        for n, member in enumerate(members):
            whole, rest_f1 = outcome.values.get("f1"), scores.get(without.get((o, n), ""))
            outcome.adds[member.row.pk] = None if whole is None or rest_f1 is None else round(whole - rest_f1, 4)


def _without(rule: Mapping[str, Any], name: str, left: int) -> dict[str, Any]:
    """The same rule for the others."""
    made = dict(rule)
    if "trust" in made:
        made["trust"] = {channel: by for channel, by in made["trust"].items() if channel != name}
    if made.get("rule") == "votes":
        made["votes"] = min(int(made.get("votes", 2)), left)
    if "priority" in made:
        made["priority"] = {c: [n for n in names if n != name] for c, names in made["priority"].items()}
    if "caption" in made:
        made["caption"] = [n for n in made["caption"] if n != name]
    return made


def save_recipe(
    experiment: Experiment,
    rows: Sequence[int],
    rule: Mapping[str, Any],
    *,
    policy: PolicyVersion | None = None,
    name: str = "",
    by: AbstractBaseUser | None = None,
) -> Recipe:
    """The members and the rule as a recipe that can be run, compared and promoted. ValidationError as `together` and
    `get_recipe` raise it."""
    members = _members(experiment, rows, policy)
    specs = [
        ChannelSpec(
            member.channel.adapter,
            member.channel.prompt_version,
            dict(member.channel.options),
            member.name,
            dict(member.channel.variables or {}),
            member.channel.adapter_config.get("read", "original"),
        )
        for member in members
    ]
    version = policy or members[0].row.recipe.policy_version
    title = name.strip() or f"{rule.get('rule', 'union')} of {' + '.join(m.name for m in members)}"
    return get_recipe(specs, combine=dict(rule), policy_version=version, name=title[:160], by=by)  # type: ignore[arg-type]


def lines(found: Together) -> Iterator[dict[str, Any]]:
    """JSON-ready: the members, then the rules, best first."""
    names = ("f1", "precision", "recall", "edits", "coverage", "tags_per_image", "unjudged")
    for row, values in found.members:
        yield {"row": row.pk, "name": row.name, **{name: values.get(name) for name in names}}
    for outcome in sorted(found.outcomes, key=lambda o: -(o.values.get("f1") or -1.0)):
        yield {
            "rule": outcome.rule,
            "name": outcome.name,
            "problem": outcome.problem,
            **{name: outcome.values.get(name) for name in names},
            "standing": outcome.standing,
            "adds": outcome.adds,
            "asked": outcome.asked,
        }
