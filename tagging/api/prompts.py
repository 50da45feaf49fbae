"""/api/prompts: prompts, their versions, and what is wrong with a text before it is saved."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import File, Form, Schema, Status, UploadedFile
from pydantic import Field

from prompts import actions
from prompts.files import MAX_BYTES, PromptFile, from_imageworks, read, write
from prompts.models import Prompt, PromptVersion, Wordlist
from prompts.rendering import VARIABLES, PromptError, TemplateProblem, check_template, free_variables
from prompts.taggui import from_taggui
from prompts.transfer import as_file, import_prompts

from .auth import allow
from .listing import Cursor, Limit, Listing, by_id
from .router import Router

router = Router(tags=["prompts"])
Task = Literal["tags", "caption", "merge", "judge", "pairwise"]


class PromptOut(Schema):
    slug: str
    name: str
    task: str
    families: list[str] = Field(description="Adapter kinds it is meant for; empty means any.")
    versions: int = Field(alias="n_versions", description="How many there are.")
    created_at: datetime


class PromptVersionOut(Schema):
    id: int = Field(description="What a run names as `prompt_version`.")
    number: int
    system: str
    template: str
    response_schema: dict[str, Any] | None
    message: str
    parent: int | None = Field(description="id of the version it was made from.")
    digest: str
    used_at: datetime | None = Field(description="When a run first used it; frozen from then on.")
    created_at: datetime

    @staticmethod
    def resolve_parent(row: PromptVersion) -> int | None:
        return row.parent_id


class PromptVersionList(Listing[PromptVersionOut]):
    pass


class PromptIn(Schema):
    slug: str
    name: str = ""
    task: Task = "tags"
    families: list[str] = []

    model_config = {"extra": "forbid"}


class PromptVersionIn(Schema):
    template: str = Field(description="Jinja2. Variables: image, exif, tags, caption, wordlist('slug'), max_tags.")
    system: str = ""
    response_schema: dict[str, Any] | None = None
    message: str = Field(description="What changed and why, in a line.")
    parent: int | None = Field(None, description="id of the version it was made from; the newest when left out.")

    model_config = {"extra": "forbid"}


class ForkIn(Schema):
    version: int = Field(description="id of the version to begin with.")
    slug: str = Field(description="Of the new prompt.")
    name: str = ""
    message: str = ""

    model_config = {"extra": "forbid"}


class TextIn(Schema):
    template: str
    system: str = ""
    form: Literal["ours", "taggui"] = Field("ours", description="taggui: {tags}, {name}, {directory} become ours.")

    model_config = {"extra": "forbid"}


class ImportedPromptOut(Schema):
    prompt: str
    id: int
    number: int
    new: bool = Field(description="False where the newest version says the same.")


class TemplateProblemOut(Schema):
    part: str
    line: int
    message: str


class CheckOut(Schema):
    problems: list[TemplateProblemOut] = Field(description="Empty when it can be saved.")
    system: str
    template: str
    variables: dict[str, Any] = Field(description="Free variables with their defaults.")


def _prompts() -> QuerySet[Prompt]:
    return Prompt.objects.listed().annotate(n_versions=Count("versions"))


def _prompt(slug: str) -> Prompt:
    found = _prompts().filter(slug=slug).first()
    if found is None:
        raise Prompt.DoesNotExist(f"There is no prompt {slug!r}.")
    return found


def _version(version_id: int) -> PromptVersion:
    found = PromptVersion.objects.select_related("prompt").filter(pk=version_id).first()
    if found is None:
        raise PromptVersion.DoesNotExist(f"There is no prompt version {version_id}.")
    return found


@router.get("", response=list[PromptOut], summary="List prompts", operation_id="list_prompts")
def list_prompts(request: HttpRequest, task: Task | None = None) -> object:
    allow(request, "read")
    return _prompts().filter(task=task) if task else _prompts()


@router.post("", response={201: PromptOut}, summary="Make a prompt", operation_id="create_prompt")
def create_prompt(request: HttpRequest, payload: PromptIn) -> object:
    """Without a text yet: add a version."""
    allow(request, "curate", "write")
    return Status(201, _prompt(actions.create_prompt(**payload.dict()).slug))


@router.post("/check", response=CheckOut, summary="Check a text", operation_id="check_prompt")
def check_prompt(request: HttpRequest, payload: TextIn) -> object:
    """Every mistake with its line, before it is saved. Nothing is written."""
    allow(request, "curate", "write")
    system, template = payload.system, payload.template
    if payload.form == "taggui":
        system, template = from_taggui(system), from_taggui(template)
    lists = set(Wordlist.objects.values_list("slug", flat=True))
    problems: list[TemplateProblem] = []
    for part, text in (("system", system), ("template", template)):
        problems += check_template(text, part=part, wordlists=lists)
    variables = {} if problems else {**free_variables(system), **free_variables(template)}
    found = [{"part": p.part, "line": p.line, "message": p.message} for p in problems]
    return {"problems": found, "system": system, "template": template, "variables": variables}


@router.post("/import", response={201: list[ImportedPromptOut]}, summary="Import files", operation_id="import_prompts")
def import_files(
    request: HttpRequest,
    files: File[list[UploadedFile]],
    form: Form[Literal["ours", "taggui", "imageworks"]] = "ours",
) -> object:
    """Files with front matter and template, or Imageworks profiles: new versions, all or nothing."""
    by = allow(request, "curate", "write")
    found: list[PromptFile] = []
    for sent in files:
        name = sent.name or "prompt"
        if (sent.size or 0) > MAX_BYTES:
            raise ValidationError({"files": f"{name}: larger than 1 MB."})
        try:
            text = sent.read().decode("utf-8-sig")
            found += from_imageworks(text) if form == "imageworks" else [read(text, name, taggui=form == "taggui")]
        except UnicodeDecodeError:
            raise ValidationError({"files": f"{name}: not UTF-8."}) from None
        except PromptError as error:
            raise ValidationError({"files": [f"{name}: {p}." for p in error.problems]}) from None
    saved = import_prompts(found, by=by)
    rows = [{"prompt": v.prompt.slug, "id": v.pk, "number": v.number, "new": new} for v, new in saved]
    return Status(201, rows)


@router.get(
    "/{slug}/export",
    response=None,
    summary="Export as a file",
    operation_id="export_prompt",
    openapi_extra={"responses": {200: {"description": "The file", "content": {"text/markdown": {}}}}},
)
def export_file(request: HttpRequest, slug: str, number: int | None = None) -> HttpResponse:
    """Front matter and template of the newest version, or of the one of that number."""
    allow(request, "read")
    versions = _prompt(slug).versions.select_related("prompt").order_by("-number")
    found = versions.first() if number is None else versions.filter(number=number).first()
    if found is None:
        raise PromptVersion.DoesNotExist(f"The prompt {slug!r} has no version {number or 'yet'}.")
    answer = HttpResponse(write(as_file(found)), content_type="text/markdown; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{slug}-v{found.number}.md"'
    return answer


@router.get("/variables", response=list[str], summary="Variables of templates", operation_id="list_prompt_variables")
def list_variables(request: HttpRequest) -> object:
    allow(request, "read")
    return list(VARIABLES)


@router.get(
    "/{slug}/versions", response=PromptVersionList, summary="Versions of a prompt", operation_id="list_prompt_versions"
)
def list_versions(request: HttpRequest, slug: str, cursor: Cursor = "", limit: Limit = 20) -> object:
    """Newest first. A version that a run used never changes."""
    allow(request, "read")
    return by_id(_prompt(slug).versions.all(), cursor, limit)


@router.post(
    "/{slug}/versions", response={201: PromptVersionOut}, summary="Save a version", operation_id="create_prompt_version"
)
def create_version(request: HttpRequest, slug: str, payload: PromptVersionIn) -> object:
    by = allow(request, "curate", "write")
    prompt = _prompt(slug)
    values = payload.dict(exclude={"parent"})
    parent = _version(payload.parent) if payload.parent is not None else None
    return Status(201, actions.create_version(prompt, parent=parent, by=by, **values))


@router.post("/fork", response={201: PromptOut}, summary="Fork a version", operation_id="fork_prompt")
def fork(request: HttpRequest, payload: ForkIn) -> object:
    """A new prompt that begins with a version of another one."""
    by = allow(request, "curate", "write")
    origin = _version(payload.version)
    made = actions.fork(origin, slug=payload.slug, name=payload.name, message=payload.message, by=by)
    return Status(201, _prompt(made.prompt.slug))
