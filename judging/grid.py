"""From axes to cells: which recipes an experiment compares. Pure: no database, no adapter code.

A cell is what a recipe will be: channels, combine rule, policy. Modes:

    around    the base recipe, and for each axis each of its values with all else as in the base (default: the only mode
              that answers "what did the temperature do?")
    product   every combination of the axes
    linked    the recipes that are named, nothing else

Options that a model does not have are left out; cells that become the same are one, and a notice says so.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_VALUES = 50
MAX_CELLS = 200
MAX_SAMPLES = 20

#: the name that the choice of pixels has among the options
READ = "read"

Value = bool | int | float | str | None


class GridError(ValueError):
    """The axes make no experiment. The text names the axis and the mend."""

    def __init__(self, message: str, field: str = "axes") -> None:
        super().__init__(message)
        self.field = field


class Exclusion(BaseModel):
    """Cells to leave out: those that match all that is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: str | None = None
    prompt: int | None = None
    policy: int | None = None
    rule: str | None = None
    options: dict[str, Value] = {}

    @model_validator(mode="after")
    def _says_something(self) -> Exclusion:
        if self.adapter is None and self.prompt is None and self.policy is None and not (self.rule or self.options):
            raise ValueError("An exclusion names an adapter, a prompt, a policy, a rule or options.")
        return self


