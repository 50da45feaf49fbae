"""Words and trials: what a chip offers as operations, what a list would change, a text tried before it is saved.

These join the routers of wordlists and prompts.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Schema, Status
from pydantic import Field

from prompts.models import Prompt, Wordlist, WordlistVersion
from prompts.wordlists import WordlistError, parse_text

from ..actions import words as actions
from ..actions.lists import carry_on, current_policy_versions, lists_with, policy_in_force, restore
from ..actions.previews import Preview, preview, unsaved
from ..actions.recompute import start_recompute
from ..actions.runs import NotNow
from ..actions.trials import MOST_IMAGES, try_prompt
from ..models import ImageAsset, ModelAdapter, Policy, Run
from .auth import allow
from .errors import Conflict
from .policies import PreviewOut, RecomputeOut
from .prompts import router as prompts
from .router import Router
from .wordlists import VersionHead
from .wordlists import router as wordlists

words = Router(tags=["wordlists"])


class WordIn(Schema):
    word: str = Field(max_length=200)
    wordlist: str | None = Field(None, description="slug; without it the list that the policy uses, else a new one.")
    run: int | None = Field(None, description="Its policy is the one that counts; the default policy without it.")
    recompute: bool = Field(False, description="Also recompute that run.")

    model_config = {"extra": "forbid"}


class BanIn(WordIn):
    inside: bool = Field(False, description="Also where it is a part of other tags, and in captions.")


class WordAliasIn(WordIn):
    of: str = Field(max_length=200, description="The term it means; added where the list lacks it.")


class ReplaceIn(WordIn):
    by: str = Field(max_length=200, description="The word in its place; empty takes it out.")


class WordUndoIn(Schema):
    version: int = Field(description="id of the list's version that is to be taken back.")
    run: int | None = None
    recompute: bool = False

    model_config = {"extra": "forbid"}


class ListedWordOut(Schema):
    wordlist: str
    version: VersionHead
    changed: bool = Field(description="False where the list said that already.")
    policies: list[str] = Field(description="New versions of policies that use it.")
    recompute: RecomputeOut | None


def _list(slug: str | None) -> Wordlist | None:
    if slug is None:
        return None
    found = Wordlist.objects.filter(slug=slug).first()
    if found is None:
        raise ValidationError({"wordlist": f"There is no wordlist {slug!r}."})
    return found


def _run(number: int | None) -> Run | None:
    if number is None:
        return None
    found = Run.objects.select_related("recipe").filter(pk=number).first()
    if found is None:
        raise ValidationError({"run": f"There is no run {number}."})
    return found


def _done(change: actions.WordChange, run: Run | None, wanted: bool, by: Any) -> dict[str, Any]:
    job = None
    if wanted:
        if run is None:
            raise ValidationError({"run": "Name the run that is to be recomputed."})
        try:
            job = start_recompute(run, actions.policy_of(run), by=by)
        except NotNow as error:
            raise Conflict(f"{change.version} is saved, but: {error}") from None
    return {
        "wordlist": change.version.wordlist.slug,
        "version": change.version,
        "changed": change.changed,
        "policies": [str(version) for version in change.policies],
        "recompute": job,
    }


@words.post("/ban", response={201: ListedWordOut}, summary="Ban a word everywhere", operation_id="ban_word")
def ban(request: HttpRequest, payload: BanIn) -> object:
    """A new version of a banned list and of the policies that use it."""
    by, run = allow(request, "curate", "write"), _run(payload.run)
    found = actions.ban_everywhere(
        payload.word, inside=payload.inside, wordlist=_list(payload.wordlist), run=run, by=by
    )
    return Status(201, _done(found, run, payload.recompute, by))


@words.post("/vocabulary", response={201: ListedWordOut}, summary="Add a word to a vocabulary", operation_id="add_word")
def add(request: HttpRequest, payload: WordIn) -> object:
    by, run = allow(request, "curate", "write"), _run(payload.run)
    found = actions.add_to_vocabulary(payload.word, wordlist=_list(payload.wordlist), run=run, by=by)
    return Status(201, _done(found, run, payload.recompute, by))


@words.post("/alias", response={201: ListedWordOut}, summary="Make a word an alias", operation_id="alias_word")
def alias(request: HttpRequest, payload: WordAliasIn) -> object:
    by, run = allow(request, "curate", "write"), _run(payload.run)
    found = actions.make_alias(payload.word, payload.of, wordlist=_list(payload.wordlist), run=run, by=by)
    return Status(201, _done(found, run, payload.recompute, by))


@words.post("/replace", response={201: ListedWordOut}, summary="Replace a word", operation_id="replace_word")
def replace(request: HttpRequest, payload: ReplaceIn) -> object:
    by, run = allow(request, "curate", "write"), _run(payload.run)
    found = actions.replace_by(payload.word, payload.by, wordlist=_list(payload.wordlist), run=run, by=by)
    return Status(201, _done(found, run, payload.recompute, by))


@words.post("/undo", response={201: ListedWordOut}, summary="Take a word's change back", operation_id="undo_word")
def undo(request: HttpRequest, payload: WordUndoIn) -> object:
    """The words of the version before, as a new version; refused when a newer one was saved since."""
    by, run = allow(request, "curate", "write"), _run(payload.run)
    version = WordlistVersion.objects.select_related("wordlist").filter(pk=payload.version).first()
    if version is None:
        raise WordlistVersion.DoesNotExist(f"There is no wordlist version {payload.version}.")
    return Status(201, _done(actions.undo_word(version, by=by), run, payload.recompute, by))


# -- lists -------------------------------------------------------------------------------------------------------------
class ListPreviewIn(Schema):
    text: str = Field(description="The list as it would be, one entry a line.")
    run: int
    limit: int = Field(1000, ge=1, le=4000)

    model_config = {"extra": "forbid"}


class CarryIn(Schema):
    recompute: list[int] = Field([], description="Runs to recompute with it.")

    model_config = {"extra": "forbid"}


class CarryOut(Schema):
    policies: list[str] = Field(description="New versions of the policies that use the list.")
    recomputes: list[RecomputeOut]
    refused: list[str] = Field(description="What could not be done, and why.")


@wordlists.post(
    "/{slug}/preview", response=PreviewOut, summary="What a list would change", operation_id="preview_wordlist"
)
def preview_list(request: HttpRequest, slug: str, payload: ListPreviewIn) -> Preview:
    """The words tried on a run, with the newest version of its policy. Nothing is written and no model runs."""
    allow(request, "curate", "write")
    wordlist = _known(slug)
    run = _run(payload.run)
    assert run is not None
    try:
        entries = [entry.as_json() for entry in parse_text(payload.text, wordlist.kind)]
    except WordlistError as error:
        raise ValidationError({"text": [str(p) for p in error.problems[:100]]}) from None
    policy = current_policy_versions()[policy_in_force([run])[run.pk].policy_id]
    return preview(run, policy.spec, lists_with(policy, unsaved(wordlist, entries)), limit=payload.limit)


@wordlists.post(
    "/{slug}/apply", response={202: CarryOut}, summary="Carry a list on to its policies", operation_id="apply_wordlist"
)
def apply_list(request: HttpRequest, slug: str, payload: CarryIn) -> object:
    """New versions of the policies that use the list, with its newest words; and a recompute of the runs named."""
    by = allow(request, "curate", "run")
    wordlist = _known(slug)
    version = wordlist.current
    if version is None:
        raise WordlistVersion.DoesNotExist(f"The wordlist {slug!r} has no words yet.")
    runs = [run for number in payload.recompute if (run := _run(number)) is not None]
    done = carry_on(version, runs=runs, by=by)
    return Status(
        202,
        {"policies": [str(v) for v in done.policies], "recomputes": done.jobs, "refused": done.refused},
    )


@wordlists.post(
    "/{slug}/versions/{int:number}/restore",
    response={201: VersionHead},
    summary="Restore a version",
    operation_id="restore_wordlist_version",
)
def restore_list(request: HttpRequest, slug: str, number: int) -> object:
    """Its words become the newest version."""
    by = allow(request, "curate", "write")
    wordlist = _known(slug)
    if not wordlist.versions.filter(number=number).exists():
        raise WordlistVersion.DoesNotExist(f"The wordlist {slug!r} has no version {number}.")
    return Status(201, restore(wordlist, number, by=by))


def _known(slug: str) -> Wordlist:
    found = Wordlist.objects.filter(slug=slug).first()
    if found is None:
        raise Wordlist.DoesNotExist(f"There is no wordlist {slug!r}.")
    return found


# -- trials ------------------------------------------------------------------------------------------------------------
class TrialIn(Schema):
    template: str
    system: str = ""
    response_schema: dict[str, Any] | None = None
    adapter: str = Field(description="slug of a model.")
    images: list[int] = Field(description=f"ids, at most {MOST_IMAGES}.")
    options: dict[str, Any] = Field({}, description="Those left out take the model's own.")
    variables: dict[str, Any] = Field({}, description="Values of the text's free variables.")
    policy: str | None = Field(None, description="slug; the default policy without it.")
    sample: int = Field(0, ge=0, le=999)

    model_config = {"extra": "forbid"}


class TrialOut(Schema):
    run: int = Field(description="Ask /api/runs/{run} and /api/runs/{run}/proposals.")
    state: str


@prompts.post("/{slug}/try", response={202: TrialOut}, summary="Try a text on some images", operation_id="try_prompt")
def try_text(request: HttpRequest, slug: str, payload: TrialIn) -> object:
    """A hidden run of a text that need not be saved; ask /api/runs/{id}/proposals for what it says."""
    by = allow(request, "curate", "run")
    prompt = Prompt.objects.listed().filter(slug=slug).first()
    if prompt is None:
        raise Prompt.DoesNotExist(f"There is no prompt {slug!r}.")
    adapter = ModelAdapter.objects.filter(slug=payload.adapter, enabled=True).first()
    if adapter is None:
        raise ValidationError({"adapter": f"There is no adapter {payload.adapter!r}."})
    images = ImageAsset.objects.in_bulk(payload.images[: MOST_IMAGES + 1])
    if missing := [pk for pk in payload.images if pk not in images]:
        raise ValidationError({"images": f"There is no image {missing[0]}, or too many were named."})
    policy = None
    if payload.policy is not None:
        found = Policy.objects.filter(slug=payload.policy).first()
        if found is None:
            raise ValidationError({"policy": f"There is no policy {payload.policy!r}."})
        policy = found.current
    run = try_prompt(
        prompt,
        adapter,
        [images[pk] for pk in payload.images],
        template=payload.template,
        system=payload.system,
        response_schema=payload.response_schema,
        options={**adapter.options, **payload.options},
        variables=payload.variables,
        policy_version=policy,
        sample=payload.sample,
        by=by,
    )
    return Status(202, {"run": run.pk, "state": run.state})
