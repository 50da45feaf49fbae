"""/api/adapters: configured models, what they can do and whether they are ready."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from ..actions.listings import ask_for_models
from ..adapters import registry
from ..models import ModelAdapter, ModelListing
from .auth import allow
from .router import Router

router = Router(tags=["adapters"])


class ProblemOut(Schema):
    message: str
    mend: str
    fatal: bool


class KindOut(Schema):
    """An adapter: code for one model family."""

    key: str
    label: str
    capabilities: dict[str, Any] | None
    options_schema: dict[str, Any] | None = Field(description="JSON schema of the options.")
    problem: str = Field("", description="Why its code cannot be used.")


class AdapterOut(Schema):
    slug: str
    label: str
    kind: str
    source: str
    revision: str
    device: str
    quantization: str
    options: dict[str, Any]
    enabled: bool
    note: str
    last_error: str
    last_used_at: datetime | None
    capabilities: dict[str, Any] | None
    options_schema: dict[str, Any] | None
    problems: list[ProblemOut] = Field(description="Empty: ready, as far as can be told without loading it.")


class ServedModel(Schema):
    id: str
    sees: bool = Field(description="Takes pictures: the server's word, or a guess from the name.")
    note: str


class ListingOut(Schema):
    state: str = Field(description="asked, there or failed.")
    error: str
    models: list[ServedModel] = Field(description="Of the last answer; those that see pictures first.")
    asked_at: datetime
    answered_at: datetime | None


class AdapterIn(Schema):
    slug: str = Field(max_length=80)
    label: str = Field(max_length=120)
    kind: str = Field(description="Key of the adapter, see /api/adapters/kinds.")
    source: str = Field("", max_length=400, description="Hub id, local folder or endpoint address.")
    revision: str = Field("", max_length=80)
    device: str = "auto"
    quantization: str = "none"
    options: dict[str, Any] = {}
    enabled: bool = True
    note: str = ""

    model_config = {"extra": "forbid"}


class AdapterChange(Schema):
    label: str | None = Field(None, max_length=120)
    source: str | None = Field(None, max_length=400)
    revision: str | None = Field(None, max_length=80)
    device: str | None = None
    quantization: str | None = None
    options: dict[str, Any] | None = None
    enabled: bool | None = None
    note: str | None = None

    model_config = {"extra": "forbid"}


def _kind(key: str) -> KindOut:
    label = dict(registry.choices()).get(key, key)
    try:
        found = registry.adapter_class(key)
    except (LookupError, ImportError, TypeError) as e:  # the package that brought it is gone or broken
        return KindOut(key=key, label=label, capabilities=None, options_schema=None, problem=str(e))
    return KindOut(
        key=key,
        label=label,
        capabilities=found.capabilities.as_dict(),
        options_schema=found.Options.model_json_schema(),
        problem="",
    )


def _shown(row: ModelAdapter) -> dict[str, Any]:
    names = AdapterOut.model_fields.keys() - {"capabilities", "options_schema", "problems"}
    kind = _kind(row.kind)
    problems = [{"message": kind.problem, "mend": "Install the package that brings it.", "fatal": True}]
    if not kind.problem:
        try:
            problems = [{"message": p.message, "mend": p.mend, "fatal": p.fatal} for p in row.build().check()]
        except (OSError, ValueError) as e:
            problems = [{"message": str(e), "mend": "Correct its settings.", "fatal": True}]
    return {
        **{name: getattr(row, name) for name in names},
        "capabilities": kind.capabilities,
        "options_schema": kind.options_schema,
        "problems": problems,
    }


@router.get("", response=list[AdapterOut], summary="List adapters", operation_id="list_adapters")
def list_adapters(request: HttpRequest) -> object:
    """With their capabilities, the schema of their options, and what stands in their way. Loads no model."""
    allow(request, "read")
    return [_shown(row) for row in ModelAdapter.objects.all()]


@router.get("/kinds", response=list[KindOut], summary="Model families there is code for", operation_id="list_kinds")
def list_kinds(request: HttpRequest) -> object:
    allow(request, "read")
    return [_kind(key) for key, _ in registry.choices()]


@router.post("", response={201: AdapterOut}, summary="Configure a model", operation_id="create_adapter")
def create_adapter(request: HttpRequest, payload: AdapterIn) -> object:
    """Needs the role administrator."""
    allow(request, "administer", "write")
    row = ModelAdapter(**payload.dict())
    _check(row)
    row.full_clean()
    row.save()
    return Status(201, _shown(row))


@router.get("/{slug}", response=AdapterOut, summary="One adapter", operation_id="get_adapter")
def get_adapter(request: HttpRequest, slug: str) -> object:
    allow(request, "read")
    return _shown(_adapter(slug))


@router.patch("/{slug}", response=AdapterOut, summary="Change an adapter", operation_id="update_adapter")
def update_adapter(request: HttpRequest, slug: str, payload: AdapterChange) -> object:
    """What is left out stays; past recipes keep the settings they were made with. Needs the role administrator."""
    allow(request, "administer", "write")
    row = _adapter(slug)
    changes = payload.dict(exclude_unset=True)
    for name, value in changes.items():
        if value is None:
            raise ValidationError({name: "Give a value, or leave it out."})
        setattr(row, name, value)
    _check(row)
    row.full_clean()
    row.save(update_fields=list(changes) or None)
    return _shown(row)


@router.get("/{slug}/models", response=ListingOut, summary="Models of a server", operation_id="get_adapter_models")
def get_adapter_models(request: HttpRequest, slug: str) -> object:
    """What the server behind an endpoint said it has, when it was last asked. Needs the role curator."""
    allow(request, "curate", "read")
    row = _adapter(slug)
    found = ModelListing.objects.filter(adapter=row).first()
    if found is None:
        raise ModelListing.DoesNotExist(f"The server of {slug!r} was not asked yet: POST here.")
    return _listing(found)


@router.post(
    "/{slug}/models",
    response={202: ListingOut},
    summary="Ask a server for its models",
    operation_id="ask_adapter_models",
)
def ask_adapter_models(request: HttpRequest, slug: str) -> object:
    """A worker asks, for five seconds at most; look with GET. Needs the role administrator."""
    allow(request, "administer", "write")
    return Status(202, _listing(ask_for_models(_adapter(slug))))


def _listing(row: ModelListing) -> dict[str, Any]:
    lost = "No worker took it up: are they running?" if row.lost else ""
    return {
        "state": row.state,
        "error": row.error or lost,
        "models": row.found,
        "asked_at": row.asked_at,
        "answered_at": row.answered_at,
    }


def _check(row: ModelAdapter) -> None:
    """Device and quantization are what the adapter knows. ValidationError."""
    if row.kind not in registry.registered():
        raise ValidationError({"kind": f"No adapter {row.kind!r}; known: {', '.join(sorted(registry.registered()))}."})
    able = row.adapter_class.capabilities
    for name, known in (("device", able.devices), ("quantization", able.quantizations)):
        value = getattr(row, name)
        # "cuda" stands for any of the cards: cuda:1
        if value not in known and value.partition(":")[0] not in known:
            raise ValidationError({name: f"{value!r} is none of {', '.join(known)}."})


def _adapter(slug: str) -> ModelAdapter:
    row = ModelAdapter.objects.filter(slug=slug).first()
    if row is None:
        raise ModelAdapter.DoesNotExist(f"There is no adapter {slug!r}.")
    return row