class Axes(BaseModel):
    """What varies. Adapters by slug; prompt versions, policy versions and recipes by number."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["around", "product", "linked"] = "around"
    adapters: list[str] = Field([], description="Models, by slug.")
    prompts: list[int] = Field([], description="Prompt versions.")
    options: dict[str, list[Value]] = Field(
        {}, description='Option → values: a list, or "0:1:0.2" (start, end, step; the end is included).'
    )
    policies: list[int] = Field([], description="Policy versions.")
    combine: list[dict[str, Any]] = Field([], description="Rules that join the models into one recipe.")
    prompt_map: dict[str, list[int]] = Field({}, description="Model → the prompt versions to try with it.")
    exclude: list[Exclusion] = Field([], description="Combinations to leave out.")
    recipes: list[int] = Field([], description="Recipes that take part as they are.")

    @field_validator("options", mode="before")
    @classmethod
    def _ranges(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: parse_values(given, name) for name, given in value.items()}

    @property
    def empty(self) -> bool:
        return not any(
            (self.adapters, self.prompts, self.options, self.policies, self.combine, self.prompt_map, self.recipes)
        )


def parse_values(given: Any, name: str = "value") -> list[Value]:
    """ "0:1:0.2" → [0, 0.2, … 1], "0, 0.4" → [0, 0.4], a list as it is; one value as a list of it. ValueError."""
    if isinstance(given, str) and given.count(":") == 2:
        found: list[Value] = list(_range(given, name))
    elif isinstance(given, str):
        found = [_literal(part) for part in given.split(",") if part.strip()]
    elif isinstance(given, (list, tuple)):
        found = list(given)
    else:
        found = [given]
    if len(found) > MAX_VALUES:
        raise ValueError(f"{name}: {len(found)} values are too many; at most {MAX_VALUES}.")
    unique: dict[str, Value] = {json.dumps(v, default=str): v for v in found}
    return list(unique.values())


def _range(text: str, name: str) -> Iterator[Value]:
    try:
        start, end, step = (Decimal(part.strip()) for part in text.split(":"))
    except InvalidOperation:
        raise ValueError(f"{name}: {text!r} is no range: write start:end:step, as in 0:1:0.2.") from None
    if not (start.is_finite() and end.is_finite() and step.is_finite()) or step == 0 or (end - start) * step < 0:
        raise ValueError(f"{name}: {text!r} never gets from its start to its end.")
    n = int((end - start) / step) + 1
    if n > MAX_VALUES:
        raise ValueError(f"{name}: {text!r} has {n} values; at most {MAX_VALUES}: take a larger step.")
    whole = all(v == v.to_integral_value() for v in (start, step))
    for i in range(n):
        value = start + i * step
        yield int(value) if whole else float(value)


def _literal(text: str) -> Value:
    text = text.strip()
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float, str)) or value is None else text


# -- cells ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Model:
    """What the grid must know of an adapter row. `effective` fills the defaults in; ValueError names a bad option.

    Of a model that sees, READ is varied like an option: the pixels it gets, "original" or "proxy".
    """

    slug: str
    label: str
    kind: str
    options: frozenset[str]
    takes_prompt: bool
    effective: Callable[[dict[str, Any]], dict[str, Any]]
    own_prompt: bool = False  # it can be asked without one


@dataclass(frozen=True, slots=True)
class Part:
    """One channel of a cell. `options` are those set on purpose; the adapter's own fill the rest."""

    adapter: str
    prompt: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one recipe will be. `recipe`: it is that one, as it is."""

    parts: tuple[Part, ...] = ()
    combine: Mapping[str, Any] = field(default_factory=lambda: {"rule": "single"})
    policy: int | None = None
    recipe: int | None = None
    base: bool = False


@dataclass(slots=True)
class Grid:
    cells: list[Cell] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def expand(
    axes: Axes, models: Mapping[str, Model], base: Cell | None = None, recipes: Mapping[int, Cell] | None = None
) -> Grid:
    """The cells of the axes, the base first. `recipes`: those that `axes.recipes` names, as cells. GridError where
    there is nothing to compare or far too much."""
    recipes = recipes or {}
    for pk in axes.recipes:
        if pk not in recipes:
            raise GridError(f"There is no recipe {pk}.", "recipes")
    for slug in [*axes.adapters, *axes.prompt_map]:
        if slug not in models:
            raise GridError(f"There is no model {slug!r} that is switched on.", "adapters")
    maker = _Maker(axes, models, base)
    if axes.mode == "around":
        if base is None:
            raise GridError(
                "There is no base recipe to vary: name one, give a recipe the label champion, or take every "
                "combination.",
                "base",
            )
        cells: Iterable[Cell] = maker.around(base)
    elif axes.mode == "product":
        cells = maker.product()
    else:
        cells = ()
    named = (recipes[pk] for pk in axes.recipes)
    first = (replace(base, base=True),) if base is not None else ()
    grid = _unique(itertools.chain(first, cells, named), models, maker.notices)
    kept = [cell for cell in grid.cells if cell.base or not _excluded(cell, axes.exclude)]
    if left := len(grid.cells) - len(kept):
        grid.notices.append(f"{left} {'cell is' if left == 1 else 'cells are'} left out by exclusions.")
    grid.cells = kept
    if not kept:
        raise GridError("Nothing is left to compare: choose models, prompts or values.")
    return grid


class _Maker:
    def __init__(self, axes: Axes, models: Mapping[str, Model], base: Cell | None) -> None:
        self.axes, self.models, self.base = axes, models, base
        self.notices: list[str] = []

    def note(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    # -- around the base
    def around(self, base: Cell) -> Iterator[Cell]:
        if not base.parts:
            raise GridError("The base recipe cannot be varied: its models are not known here.", "base")
        base = replace(base, recipe=None)
        axes = self.axes
        for slug in axes.adapters:
            if slug != base.parts[0].adapter or len(base.parts) > 1:
                yield from self._other_model(base, slug)
        for slug, prompts in axes.prompt_map.items():
            for prompt in prompts:
                yield from self._other_model(base, slug, prompt)
        for prompt in axes.prompts:
            yield from self._other_prompt(base, prompt)
        for name, values in axes.options.items():
            if not any(name in self.models[p.adapter].options for p in base.parts if p.adapter in self.models):
                self.note(f"No model of the base recipe has the option {name!r}: it varies nothing.")
                continue
            for value in values:
                yield self._with_option(base, name, value)
        for policy in axes.policies:
            yield replace(base, policy=policy)
        for rule in axes.combine:
            if len(base.parts) < 2:
                self.note("The base recipe has one model: there is nothing to combine.")
                break
            yield replace(base, combine=rule)

    def _other_model(self, base: Cell, slug: str, prompt: int | None = None) -> Iterator[Cell]:
        model, old = self.models[slug], base.parts[0]
        same_kind = old.adapter in self.models and self.models[old.adapter].kind == model.kind
        options = {k: v for k, v in old.options.items() if k in model.options} if same_kind else {}
        if not same_kind and old.options:
            self.note(f"{model.label} is another kind of model than the base: it takes its own options.")
        for chosen in [prompt] if prompt is not None else self._prompts(model, old.prompt):
            yield replace(base, parts=(Part(slug, chosen, options),), combine={"rule": "single"})

    def _prompts(self, model: Model, wanted: int | None) -> list[int | None]:
        """The prompts to ask a model with, where the cell itself says none."""
        if not model.takes_prompt:
            if wanted is not None:
                self.note(f"{model.label} takes no prompt.")
            return [None]
        if mapped := self.axes.prompt_map.get(model.slug):
            return [mapped[0]]
        if wanted is None and self.axes.prompts:
            return [self.axes.prompts[0]]
        if wanted is None and model.own_prompt:
            return [None]
        if wanted is None:
            self.note(f"{model.label} needs a prompt and none is chosen: it is left out.")
            return []
        return [wanted]

    def _other_prompt(self, base: Cell, prompt: int) -> Iterator[Cell]:
        taking = {slug for slug, model in self.models.items() if model.takes_prompt}
        if not any(part.adapter in taking for part in base.parts):
            self.note("The base recipe takes no prompt: prompts vary nothing.")
            return
        parts = tuple(replace(p, prompt=prompt, variables={}) if p.adapter in taking else p for p in base.parts)
        yield replace(base, parts=parts)

    def _with_option(self, cell: Cell, name: str, value: Value) -> Cell:
        parts = tuple(
            replace(p, options={**p.options, name: value})
            if p.adapter in self.models and name in self.models[p.adapter].options
            else p
            for p in cell.parts
        )
        return replace(cell, parts=parts)

    # -- every combination
    def product(self) -> Iterator[Cell]:
        axes = self.axes
        slugs = axes.adapters or list(axes.prompt_map) or [p.adapter for p in (self.base.parts if self.base else ())]
        if not slugs:
            raise GridError("Choose at least one model.", "adapters")
        policies: Sequence[int | None] = axes.policies or [self.base.policy if self.base else None]
        combinations = [dict(zip(axes.options, values, strict=True)) for values in _products(axes.options.values())]
        sizes = len(slugs) * len(combinations) * len(policies) * max(1, len(axes.prompts))
        if sizes > 50 * MAX_CELLS:
            raise GridError(f"That is {sizes:,} combinations; vary fewer things at once.")
        for slug, options, policy in itertools.product(slugs, combinations, policies):
            model = self.models[slug]
            given = self._known(model, options)
            for prompt in self._all_prompts(model):
                yield Cell((Part(slug, prompt, {**self._base_options(slug), **given}),), policy=policy)
        for rule, options, policy in itertools.product(axes.combine, combinations, policies):
            yield from self._combined(slugs, rule, options, policy)

    def _known(self, model: Model, options: Mapping[str, Value]) -> dict[str, Value]:
        for name in options:
            if name not in model.options:
                self.note(f"{model.label} has no option {name!r}: its cells that differ only there are one.")
        return {name: value for name, value in options.items() if name in model.options}

    def _base_options(self, slug: str) -> Mapping[str, Any]:
        parts = self.base.parts if self.base else ()
        return next((p.options for p in parts if p.adapter == slug), {})

    def _all_prompts(self, model: Model) -> Sequence[int | None]:
        if not model.takes_prompt:
            if self.axes.prompts:
                self.note(f"{model.label} takes no prompt: its cells that differ only there are one.")
            return [None]
        if model.slug in self.axes.prompt_map:
            return self.axes.prompt_map[model.slug]
        if self.axes.prompts:
            return self.axes.prompts
        wanted = next((p.prompt for p in (self.base.parts if self.base else ()) if p.prompt), None)
        return self._prompts(model, wanted)

    def _combined(
        self, slugs: Sequence[str], rule: Mapping[str, Any], options: Mapping[str, Value], policy: int | None
    ) -> Iterator[Cell]:
        if rule.get("rule", "single") == "single":
            return
        if len(slugs) < 2:
            self.note("There is one model: there is nothing to combine.")
            return
        parts = []
        for slug in slugs:
            model = self.models[slug]
            prompts = self._all_prompts(model)
            if not prompts:
                return
            given = {k: v for k, v in options.items() if k in model.options}
            parts.append(Part(slug, prompts[0], {**self._base_options(slug), **given}, name=slug))
        yield Cell(tuple(parts), rule, policy)


def _products(values: Iterable[Sequence[Value]]) -> list[tuple[Value, ...]]:
    return list(itertools.product(*values))


def _unique(cells: Iterable[Cell], models: Mapping[str, Model], notices: list[str]) -> Grid:
    """Each cell once: two are the same when their effective options are."""
    grid = Grid(notices=list(notices))
    seen: dict[str, Cell] = {}
    total = 0
    for cell in cells:
        key = _content(cell, models)
        if key in seen and seen[key].base:  # an axis that names the base's own value: no surprise
            continue
        total += 1
        if key not in seen:
            seen[key] = cell
            if len(seen) > MAX_CELLS:
                raise GridError(f"More than {MAX_CELLS} recipes; vary fewer things at once.")
    grid.cells = list(seen.values())
    # notices are made while cells are drawn
    grid.notices += [text for text in notices if text not in grid.notices]
    if total > len(seen):
        grid.notices.append(f"{total} cells are {len(seen)} recipes: the others would have been the same.")
    return grid


def _content(cell: Cell, models: Mapping[str, Model]) -> str:
    if cell.recipe is not None and not cell.parts:
        return f"recipe {cell.recipe}"
    parts = []
    for part in cell.parts:
        options = dict(part.options)
        if part.adapter in models:
            options = models[part.adapter].effective(options)
        parts.append(
            [part.adapter, part.prompt, options, part.name if len(cell.parts) > 1 else "", dict(part.variables)]
        )
    return json.dumps([parts, dict(cell.combine), cell.policy], sort_keys=True, default=str)


def _excluded(cell: Cell, rules: Iterable[Exclusion]) -> bool:
    def hit(rule: Exclusion) -> bool:
        if rule.policy is not None and rule.policy != cell.policy:
            return False
        if rule.rule is not None and rule.rule != cell.combine.get("rule", "single"):
            return False
        return any(
            (rule.adapter is None or rule.adapter == part.adapter)
            and (rule.prompt is None or rule.prompt == part.prompt)
            and all(part.options.get(name) == value for name, value in rule.options.items())
            for part in cell.parts
        )

    return any(hit(rule) for rule in rules)


# -- what differs -----------------------------------------------------------------------------------------------------
def differences(cells: Sequence[Cell], models: Mapping[str, Model]) -> list[dict[str, Any]]:
    """For each cell its value on each axis on which not all cells are alike: adapter, prompt, policy, combine, and the
    options by name. An option that a cell's models do not have is left out of it; so is one that only follows from the
    choice of the model."""
    described = [_described(cell, models) for cell in cells]
    names = list(dict.fromkeys(name for one in described for name in one))
    varying = []
    for name in names:
        if name.startswith("option "):
            by_model: dict[Any, set[str]] = {}
            for one in described:
                if name in one:
                    by_model.setdefault(str(one["adapter"]), set()).add(json.dumps(one[name], default=str))
            if any(len(values) > 1 for values in by_model.values()):
                varying.append(name)
        elif len({json.dumps(one.get(name), default=str) for one in described}) > 1:
            varying.append(name)
    return [{n.removeprefix("option "): one[n] for n in varying if one.get(n) is not None} for one in described]


def _described(cell: Cell, models: Mapping[str, Model]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "adapter": " + ".join(part.adapter for part in cell.parts),
        "prompt": next((part.prompt for part in cell.parts if part.prompt is not None), None),
        "policy": cell.policy,
        "combine": cell.combine.get("rule", "single"),
    }
    for part in reversed(cell.parts):
        options = dict(part.options)
        if part.adapter in models:
            options = models[part.adapter].effective(options)
        found |= {f"option {name}": value for name, value in options.items()}
    return found
