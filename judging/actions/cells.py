"""Between the grid and the database: what models there are, a recipe as a cell, a cell as a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from pydantic import ValidationError as Invalid

from prompts.models import PromptVersion
from tagging.actions import labels
from tagging.actions.recipes import READ as SOURCES
from tagging.actions.recipes import ChannelSpec, get_recipe
from tagging.adapters.registry import UnknownAdapter
from tagging.models import Channel, Collection, ModelAdapter, PolicyVersion, Recipe
from tagging.models.adapters import options_errors

from ..grid import READ, Axes, Cell, Grid, GridError, Model, Part, differences, expand


def model_of(row: ModelAdapter) -> Model:
    """What the grid must know of an adapter row. UnknownAdapter when its package is gone."""
    cls = row.adapter_class
    own, sees = cls.Options.row_settings(), cls.capabilities.vision
    pixels = frozenset({READ}) if sees else frozenset()

    def effective(given: dict[str, Any]) -> dict[str, Any]:
        options = {name: value for name, value in given.items() if name != READ and name not in own}
        read = given.get(READ, SOURCES[0])
        if read not in SOURCES:
            raise GridError(f"{row.label}: {READ}: {read!r} is none of {' and '.join(SOURCES)}", "options")
        try:
            found = cls.Options.model_validate({**row.options, **options}).model_dump(mode="json", exclude=set(own))
        except Invalid as e:
            raise GridError(f"{row.label}: {'; '.join(options_errors(e))}", "options") from None
        return {**found, READ: read} if sees else found

    able, names = cls.capabilities, frozenset(cls.Options.model_fields) - own
    return Model(row.slug, row.label, row.kind, names | pixels, able.prompt, effective, able.own_prompt)


def option_names(row: ModelAdapter) -> list[str]:
    """What can be varied of a model, in the order of its options. UnknownAdapter."""
    names = model_of(row).options
    return [*(n for n in row.adapter_class.Options.model_fields if n in names), *({READ} & names)]


def part_of(channel: Channel) -> Part:
    """A channel as a part of a cell. Options that its model no longer knows are left out, and those that are its own
    business."""
    try:
        code = channel.adapter.adapter_class.Options
        known = code.model_fields.keys() - code.row_settings()
    except UnknownAdapter:
        known = set(channel.options)
    options = {name: value for name, value in channel.options.items() if name in known}
    if read := channel.adapter_config.get(READ):
        options[READ] = read
    return Part(channel.adapter.slug, channel.prompt_version_id, options, channel.name, dict(channel.variables or {}))


def models() -> dict[str, Model]:
    """All adapters that are switched on, by slug."""
    found = {}
    for row in ModelAdapter.objects.filter(enabled=True):
        try:
            found[row.slug] = model_of(row)
        except UnknownAdapter:
            continue
    return found


def cells_of(recipes: Iterable[Recipe]) -> dict[int, Cell]:
    """Recipe → the cell it is. Options that its model no longer knows are left out. One query."""
    given = list(recipes)
    parts: dict[int, list[Part]] = {recipe.pk: [] for recipe in given}
    rows = Channel.objects.filter(recipe__in=given, role=Channel.Role.ASKED).select_related("adapter")
    for channel in rows.order_by("recipe", "position"):
        parts[channel.recipe_id].append(part_of(channel))
    return {
        recipe.pk: Cell(tuple(parts[recipe.pk]), dict(recipe.combine), recipe.policy_version_id, recipe.pk)
        for recipe in given
    }


def find_base(reference: str, collection: Collection) -> Recipe | None:
    """The recipe that others are compared with: what `reference` names; without one the champion that applies to the
    collection, and None where there is none. ValidationError under "base"."""
    try:
        return labels.find_recipe(reference or "champion", collection=collection)
    except labels.UnknownLabel as e:
        if not reference:
            return None
        raise ValidationError({"base": str(e)}) from None


def axes_of(given: Mapping[str, Any]) -> Axes:
    """ValidationError keyed by the axis."""
    try:
        return Axes.model_validate(given)
    except Invalid as e:
        found: dict[str, list[str]] = {}
        for error in e.errors():
            name = str(error["loc"][0]) if error["loc"] else "axes"
            place = ".".join(map(str, error["loc"][1:]))
            text = error["msg"].removeprefix("Value error, ")
            found.setdefault(name, []).append(f"{place}: {text}" if place else text)
        raise ValidationError(found) from None


def grid_of(axes: Axes, base: Recipe | None) -> tuple[Grid, list[dict[str, Any]]]:
    """The cells, and what each is on the axes that vary. ValidationError keyed by the axis."""
    known = models()
    wanted = set(axes.recipes) | ({base.pk} if base else set())
    recipes = cells_of(Recipe.objects.filter(pk__in=wanted))
    try:
        grid = expand(axes, known, recipes[base.pk] if base else None, recipes)
        return grid, differences(grid.cells, known)
    except GridError as e:
        raise ValidationError({e.field: str(e)}) from None


def specs_of(
    cell: Cell, adapters: Mapping[str, ModelAdapter], prompts: Mapping[int, PromptVersion]
) -> list[ChannelSpec]:
    """ValidationError where a prompt version is gone."""
    found = []
    for part in cell.parts:
        if part.prompt is not None and part.prompt not in prompts:
            raise ValidationError({"prompts": f"There is no prompt version {part.prompt}."})
        prompt = prompts[part.prompt] if part.prompt is not None else None
        name = part.name if len(cell.parts) > 1 else ""
        options = dict(part.options)
        read = options.pop(READ, SOURCES[0])
        found.append(ChannelSpec(adapters[part.adapter], prompt, options, name, dict(part.variables), read))
    return found


def recipes_for(
    cells: Sequence[Cell], names: Sequence[str], *, by: AbstractBaseUser | None = None
) -> list[tuple[Recipe, str]]:
    """The recipe of each cell, made where there is none, with its name in the experiment. ValidationError."""
    adapters = {a.slug: a for a in ModelAdapter.objects.filter(slug__in={p.adapter for c in cells for p in c.parts})}
    wanted = {p.prompt for c in cells for p in c.parts if p.prompt is not None}
    prompts = {v.pk: v for v in PromptVersion.objects.filter(pk__in=wanted).select_related("prompt")}
    policies = PolicyVersion.objects.in_bulk({c.policy for c in cells if c.policy is not None})
    there = Recipe.objects.in_bulk({c.recipe for c in cells if c.recipe is not None})
    found = []
    for cell, name in zip(cells, names, strict=True):
        if cell.recipe is not None:
            found.append((there[cell.recipe], name))
            continue
        if cell.policy is not None and cell.policy not in policies:
            raise ValidationError({"policies": f"There is no policy version {cell.policy}."})
        policy = policies[cell.policy] if cell.policy is not None else None
        rule: dict[str, Any] = {"combine": dict(cell.combine)} if len(cell.parts) > 1 else {}
        specs = specs_of(cell, adapters, prompts)
        found.append((get_recipe(specs, policy_version=policy, name=name[:160], by=by, **rule), name))  # type: ignore[arg-type]
    return found


def names_of(cells: Sequence[Cell], values: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each cell is called: what it is on the axes that vary, in words. The base says that it is the base."""
    prompts = {p.prompt for c in cells for p in c.parts if p.prompt is not None}
    prompt_names = {v.pk: str(v) for v in PromptVersion.objects.filter(pk__in=prompts).select_related("prompt")}
    policies = {c.policy for c in cells if c.policy is not None}
    policy_names = {v.pk: str(v) for v in PolicyVersion.objects.filter(pk__in=policies).select_related("policy")}
    labels_of = dict(ModelAdapter.objects.values_list("slug", "label"))
    found = []
    for cell, value in zip(cells, values, strict=True):
        words = []
        for axis, chosen in value.items():
            if axis == "adapter":
                words.append(" + ".join(labels_of.get(part.adapter, part.adapter) for part in cell.parts))
            elif axis == "prompt":
                words.append(prompt_names.get(chosen, f"prompt {chosen}"))
            elif axis == "policy":
                words.append(policy_names.get(chosen, f"policy {chosen}"))
            elif axis == "combine":
                words.append("" if chosen == "single" else str(chosen))
            else:
                words.append(f"{axis} {_short(chosen)}")
        name = " · ".join(word for word in words if word)
        if not name:
            name = (
                " + ".join(labels_of.get(part.adapter, part.adapter) for part in cell.parts) or f"recipe {cell.recipe}"
            )
        found.append(name[:200])
    return _distinct(found)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
