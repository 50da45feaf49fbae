"""/api/policies: make and try rules; /api/recipes: make one; /api/recompute: apply rules to what was predicted.

The operations that only read are in `recipes`; those here join its routers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from prompts.models import PromptVersion

from ..actions import policies as actions
from ..actions import recompute as recomputing
from ..actions.previews import preview as preview_rules
from ..actions.recipe_presets import PRESETS
from ..actions.recipes import ChannelSpec, get_recipe
from ..actions.runs import NotNow
from ..models import ModelAdapter, Policy, PolicyVersion, RecomputeJob, Run
from ..policy.combine import CombineSpec
from ..policy.spec import PolicySpec
from .auth import allow
from .collections import collection_of
from .errors import Conflict, Problem
from .listing import Cursor, Limit, Listing, by_id
from .recipes import PolicyVersionOut, RecipeOut, policies, recipes
from .router import Router


class PolicyIn(Schema):
    slug: str
    name: str = ""
    note: str = ""

    model_config = {"extra": "forbid"}


class RulesIn(Schema):
    spec: dict[str, Any] = Field({}, description="As /api/policies/schema says; what is left out has its default.")
    wordlists: list[str] = Field([], description="slugs; the newest version of each is used.")

    model_config = {"extra": "forbid"}


class PolicyVersionIn(RulesIn):
    message: str = ""
    base: int | None = Field(None, description="Number of the version that was edited: refused when there is a newer.")


class PreviewIn(RulesIn):
    run: int
    limit: int = Field(500, ge=1, le=4000, description="How many images to look at.")


class TagChangeOut(Schema):
    what: Literal["dropped", "mapped", "added"]
    name: str
    to: str = Field(description="What it would be mapped to.")
    reason: str


class Example(Schema):
    image: int
    gained: list[str]
    lost: list[str]
    changes: list[TagChangeOut]
    caption: str = Field(description="The new caption where it changed.")


class PreviewOut(Schema):
    n_total: int = Field(description="Images of the run.")
    n_images: int = Field(description="Images that were looked at: the latest `limit`, or fewer in two seconds.")
    n_changed: int
    tags_before: int
    tags_after: int
    dropped: int = Field(description="Tags on images, summed; so are mapped and added.")
    mapped: int
    added: int
    gained: dict[str, int] = Field(description="Tag → on how many images it would be new.")
    lost: dict[str, int]
    examples: list[Example] = Field(description="Images that would change most.")
    problems: list[str] = Field(description="Patterns that took too long.")


class ChannelIn(Schema):
    adapter: str = Field(description="slug of an adapter.")
    prompt_version: int | None = Field(None, description="id, where the adapter takes a prompt.")
    options: dict[str, Any] = Field({}, description="Those left out take the adapter's own.")
    variables: dict[str, str | int | float | bool] = Field({}, description="Of the prompt's free variables.")
    name: str = Field("", description="What its tags name as their source; the adapter's slug when left out.")
    read: Literal["original", "proxy"] = "original"

    model_config = {"extra": "forbid"}


class RecipeIn(Schema):
    adapter: str | None = Field(None, description="For a single channel: slug of an adapter. Or `channels`.")
    prompt_version: int | None = Field(None, description="With `adapter`.")
    options: dict[str, Any] = Field({}, description="With `adapter`. Those left out take the adapter's own.")
    channels: list[ChannelIn] = Field([], max_length=5, description="One to five model calls.")
    combine: dict[str, Any] | None = Field(
        None,
        description="How several are asked and made into one, as /api/recipes/schema says; their union by default.",
    )
    merge: ChannelIn | None = Field(
        None, description="The merging model of the rule llm_merge; without a prompt it gets the one of iwtag."
    )
    policy: str | None = Field(None, description="slug; the newest version unless `policy_version` says another.")
    policy_version: int | None = Field(None, description="id.")
    name: str = Field("", max_length=160)

    model_config = {"extra": "forbid"}


class RecomputeIn(Schema):
    run: int
    policy: str = Field(description="slug of the policy.")
    version: int | None = Field(None, description="Number of an older version; the newest when left out.")
    combine: dict[str, Any] | None = Field(
        None, description="Another combine rule for what the channels of the run said; the recipe's own when left out."
    )

    model_config = {"extra": "forbid"}


class RecipePresetOut(Schema):
    slug: str
    title: str
    description: str
    channels: list[dict[str, Any]]
    merge: dict[str, Any] | None
    combine: dict[str, Any]
    policy: dict[str, Any] = Field(description="Rules that go with it: a policy's `spec`.")


class RecomputeOut(Schema):
    id: int
    run: int = Field(alias="run_id")
    policy: str
    combine: dict[str, Any] | None = Field(description="Where it is not the recipe's own.")
    state: str
    n_total: int
    n_done: int
    n_changed: int
    n_skipped: int
    tags_before: int
    tags_after: int
    gained: dict[str, int] = Field(description="Tag → on how many images it is new.")
    lost: dict[str, int]
    rate: float | None = Field(description="Images a second of work.")
    error: str
    created_at: datetime
    finished_at: datetime | None

    @staticmethod
    def resolve_policy(row: RecomputeJob) -> str:
        return str(row.policy_version)

    @staticmethod
    def resolve_rate(row: RecomputeJob) -> float | None:
        return row.n_done / row.seconds if row.seconds else None


class RecomputeList(Listing[RecomputeOut]):
    pass


def _policy(slug: str) -> Policy:
    found = Policy.objects.filter(slug=slug).first()
    if found is None:
        raise Policy.DoesNotExist(f"There is no policy {slug!r}.")
    return found


def _policy_version(slug: str, number: int | None) -> PolicyVersion:
    policy = Policy.objects.filter(slug=slug).first()
    if policy is None:
        raise ValidationError({"policy": f"There is no policy {slug!r}."})
    found = policy.current if number is None else policy.versions.filter(number=number).first()
    if found is None:
        raise ValidationError({"policy": f"The policy {slug!r} has no version {number or 'yet'}."})
    return found


def _run(run_id: int) -> Run:
    found = Run.objects.filter(pk=run_id).first()
    if found is None:
        raise ValidationError({"run": f"There is no run {run_id}."})
    return found


@policies.get("/schema", response=dict[str, Any], summary="Schema of the rules", operation_id="get_policy_schema")
def schema(request: HttpRequest) -> object:
    """The JSON schema of `spec`, with titles and defaults: forms are drawn from it."""
    allow(request, "read")
    return PolicySpec.model_json_schema()


@policies.post("", response={201: PolicyVersionOut}, summary="Make a policy", operation_id="create_policy")
def create_policy(request: HttpRequest, payload: PolicyIn) -> object:
    """With a first version that says nothing but the defaults."""
    by = allow(request, "curate", "write")
    policy = actions.create_policy(**payload.dict())
    return Status(201, actions.create_policy_version(policy, {}, message="The defaults", by=by))


@policies.post("/preview", response=PreviewOut, summary="What rules would change", operation_id="preview_policy")
def preview(request: HttpRequest, payload: PreviewIn) -> object:
    """Rules that are not saved, tried on what a run predicted. Nothing is written and no model runs."""
    allow(request, "curate", "write")
    lists = actions.current_versions(payload.wordlists)
    return preview_rules(_run(payload.run), payload.spec, lists, limit=payload.limit)


@policies.post(
    "/{slug}/versions", response={201: PolicyVersionOut}, summary="Save a version", operation_id="create_policy_version"
)
def create_version(request: HttpRequest, slug: str, payload: PolicyVersionIn) -> object:
    """The current version is answered where nothing changed."""
    by = allow(request, "curate", "write")
    policy = _policy(slug)
    lists = actions.current_versions(payload.wordlists)
    made = actions.create_policy_version(policy, payload.spec, lists, message=payload.message, base=payload.base, by=by)
    return Status(201, made)


@recipes.post("", response={201: RecipeOut}, summary="Make a recipe", operation_id="create_recipe")
def create_recipe(request: HttpRequest, payload: RecipeIn) -> object:
    """The recipe of exactly this content: the one there is already, or a new one."""
    by = allow(request, "curate", "write")
    if (payload.adapter is None) == (not payload.channels):
        raise ValidationError({"channels": "Name either channels or an adapter."})
    given = payload.channels
    if payload.adapter is not None:
        one = {"adapter": payload.adapter, "prompt_version": payload.prompt_version, "options": payload.options}
        given = [ChannelIn.model_validate(one)]
    elif payload.prompt_version is not None or payload.options:
        raise ValidationError({"channels": "A prompt and options belong to a channel here."})
    channels = [_channel_spec(channel) for channel in given]
    merge = _channel_spec(payload.merge) if payload.merge else None
    version = None
    if payload.policy_version is not None:
        version = PolicyVersion.objects.filter(pk=payload.policy_version).first()
        if version is None:
            raise ValidationError({"policy_version": f"There is no policy version {payload.policy_version}."})
    elif payload.policy is not None:
        version = _policy_version(payload.policy, None)
    found = get_recipe(channels, combine=payload.combine, merge=merge, policy_version=version, name=payload.name, by=by)
    return Status(201, found)


def _channel_spec(given: ChannelIn) -> ChannelSpec:
    adapter = ModelAdapter.objects.filter(slug=given.adapter).first()
    if adapter is None:
        raise ValidationError({"adapter": f"There is no adapter {given.adapter!r}."})
    prompt = None
    if given.prompt_version is not None:
        prompt = PromptVersion.objects.filter(pk=given.prompt_version).first()
        if prompt is None:
            raise ValidationError({"prompt_version": f"There is no prompt version {given.prompt_version}."})
    return ChannelSpec(adapter, prompt, given.options, given.name, given.variables, given.read)


@recipes.get("/schema", response=dict[str, Any], summary="Schema of combine rules", operation_id="get_combine_schema")
def combine_schema(request: HttpRequest) -> object:
    """The JSON schema of `combine`, with titles and defaults: forms are drawn from it."""
    allow(request, "read")
    return CombineSpec.model_json_schema()


@recipes.get(
    "/presets", response=list[RecipePresetOut], summary="Ready-made recipes", operation_id="list_recipe_presets"
)
def list_presets(request: HttpRequest) -> object:
    """Ways of combining models that people know from other tools: choose a model for each slot, then make a recipe."""
    allow(request, "read")
    return [preset.as_dict() for preset in PRESETS]


# -- recompute -------------------------------------------------------------------------------------------------------
recompute = Router(tags=["recompute"])


def _jobs() -> Any:
    return RecomputeJob.objects.select_related("policy_version__policy")


def _job(job_id: int) -> RecomputeJob:
    found = _jobs().filter(pk=job_id).first()
    if found is None:
        raise RecomputeJob.DoesNotExist(f"There is no recompute {job_id}.")
    return found


@recompute.get("", response=RecomputeList, summary="List recomputes", operation_id="list_recomputes")
def list_jobs(
    request: HttpRequest, collection: str = "", run: int | None = None, cursor: Cursor = "", limit: Limit = 20
) -> object:
    """Newest first."""
    allow(request, "read")
    rows = _jobs()
    if collection:
        rows = rows.filter(run__collection=collection_of(collection))
    return by_id(rows.filter(run=run) if run is not None else rows, cursor, limit)


@recompute.post(
    "", response={202: RecomputeOut, 409: Problem}, summary="Apply a policy to a run", operation_id="start_recompute"
)
def start(request: HttpRequest, payload: RecomputeIn) -> object:
    """In the background, with no inference. Old proposals are kept, reviewed tags are not touched."""
    by = allow(request, "curate", "run")
    version = _policy_version(payload.policy, payload.version)
    try:
        return Status(
            202, _job(recomputing.start_recompute(_run(payload.run), version, combine=payload.combine, by=by).pk)
        )
    except NotNow as error:
        raise Conflict(str(error)) from None


@recompute.get("/{int:job_id}", response=RecomputeOut, summary="One recompute", operation_id="get_recompute")
def get_job(request: HttpRequest, job_id: int) -> object:
    allow(request, "read")
    return _job(job_id)


@recompute.post(
    "/{int:job_id}/cancel",
    response={200: RecomputeOut, 409: Problem},
    summary="Stop a recompute",
    operation_id="cancel_recompute",
)
def cancel(request: HttpRequest, job_id: int) -> object:
    """What was recomputed stays."""
    allow(request, "curate", "run")
    job = _job(job_id)
    try:
        recomputing.cancel_recompute(job)
    except NotNow as error:
        raise Conflict(str(error)) from None
    return job
