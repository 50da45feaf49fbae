"""/api/presets: option values that were saved under a name."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from ..actions import presets
from ..models import ModelAdapter, OptionPreset
from .auth import allow
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

router = Router(tags=["presets"])


class PresetOut(Schema):
    id: int
    name: str
    kind: str = Field(description="The adapter's key: it fits every model of that kind.")
    adapter: str | None = Field(description="slug of the only model that it is for; else all of the kind.")
    values: dict[str, Any]
    owner: str | None
    shared: bool = Field(description="Everybody may use it.")
    created_at: datetime
    updated_at: datetime

    @staticmethod
    def resolve_adapter(row: OptionPreset) -> str | None:
        return row.adapter.slug if row.adapter else None

    @staticmethod
    def resolve_owner(row: OptionPreset) -> str | None:
        return row.owner.get_username() if row.owner else None


class PresetList(Listing[PresetOut]):
    pass


class PresetIn(Schema):
    name: str = Field(max_length=80)
    kind: str = Field("", description="Key of an adapter, see /api/adapters/kinds. Not needed with `adapter`.")
    adapter: str | None = Field(None, description="slug of a model: the preset is for that one only.")
    values: dict[str, Any] = Field(description="Options as the kind's schema has them; those left out stay free.")
    shared: bool = False

    model_config = {"extra": "forbid"}


class PresetChange(Schema):
    name: str | None = Field(None, max_length=80)
    values: dict[str, Any] | None = None
    shared: bool | None = None

    model_config = {"extra": "forbid"}


@router.get("", response=PresetList, summary="List presets", operation_id="list_presets")
def list_presets(
    request: HttpRequest, kind: str = "", adapter: str = "", cursor: Cursor = "", limit: Limit = 100
) -> object:
    """Your own and those that are shared, newest first; `adapter` keeps those that fit this model."""
    by = allow(request, "read")
    rows = presets.usable(_adapter(adapter), by) if adapter else presets.visible(OptionPreset.objects.all(), by)
    rows = rows.select_related("owner", "adapter")
    return by_id(rows.filter(kind=kind) if kind else rows, cursor, limit)


@router.post("", response={201: PresetOut}, summary="Save a preset", operation_id="create_preset")
def create_preset(request: HttpRequest, payload: PresetIn) -> object:
    """Needs the role curator. Options that only say how the work is done (time limits, prices) are left out."""
    by = allow(request, "curate", "write")
    adapter = _adapter(payload.adapter) if payload.adapter is not None else None
    kind = payload.kind or (adapter.kind if adapter else "")
    made = presets.save_preset(
        payload.name, kind=kind, values=payload.values, owner=by, adapter=adapter, shared=payload.shared
    )
    return Status(201, made)


@router.get("/{int:preset_id}", response=PresetOut, summary="One preset", operation_id="get_preset")
def get_preset(request: HttpRequest, preset_id: int) -> object:
    return preset_of(preset_id, allow(request, "read"))


@router.patch("/{int:preset_id}", response=PresetOut, summary="Change a preset", operation_id="update_preset")
def update_preset(request: HttpRequest, preset_id: int, payload: PresetChange) -> object:
    """Rename it, share it, give it other values; what is left out stays. Your own, or as an administrator."""
    by = allow(request, "curate", "write")
    row = preset_of(preset_id, by)
    return presets.change_preset(row, by=by, name=payload.name, shared=payload.shared, values=payload.values)


@router.delete("/{int:preset_id}", response={204: None}, summary="Delete a preset", operation_id="delete_preset")
def delete_preset(request: HttpRequest, preset_id: int) -> object:
    """Runs that were made with it keep their options."""
    by = allow(request, "curate", "write")
    presets.delete_preset(preset_of(preset_id, by), by=by)
    return Status(204, None)


def preset_of(pk: int, by: Any) -> OptionPreset:
    """Somebody else's private preset does not exist for others. DoesNotExist."""
    rows = presets.visible(OptionPreset.objects.select_related("owner", "adapter"), by)
    row = rows.filter(pk=pk).first()
    if row is None:
        raise OptionPreset.DoesNotExist(f"There is no preset {pk}.")
    return row


def _adapter(slug: str) -> ModelAdapter:
    row = ModelAdapter.objects.filter(slug=slug).first()
    if row is None:
        raise ValidationError({"adapter": f"There is no adapter {slug!r}."})
    return row
