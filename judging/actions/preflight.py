"""Before an experiment is started: what it will ask, how long that takes, what it costs, what it can show at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from django.db.models import Avg, F, Q, Sum

from prompts.models import PromptVersion
from tagging.adapters.registry import UnknownAdapter
from tagging.models import (
    Channel,
    ChannelResult,
    Chunk,
    Collection,
    ImageAsset,
    ImageTag,
    ModelAdapter,
    Prediction,
    Proposal,
    Recipe,
    Run,
)

from .. import ranking
from ..grid import READ, Cell, Part
from ..images import choose, held_out
from . import cells as grids

#: Images whose stored answers are counted one by one; of more, the share among so many stands for all.
COUNTED = 2000
#: Runs and replies of the past from which pace and length are taken.
RECENT_RUNS, RECENT_REPLIES = 20, 300
#: prices are for so many tokens
PER = 1_000_000
_STEP = 500


@dataclass(slots=True)
class Planned:
    """One recipe: `known` of its cells are answered already, `to_run` are to be asked."""

    name: str
    known: int
    to_run: int
    seconds: float | None = None
    cost: float | None = None


@dataclass(slots=True)
class Preflight:
    """`cells` = recipes * images * samples. `seconds`, `cost` and `memory` (bytes) are None where nothing is known from
    the past; `unknown` names the models of which that is so. `detectable`: the smallest difference in F1 that the
    reviewed images show, None without any."""

    recipes: list[Planned]
    images: int
    reviewed: int
    held_out: int
    samples: int
    notices: list[str] = field(default_factory=list)
    seconds: float | None = None
    loads: int = 0
    cost: float | None = None
    currency: str = ""
    memory: int | None = None
    unknown: list[str] = field(default_factory=list)
    detectable: float | None = None

    @property
    def cells(self) -> int:
        return len(self.recipes) * self.images * self.samples

    @property
    def known(self) -> int:
        return sum(planned.known for planned in self.recipes)

    @property
    def to_run(self) -> int:
        return sum(planned.to_run for planned in self.recipes)


@dataclass(frozen=True, slots=True)
class Past:
    """What a model did before. `seconds` an image; tokens a reply; `price` of a million tokens (in, out, currency)."""

    seconds: float | None
    load: float
    tokens_in: float
    tokens_out: float
    price: tuple[float, float, str] | None
    memory: int | None
    queue: str


def preflight(
    collection: Collection,
    axes: Mapping[str, Any],
    *,
    base: str = "",
    filter: str = "",
    sample: int | None = None,
    seed: int = 0,
    holdout: float = 0.0,
    samples: int = 1,
    images: Sequence[tuple[int, str]] | None = None,
) -> Preflight:
    """Nothing is written. ValidationError as `create_experiment` raises it."""
    parsed = grids.axes_of(axes)
    grid, values = grids.grid_of(parsed, grids.find_base(base, collection))
    chosen = list(images) if images is not None else choose(collection, filter, sample=sample, seed=seed)
    names = grids.names_of(grid.cells, values)
    ids = [pk for pk, _ in chosen]
    adapters = {row.slug: row for row in ModelAdapter.objects.all()}
    answered = _Answered(ids, samples, adapters)
    found = Preflight(
        recipes=[],
        images=len(ids),
        reviewed=reviewed(ids),
        held_out=len(held_out(chosen, holdout)),
        samples=samples,
        notices=list(grid.notices),
    )
    past = {slug: _past(adapters[slug]) for slug in {p.adapter for c in grid.cells for p in c.parts} & adapters.keys()}
    asked: dict[str, int] = {}  # model → calls to make; a call that two recipes share is made once
    shared: set[str] = set()
    for cell, name in zip(grid.cells, names, strict=True):
        found.recipes.append(_planned(cell, name, answered, past, asked, shared, len(ids) * samples))
    _sums(found, past, asked, adapters)
    judged = found.reviewed * (len(ids) - found.held_out) // max(1, len(ids))
    found.detectable = round(ranking.detectable(judged), 4) if judged else None
    return found


def _planned(
    cell: Cell,
    name: str,
    answered: _Answered,
    past: Mapping[str, Past],
    asked: dict[str, int],
    shared: set[str],
    total: int,
) -> Planned:
    known, seconds, cost, sure = total, 0.0, 0.0, True
    for part in cell.parts:
        there = answered.count(part)
        known = min(known, there)
        call = answered.content(part)
        new = 0 if call in shared else total - there
        shared.add(call)
        asked[part.adapter] = asked.get(part.adapter, 0) + new
        before = past.get(part.adapter)
        if before is None or (before.seconds is None and new):
            sure = False
            continue
        seconds += new * (before.seconds or 0.0)
        if before.price:
            cost += new * (before.tokens_in * before.price[0] + before.tokens_out * before.price[1]) / PER
    return Planned(name, known, total - known, seconds if sure else None, cost or None)


def _sums(
    found: Preflight, past: Mapping[str, Past], asked: Mapping[str, int], adapters: Mapping[str, ModelAdapter]
) -> None:
    """Models on one queue wait for each other; the queues do not."""
    by_queue: dict[str, float] = {}
    cost, currencies, memory = 0.0, set(), []
    for slug, calls in asked.items():
        before = past.get(slug)
        if not calls or before is None:
            continue
        found.loads += before.queue == "gpu"
        if before.memory:
            memory.append(before.memory)
        if before.seconds is None:
            found.unknown.append(adapters[slug].label)
            continue
        by_queue[before.queue] = by_queue.get(before.queue, 0.0) + before.load + calls * before.seconds
        if before.price:
            cost += calls * (before.tokens_in * before.price[0] + before.tokens_out * before.price[1]) / PER
            currencies.add(before.price[2])
    if not found.unknown:
        found.seconds = max(by_queue.values(), default=0.0)
    if currencies:
        found.cost, found.currency = cost, " + ".join(sorted(currencies))
    found.memory = max(memory, default=None)


def reviewed(ids: Sequence[int]) -> int:
    """Images of which a person has spoken."""
    spoken: set[int] = set()
    for part in _parts(ids):
        decided = ImageTag.objects.decided_by_people().filter(image__in=part).values_list("image_id", flat=True)
        spoken.update(decided.distinct())
        images = ImageAsset.objects.filter(pk__in=part, review_state=ImageAsset.Review.REVIEWED)
        spoken.update(images.values_list("pk", flat=True))
    return len(spoken)


def _parts(ids: Iterable[int]) -> list[list[int]]:
    ordered = sorted(ids)
    return [ordered[at : at + _STEP] for at in range(0, len(ordered), _STEP)]


class _Answered:
    """How many of the cells are answered by predictions that are there: of any recipe with the same call, whatever its
    policy and thresholds."""

    def __init__(self, ids: Sequence[int], samples: int, adapters: Mapping[str, ModelAdapter]) -> None:
        self.ids, self.samples, self.adapters = ids, samples, adapters
        self.looked = ids[:COUNTED]
        self.prompts: dict[int, str] = {}
        self._known: dict[str, int] = {}

    def content(self, part: Part) -> str:
        """What is asked, as far as it can be known without the model: two parts of the same content share answers."""
        return json.dumps(
            [part.adapter, self._prompt(part.prompt), self._options(part.adapter, part.options), dict(part.variables)],
            sort_keys=True,
            default=str,
        )

    def _prompt(self, pk: int | None) -> str:
        if pk is None:
            return ""
        if pk not in self.prompts:
            self.prompts[pk] = PromptVersion.objects.filter(pk=pk).values_list("digest", flat=True).first() or ""
        return self.prompts[pk]

    def _options(self, slug: str, given: Mapping[str, Any]) -> dict[str, Any]:
        row, options = self.adapters.get(slug), dict(given)
        pixels = {READ: options.pop(READ, "original")}
        try:
            return {**(row.build().options(options).inference_dict() if row else options), **pixels}
        except (UnknownAdapter, LookupError, ValueError):
            return {**options, **pixels}

    def count(self, part: Part) -> int:
        """Of all images and samples."""
        call = self.content(part)
        if call not in self._known:
            there = sum(self._count(part, call, sample) for sample in range(self.samples))
            share = len(self.ids) / len(self.looked) if self.looked else 0
            self._known[call] = min(len(self.ids) * self.samples, round(there * share))
        return self._known[call]

    def _count(self, part: Part, call: str, sample: int) -> int:
        row = self.adapters.get(part.adapter)
        if row is None:
            return 0
        now = {"kind": row.kind, "source": row.source, "revision": row.revision, "quantization": row.quantization}
        single: list[int] = []
        several: list[tuple[int, int]] = []
        channels = Channel.objects.filter(adapter=row, role=Channel.Role.ASKED).annotate(
            digest=F("prompt_version__digest")
        )
        for channel in channels.select_related("recipe", "adapter"):
            config = channel.adapter_config
            if (channel.digest or "") != self._prompt(part.prompt) or any(config.get(k) != v for k, v in now.items()):
                continue
            if self.content(grids.part_of(channel)) == call:
                rule = channel.recipe.combine.get("rule", "single")
                if rule == "single":
                    single.append(channel.recipe_id)
                else:
                    several.append((channel.recipe_id, channel.position))
        return len(self._answered(single, several, sample))

    def _answered(self, single: Sequence[int], several: Sequence[tuple[int, int]], sample: int) -> set[int]:
        found: set[int] = set()
        runs = list(Run.objects.filter(recipe__in=single, sample=sample).values_list("pk", flat=True))
        stages = Q()
        for recipe, stage in several:
            mine = list(Run.objects.filter(recipe=recipe, sample=sample).values_list("pk", flat=True))
            stages |= Q(run__in=mine, stage=stage)
        for part in _parts(self.looked):
            if runs:
                rows = Proposal.objects.filter(run__in=runs, image__in=part, prediction__isnull=False)
                found.update(
                    rows.filter(prediction__image_sha256=F("image__sha256")).values_list("image_id", flat=True)
                )
            if stages:
                results = ChannelResult.objects.filter(stages, image__in=part, prediction__isnull=False)
                found.update(results.values_list("image_id", flat=True))
        return found


def _past(row: ModelAdapter) -> Past:
    """Pace, length and price of a model, from its last runs. A few queries."""
    runs = Run.objects.filter(recipe__channels__adapter=row).order_by("-pk").distinct()
    recent = list(runs.values_list("pk", "load_seconds")[:RECENT_RUNS])
    pks = [pk for pk, _ in recent]
    model = Channel.objects.filter(adapter=row).order_by("-pk").first()
    asked = Chunk.objects.filter(run__in=pks, n_ok__gt=0).order_by().values("run")
    paces = asked.annotate(s=Sum("seconds"), n=Sum(F("n_ok") + F("n_empty") - F("n_cached"))).values_list("s", "n")
    seconds = [s / n for s, n in paces if n and n > 0 and s > 0] if model else []
    loads = [load for _, load in recent if load is not None]
    replies = Prediction.objects.filter(run__in=pks).order_by("-pk").values("pk")[:RECENT_REPLIES]
    tokens = Prediction.objects.filter(pk__in=list(replies.values_list("pk", flat=True))).aggregate(
        i=Avg("tokens_in"), o=Avg("tokens_out")
    )
    memory, queue = None, "gpu"
    try:
        adapter = row.build()
        memory, queue = adapter.memory_needed(), adapter.capabilities.queue
    except (UnknownAdapter, LookupError, ValueError):
        pass
    return Past(
        seconds=median(seconds) if seconds else None,
        load=median(loads) if loads else 0.0,
        tokens_in=tokens["i"] or 0.0,
        tokens_out=tokens["o"] or 0.0,
        price=_price(row.options),
        memory=memory,
        queue=queue,
    )


def _price(options: Mapping[str, Any]) -> tuple[float, float, str] | None:
    """Of a million tokens sent and received, as the model's options say now; None without any."""
    sent, got = options.get("price_in"), options.get("price_out")
    return (float(sent or 0), float(got or 0), str(options.get("currency") or "")) if sent or got else None


def bases(collection: Collection) -> list[Recipe]:
    """Recipes that an experiment on the collection may start from: labelled ones first, then those of the last runs."""
    labelled = Recipe.objects.filter(
        Q(labels__collection=collection) | Q(labels__collection=None), labels__isnull=False
    )
    ran = Run.objects.listed().filter(collection=collection).order_by("-pk").values_list("recipe_id", flat=True)[:50]
    wanted = list(dict.fromkeys([*labelled.distinct().values_list("pk", flat=True), *ran]))[:30]
    there = Recipe.objects.prefetch_related("labels__adapter", "labels__collection").in_bulk(wanted)
    return [there[pk] for pk in wanted if pk in there]
