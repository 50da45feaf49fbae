"""Judge profiles: made, changed (a change is a new version), made ready from what comes with iwtag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from pydantic import ValidationError as OptionsError

from prompts.actions import create_prompt, create_version, freeze
from prompts.models import Prompt, PromptVersion
from prompts.rendering import free_variables
from tagging.models import ModelAdapter
from tagging.models.adapters import options_errors

from ..judges import builtin
from ..judges.content import digest
from ..judges.spec import ASKING, SpecError, check_spec
from ..models import JudgeProfile, JudgeProfileVersion

RUBRIC_LENGTH = 8000
MOST_EXAMPLES = 40
_TASKS = {"verifier": Prompt.Task.JUDGE, "caption": Prompt.Task.JUDGE, "pairwise": Prompt.Task.PAIRWISE}


def create_profile(*, slug: str, kind: str, name: str = "", note: str = "") -> JudgeProfile:
    """A judge without a version yet, switched off. ValidationError with the field's name."""
    profile = JudgeProfile(slug=slug, kind=kind, name=name or slug, note=note)
    profile.full_clean(exclude=["current"])
    profile.save()
    return profile


def save_version(
    profile: JudgeProfile,
    *,
    adapter: ModelAdapter | None = None,
    options: Mapping[str, Any] | None = None,
    prompt_version: PromptVersion | None = None,
    rubric: str = "",
    rules: Mapping[str, Any] | None = None,
    examples: Sequence[Mapping[str, Any]] = (),
    members: Iterable[JudgeProfileVersion] = (),
    message: str = "",
    by: AbstractBaseUser | None = None,
) -> JudgeProfileVersion:
    """The version with exactly this content, made current; a new one unless the profile had it before.

    ValidationError keyed by field: adapter, options, prompt, rubric, rules, examples, members.
    """
    jurors = list(members)
    fields = _checked(profile, adapter, options, prompt_version, rubric, rules, examples, jurors)
    content = {
        "profile": profile.slug,
        "kind": profile.kind,
        "adapter": {k: v for k, v in fields["adapter_config"].items() if k != "device"},
        "options": fields["options"],
        "prompt": prompt_version.digest if prompt_version else "",
        **{name: fields[name] for name in ("rubric", "rules", "examples")},
        "members": sorted(member.digest for member in jurors),
    }
    found = _versioned(profile, digest(content), fields, jurors, message[:200], by)
    JudgeProfile.objects.filter(pk=profile.pk).update(current=found)
    profile.current = found
    return found


def _versioned(
    profile: JudgeProfile,
    key: str,
    fields: dict[str, Any],
    jurors: list[JudgeProfileVersion],
    message: str,
    by: AbstractBaseUser | None,
) -> JudgeProfileVersion:
    """Two people may save at once: the second gets the next number, or the same version."""
    for attempt in range(5):
        known = JudgeProfileVersion.objects.filter(digest=key).first()
        if known is not None:
            return known
        last = profile.versions.order_by("-number").values_list("number", flat=True).first() or 0
        made = JudgeProfileVersion(
            profile=profile,
            number=last + 1,
            digest=key,
            message=message,
            created_by=by,  # type: ignore[misc]
            **fields,
        )
        try:
            with transaction.atomic():
                made.save()
                made.members.set(jurors)
                if made.prompt_version_id:
                    freeze([made.prompt_version_id])
            return made
        except IntegrityError:
            if attempt == 4:
                raise
    raise AssertionError("not reached")


def _checked(
    profile: JudgeProfile,
    adapter: ModelAdapter | None,
    options: Mapping[str, Any] | None,
    prompt: PromptVersion | None,
    rubric: str,
    rules: Mapping[str, Any] | None,
    examples: Sequence[Mapping[str, Any]],
    jurors: list[JudgeProfileVersion],
) -> dict[str, Any]:
    kind = profile.kind
    errors: dict[str, list[str]] = {}
    stored_rules: dict[str, Any] = {}
    try:
        stored_rules = check_spec(kind, dict(rules or {})).model_dump(mode="json")
    except SpecError as error:
        errors["rules"] = error.problems
    if len(rubric) > RUBRIC_LENGTH:
        errors["rubric"] = [f"At most {RUBRIC_LENGTH:,} characters."]
    if len(examples) > MOST_EXAMPLES:
        errors["examples"] = [f"At most {MOST_EXAMPLES} examples: judges read long lists badly."]
    asks = kind in ASKING
    if not asks and (adapter or prompt):
        errors["adapter"] = [f"A {profile.get_kind_display()} asks no model itself."]
    if prompt is not None and asks and (said := _prompt_problem(kind, prompt)):
        errors["prompt"] = [said]
    if kind == JudgeProfile.Kind.JURY:
        if said := _jury_problem(stored_rules, jurors):
            errors["members"] = [said]
    elif jurors:
        errors["members"] = ["Only a jury has members."]
    config, effective = _adapter(adapter, options, errors) if adapter and asks else ({}, {})
    if errors:
        raise ValidationError(errors)
    return {
        "adapter": adapter,
        "adapter_config": config,
        "options": effective,
        "prompt_version": prompt,
        "rubric": rubric.strip(),
        "rules": stored_rules,
        "examples": [dict(e) for e in examples],
    }


