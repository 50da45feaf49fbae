"""/api/judges: who judges, how far each can be trusted, and where it disagrees with people."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from prompts.models import PromptVersion
from tagging import queue
from tagging.api.auth import allow
from tagging.api.listing import Cursor, Limit, Listing
from tagging.api.router import Router
from tagging.models import ImageTag, ModelAdapter

from ..actions import calibrating, inbox
from ..actions import judges as actions
from ..models import Calibration, JudgedTag, JudgeProfile, JudgeProfileVersion

router = Router(tags=["judges"])


class JudgeVersionOut(Schema):
    id: int
    number: int
    digest: str = Field(description="Names everything the judge is: model, options, prompt, rubric, rules, examples.")
    adapter: str | None
    options: dict[str, Any]
    prompt_version: int | None
    rubric: str
    rules: dict[str, Any]
    examples: list[dict[str, Any]]
    members: list[str] = Field(description="Of a jury: judges with their version.")
    families: list[str] = Field(description="Whose kin it is: it does not rank recipes of the same family.")
    message: str
    created_at: datetime

    @staticmethod
    def resolve_adapter(row: JudgeProfileVersion) -> str | None:
        return row.adapter.slug if row.adapter else None

    @staticmethod
    def resolve_prompt_version(row: JudgeProfileVersion) -> int | None:
        return row.prompt_version_id

    @staticmethod
    def resolve_members(row: JudgeProfileVersion) -> list[str]:
        return [str(member) for member in row.members.all()]

    @staticmethod
    def resolve_families(row: JudgeProfileVersion) -> list[str]:
        return sorted(row.families())


class CalibrationOut(Schema):
    category: str = Field(description="Empty: all tags.")
    decisions: int
    images: int
    badge: str = Field(description="trusted, advisory or off.")
    why: str
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    matrix: dict[str, int] = Field(description='"wrong" is positive: caught, alarm, missed, agreed.')
    figures: dict[str, Any]
    at: datetime


class JudgeOut(Schema):
    slug: str
    name: str
    kind: str
    note: str
    enabled: bool
    lacks: str = Field(description="What it needs before it can be asked; empty when ready.")
    badge: str = Field(description="Of the current version: trusted, advisory or off.")
    version: JudgeVersionOut | None

    @staticmethod
    def resolve_lacks(row: JudgeProfile) -> str:
        return row.current.ready if row.current else "It has no version yet."

    @staticmethod
    def resolve_badge(row: JudgeProfile) -> str:
        return row.newest.badge if row.newest else Calibration.Badge.OFF

    @staticmethod
    def resolve_version(row: JudgeProfile) -> JudgeProfileVersion | None:
        return row.current


class JudgeDetail(JudgeOut):
    calibration: list[CalibrationOut] = Field(description="The newest figures: of all tags, then by category.")

    @staticmethod
    def resolve_calibration(row: JudgeProfile) -> list[Calibration]:
        return newest(row.current)


class ChangeIn(Schema):
    """What is left out stays as it is. Any change makes a new version."""

    adapter: str | None = Field(None, description="Slug of the model that judges.")
    options: dict[str, Any] | None = None
    prompt_version: int | None = Field(None, description="Of a prompt for judge or pairwise.")
    rubric: str | None = None
    rules: dict[str, Any] | None = Field(None, description="Decision rules of the kind; those left out: defaults.")
    members: list[str] | None = Field(None, description="Of a jury: slugs of judges; their current versions.")
    message: str = Field("", max_length=200)

    model_config = {"extra": "forbid"}


class JudgeIn(ChangeIn):
    slug: str = Field(max_length=80)
    kind: Literal["rules", "verifier", "caption", "pairwise", "jury"]
    name: str = Field("", max_length=120)
    note: str = ""


class SwitchIn(Schema):
    enabled: bool

    model_config = {"extra": "forbid"}


class DisagreementOut(Schema):
    id: int
    image: int
    path: str
    tag: str
    category: str
    judge: str = Field(description="What the judge said.")
    p_ok: float
    certainty: float
    evidence: str
    people: str = Field(description="accepted, added or rejected.")
    example: bool = Field(description="May become an example: not on an image kept to measure with.")


class DisagreementList(Listing[DisagreementOut]):
    pass


class AnswerIn(Schema):
    answer: Literal["judge", "person", "unclear"] = Field(
        description="Who was wrong. person: the decision is turned round, as one that can be undone."
    )
    note: str = Field("", max_length=300, description="Shown to the judge with the example.")

    model_config = {"extra": "forbid"}


class AnswerOut(Schema):
    id: int
    answer: str
    at: datetime


def judge_of(slug: str) -> JudgeProfile:
    """JudgeProfile.DoesNotExist, with a text that can be shown."""
    found = calibrating.with_badges(JudgeProfile.objects.filter(slug=slug))
    if not found:
        raise JudgeProfile.DoesNotExist(f"There is no judge {slug!r}.")
    return found[0]


def newest(version: JudgeProfileVersion | None) -> list[Calibration]:
    """The newest figures of a version: all tags first, then its categories, most decisions first."""
    whole = calibrating.latest(version) if version else None
    if whole is None:
        return []
    # the rows of one calibration were written together, one after the other
    parts = Calibration.objects.filter(version=version, pk__gt=whole.pk).exclude(category="")
    return [whole, *parts.order_by("-decisions", "category")[: calibrating.CATEGORIES]]


@router.get("", response=list[JudgeOut], summary="List judges", operation_id="list_judges")
def list_judges(request: HttpRequest) -> object:
    allow(request, "read")
    return calibrating.with_badges(JudgeProfile.objects.all())


@router.post("", response={201: JudgeDetail}, summary="Make a judge", operation_id="create_judge")
def create_judge(request: HttpRequest, payload: JudgeIn) -> object:
    """Switched off until you switch it on. Needs the role curator."""
    by = allow(request, "curate", "write")
    profile = actions.create_profile(slug=payload.slug, kind=payload.kind, name=payload.name, note=payload.note)
    try:
        actions.change(profile, by=by, message=payload.message, **_fields(payload))
    except ValidationError:
        profile.delete()
        raise
    return Status(201, judge_of(payload.slug))


@router.post(
    "/setup", response=list[JudgeOut], summary="Make the judges that come with iwtag", operation_id="setup_judges"
)
def setup_judges(request: HttpRequest) -> object:
    """Those that are missing, with their prompts; the answer names what was made. Needs the role curator."""
    by = allow(request, "curate", "write")
    return [judge_of(profile.slug) for profile in actions.make_ready(by)]


@router.get("/{slug}", response=JudgeDetail, summary="One judge with its calibration", operation_id="get_judge")
def get_judge(request: HttpRequest, slug: str) -> object:
    allow(request, "read")
    return judge_of(slug)


@router.post("/{slug}/versions", response={201: JudgeVersionOut}, summary="Change a judge", operation_id="change_judge")
def change_judge(request: HttpRequest, slug: str, payload: ChangeIn) -> object:
    """Makes a new version and makes it current; content that it had before is that version again. The badge begins
    anew. Needs the role curator."""
    by = allow(request, "curate", "write")
    return Status(201, actions.change(judge_of(slug), by=by, message=payload.message, **_fields(payload)))


@router.get(
    "/{slug}/versions", response=list[JudgeVersionOut], summary="Versions of a judge", operation_id="judge_versions"
)
def judge_versions(request: HttpRequest, slug: str) -> object:
    """Newest first, at most 100."""
    allow(request, "read")
    return judge_of(slug).versions.select_related("adapter", "profile")[:100]


@router.post("/{slug}/enabled", response=JudgeOut, summary="Switch a judge on or off", operation_id="switch_judge")
def switch_judge(request: HttpRequest, slug: str, payload: SwitchIn) -> object:
    """Needs the role curator."""
    allow(request, "curate", "write")
    actions.set_enabled(judge_of(slug), payload.enabled)
    return judge_of(slug)


@router.post(
    "/{slug}/calibrate",
    response={202: JudgeOut},
    summary="Compare a judge with people now",
    operation_id="calibrate_judge",
)
def calibrate_judge(request: HttpRequest, slug: str) -> object:
    """A worker does it; ask for the judge again. Needs the role reviewer."""
    allow(request, "review", "write")
    found = judge_of(slug)
    if found.current_id is None:
        raise ValidationError({"slug": f"{found.name} has no version yet."})
    queue.defer(calibrating.CALIBRATE, found.current_id)
    return Status(202, found)


@router.get(
    "/{slug}/disagreements",
    response=DisagreementList,
    summary="Where a judge and people disagree",
    operation_id="list_disagreements",
)
def list_disagreements(request: HttpRequest, slug: str, cursor: Cursor = "", limit: Limit = 50) -> object:
    """Those that nobody answered, the surest of the judge first."""
    allow(request, "read")
    found = judge_of(slug)
    if found.current is None:
        return {"items": [], "next_cursor": ""}
    rows, after = inbox.page(found.current, cursor, limit)
    return {"items": [_disagreement(row) for row in rows], "next_cursor": after}


@router.post(
    "/disagreements/{int:judged_id}",
    response={201: AnswerOut},
    summary="Say who was wrong",
    operation_id="answer_disagreement",
)
def answer_disagreement(request: HttpRequest, judged_id: int, payload: AnswerIn) -> object:
    """Needs the role reviewer."""
    by = allow(request, "review", "write")
    return Status(201, inbox.answer(judged_id, payload.answer, note=payload.note, by=by))


@router.post(
    "/{slug}/learn",
    response={201: JudgeVersionOut},
    summary="Give a judge its mistakes as examples",
    operation_id="judge_learn",
)
def judge_learn(request: HttpRequest, slug: str) -> object:
    """A new version with the answered mistakes as examples. Needs the role curator."""
    by = allow(request, "curate", "write")
    return Status(201, inbox.learn(judge_of(slug), by=by))


def _disagreement(row: JudgedTag) -> dict[str, Any]:
    from ..judges.statistics import in_holdout

    image = row.image
    assert image is not None
    return {
        "id": row.pk,
        "image": image.pk,
        "path": image.path,
        "tag": row.name,
        "category": row.category,
        "judge": row.get_word_display(),
        "p_ok": row.p_ok,
        "certainty": row.certainty,
        "evidence": row.evidence,
        "people": ImageTag.State(row.truth).label,  # type: ignore[attr-defined]
        "example": not in_holdout(image.sha256),
    }


def _fields(payload: ChangeIn) -> dict[str, Any]:
    """What was sent, as `actions.change` takes it. ValidationError keyed by the field."""
    sent = payload.model_dump(exclude_unset=True)
    found = {name: sent[name] for name in ("options", "rubric", "rules") if sent.get(name) is not None}
    if sent.get("adapter") is not None:
        found["adapter"] = _named(ModelAdapter, "adapter", slug=sent["adapter"])
    if sent.get("prompt_version") is not None:
        found["prompt_version"] = _named(PromptVersion, "prompt_version", pk=sent["prompt_version"])
    if sent.get("members") is not None:
        found["members"] = []
        for slug in sent["members"]:
            member = JudgeProfile.objects.select_related("current__profile").filter(slug=slug).first()
            if member is None or member.current is None:
                raise ValidationError({"members": f"There is no judge {slug!r} with a version."})
            found["members"].append(member.current)
    return found


def _named(model: Any, field: str, **by: Any) -> Any:
    found = model.objects.filter(**by).first()
    if found is None:
        raise ValidationError({field: f"There is no {model._meta.verbose_name} {next(iter(by.values()))!r}."})
    return found
