"""Presets of options: save, change, delete. Values are checked when they are saved, and again when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from pydantic import ValidationError as OptionsError

from ..adapters import registry
from ..adapters.base import Adapter
from ..models import ModelAdapter, OptionPreset
from ..models.adapters import options_errors
from .access import may

LONGEST_NAME = 80


def usable(adapter: ModelAdapter, by: AbstractBaseUser | None) -> QuerySet[OptionPreset]:
    """The presets that fit this model and that this person may use, by name."""
    fitting = OptionPreset.objects.filter(kind=adapter.kind).filter(Q(adapter=None) | Q(adapter=adapter))
    return visible(fitting, by).select_related("owner").order_by("name", "pk")


def visible(presets: QuerySet[OptionPreset], by: AbstractBaseUser | None) -> QuerySet[OptionPreset]:
    """Of these, one's own, shared ones and those whose owner is gone."""
    return presets.filter(Q(shared=True) | Q(owner=None) | (Q(owner_id=by.pk) if by else Q(pk=None)))


def kept_values(code: type[Adapter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options, those that a preset keeps: not how the work is done (time limits, prices), not what is loaded and
    with which trust, not which model a server is asked for ("preset": False). A preset of one model must not turn
    another into it."""
    schema = code.Options.model_json_schema().get("properties", {})
    return {
        name: value
        for name, value in values.items()
        if name not in code.load_options
        and not schema.get(name, {}).get("operational")
        and schema.get(name, {}).get("preset", True)
    }


def save_preset(
    name: str,
    *,
    kind: str,
    values: Mapping[str, Any],
    owner: AbstractBaseUser,
    adapter: ModelAdapter | None = None,
    shared: bool = False,
    replace: bool = False,
) -> OptionPreset:
    """A preset of these values; `replace` overwrites one's own of the same name and kind.

    ValidationError keyed by name, kind or values.
    """
    name = _name(name)
    code = _code(kind)
    if adapter is not None and adapter.kind != kind:
        raise ValidationError({"adapter": f"{adapter.label} is of kind {adapter.kind!r}, not {kind!r}."})
    row = OptionPreset(
        name=name,
        kind=kind,
        adapter=adapter,
        owner_id=owner.pk,
        shared=shared,
        values=_checked(code, values),
    )
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        found = OptionPreset.objects.filter(kind=kind, owner_id=owner.pk, name=name).first()
        if found is None:
            raise
        if not replace:
            raise ValidationError({"name": f"You have a preset {name!r} for this kind of model already."}) from None
        found.values, found.shared, found.adapter = row.values, shared, adapter
        found.save(update_fields=["values", "shared", "adapter", "updated_at"])
        return found
    return row


def change_preset(
    preset: OptionPreset,
    *,
    by: AbstractBaseUser,
    name: str | None = None,
    shared: bool | None = None,
    values: Mapping[str, Any] | None = None,
) -> OptionPreset:
    """Rename it, share it, give it other values; what is None stays. PermissionDenied unless it is one's own;
    ValidationError as `save_preset`."""
    _own(preset, by)
    if name is not None:
        preset.name = _name(name)
    if shared is not None:
        preset.shared = shared
    if values is not None:
        preset.values = _checked(_code(preset.kind), values)
    try:
        with transaction.atomic():
            preset.save(update_fields=["name", "shared", "values", "updated_at"])
    except IntegrityError:
        raise ValidationError({"name": f"There is a preset {preset.name!r} for this kind of model already."}) from None
    return preset


def delete_preset(preset: OptionPreset, *, by: AbstractBaseUser) -> None:
    """Gone; runs and recipes that it was used for keep their values. PermissionDenied unless it is one's own."""
    _own(preset, by)
    preset.delete()


def apply_preset(adapter: ModelAdapter, preset: OptionPreset, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The preset's values with `given` over them, for a channel of this adapter.

    ValidationError under "preset" when it belongs to another kind or model, under "options" when the adapter does not
    take a value any more.
    """
    if preset.kind != adapter.kind or preset.adapter_id not in (None, adapter.pk):
        raise ValidationError({"preset": f"The preset {preset.name!r} is not one for {adapter.label}."})
    values = {**kept_values(adapter.adapter_class, preset.values), **(given or {})}
    try:
        adapter.adapter_class.Options.model_validate({**adapter.options, **values})
    except OptionsError as e:
        lines = [f"preset {preset.name!r}: {line}" for line in options_errors(e)]
        raise ValidationError({"options": lines}) from None
    return values


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME:
        raise ValidationError({"name": f"Give the preset a name of at most {LONGEST_NAME} characters."})
    return name


def _code(kind: str) -> type[Adapter]:
    try:
        return registry.adapter_class(kind)
    except (LookupError, ImportError, TypeError) as e:
        raise ValidationError({"kind": str(e)}) from None


def _checked(code: type[Adapter], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the options' own model writes them; only those given. ValidationError under "values"."""
    kept = kept_values(code, values)
    try:
        found = code.Options.model_validate(kept)
    except OptionsError as e:
        needed = [line for line, error in zip(options_errors(e), e.errors(), strict=True) if error["type"] != "missing"]
        if needed:
            raise ValidationError({"values": needed}) from None
        return dict(kept)
    return {name: value for name, value in found.model_dump(mode="json").items() if name in kept}


def may_change(preset: OptionPreset, by: AbstractBaseUser | None) -> bool:
    """One's own; an administrator may change all."""
    return by is not None and (preset.owner_id == by.pk or may(by, "administer"))


def _own(preset: OptionPreset, by: AbstractBaseUser) -> None:
    if not may_change(preset, by):
        raise PermissionDenied(f"The preset {preset.name!r} is {preset.owner or 'nobody'}'s: save one of your own.")