def _prompt_problem(kind: str, prompt: PromptVersion) -> str:
    wanted = _TASKS[kind]
    if prompt.prompt.task != wanted:
        return f"{prompt} is a prompt for {prompt.prompt.get_task_display()}; this judge takes one for {wanted.label}."
    if "items" not in free_variables(prompt.template):
        return f"{prompt} never writes what is to be judged: put {{{{ items | default('[]') }}}} into it."
    return ""


def _jury_problem(rules: Mapping[str, Any], jurors: list[JudgeProfileVersion]) -> str:
    of = rules.get("of", "verifier")
    if len(jurors) < 2:
        return "A jury has at least two members."
    if wrong := [str(j) for j in jurors if j.profile.kind != of]:
        return f"{', '.join(wrong)} judges something else: the members of this jury are of the kind {of}."
    if unready := [f"{j}: {j.ready}" for j in jurors if j.ready]:
        return " ".join(unready)
    if len({name for j in jurors for name in j.families()}) < 2:
        return "All members are of one family, which errs alike: add one of another family."
    return ""


def _adapter(
    adapter: ModelAdapter, options: Mapping[str, Any] | None, errors: dict[str, list[str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        built = adapter.build()
        effective = adapter.run_options(options)
    except LookupError as error:
        errors["adapter"] = [str(error)]
        return {}, {}
    except OptionsError as error:
        errors["options"] = options_errors(error)
        return {}, {}
    except ValidationError as error:
        errors |= error.message_dict
        return {}, {}
    if not built.capabilities.prompt:
        errors["adapter"] = [f"{adapter.label} takes no prompt, so it cannot judge: choose a language model."]
    config = {name: getattr(adapter, name) for name in ("kind", "source", "revision", "device", "quantization")}
    return config, effective


def change(
    profile: JudgeProfile, *, by: AbstractBaseUser | None = None, message: str = "", **fields: Any
) -> JudgeProfileVersion:
    """A new version that differs from the current one in the given fields of `save_version`. ValidationError."""
    now = profile.current
    kept: dict[str, Any] = {}
    if now is not None:
        kept = {
            "adapter": now.adapter,
            "options": now.options,
            "prompt_version": now.prompt_version,
            "rubric": now.rubric,
            "rules": now.rules,
            "examples": now.examples,
            "members": list(now.members.all()),
        }
    if "adapter" in fields and (now is None or fields["adapter"] != now.adapter) and "options" not in fields:
        kept["options"] = {}
    return save_version(profile, by=by, message=message, **{**kept, **fields})


def set_enabled(profile: JudgeProfile, enabled: bool) -> None:
    """Switch a judge on or off. ValidationError with what it lacks."""
    if enabled:
        lacks = profile.current.ready if profile.current else "It has no version yet."
        if lacks:
            raise ValidationError({"enabled": lacks})
    JudgeProfile.objects.filter(pk=profile.pk).update(enabled=enabled)
    profile.enabled = enabled


def make_ready(by: User | None = None) -> list[JudgeProfile]:
    """The judges that come with iwtag, with their prompts, where they are missing; those that ask a model stay switched
    off until one is chosen. Those that were made. What people changed or deleted the prompt of is left alone."""
    made = []
    for given in builtin.PROFILES:
        if JudgeProfile.objects.filter(slug=given.slug).exists():
            continue
        with transaction.atomic():
            prompt = _builtin_prompt(given, by) if given.template else None
            profile = create_profile(slug=given.slug, kind=given.kind, name=given.name)
            save_version(
                profile,
                prompt_version=prompt,
                rubric=given.rubric,
                rules=given.rules,
                message="As it comes with iwtag",
                by=by,
            )
            if given.kind == JudgeProfile.Kind.RULES:
                set_enabled(profile, True)
        made.append(profile)
    return made


def _builtin_prompt(given: builtin.BuiltIn, by: User | None) -> PromptVersion:
    """The prompt as it comes with iwtag: the version with that text, made where there is none."""
    slug = f"judge-{given.slug}"
    prompt = Prompt.objects.filter(slug=slug).first()
    if prompt is None:
        prompt = create_prompt(slug=slug, name=given.name, task=given.task)
    known = prompt.versions.filter(system=given.system, template=given.template).first()
    return known or create_version(
        prompt, system=given.system, template=given.template, message="As it comes with iwtag", by=by
    )
