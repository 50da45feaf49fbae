"""Drafts: what a person typed and has not saved as a version yet. They are never run and never exported."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from .actions import TRIED
from .models import Prompt, PromptDraft, PromptVersion
from .rendering import MAX_TEMPLATE

MAX_SCHEMA = 100_000


class DraftConflict(Exception):
    """Another window saved this draft since. `draft` is what it holds now."""

    def __init__(self, draft: PromptDraft | None) -> None:
        self.draft = draft
        super().__init__("This draft was changed in another window.")


def draft_of(prompt: Prompt, owner: AbstractBaseUser) -> PromptDraft | None:
    return PromptDraft.objects.filter(prompt=prompt, owner_id=owner.pk).select_related("base__prompt").first()


def save_draft(
    prompt: Prompt,
    owner: AbstractBaseUser,
    *,
    system: str,
    template: str,
    response_schema: str = "",
    message: str = "",
    base: PromptVersion | None = None,
    revision: int = 0,
) -> PromptDraft:
    """Keep what was typed. `revision`: that of the draft the page has (0: it has none).

    DraftConflict when another window saved meanwhile; ValidationError keyed by field when it is too long.
    """
    for name, text, most in (
        ("system", system, MAX_TEMPLATE),
        ("template", template, MAX_TEMPLATE),
        ("response_schema", response_schema, MAX_SCHEMA),
    ):
        if len(text) > most:
            raise ValidationError({name: f"At most {most:,} characters: this draft is not kept."})
    values = {
        "system": system.replace("\r\n", "\n").replace("\x00", ""),
        "template": template.replace("\r\n", "\n").replace("\x00", ""),
        "response_schema": response_schema.replace("\x00", ""),
        "message": message[:200].replace("\x00", ""),
        "base": base,
    }
    if not revision:
        try:
            with transaction.atomic():
                return PromptDraft.objects.create(prompt=prompt, owner_id=owner.pk, **values)
        except IntegrityError:
            there = draft_of(prompt, owner)
            if there is not None and (there.system, there.template, there.response_schema) == (
                values["system"],
                values["template"],
                values["response_schema"],
            ):
                return there
            raise DraftConflict(there) from None
    mine = PromptDraft.objects.filter(prompt=prompt, owner_id=owner.pk, revision=revision)
    if not mine.update(revision=F("revision") + 1, updated_at=timezone.now(), **values):
        raise DraftConflict(draft_of(prompt, owner))
    found = draft_of(prompt, owner)
    if found is None:  # discarded at this very moment
        raise DraftConflict(None)
    return found


def discard_draft(prompt: Prompt, owner: AbstractBaseUser) -> bool:
    """Throw the draft away; whether there was one."""
    return bool(PromptDraft.objects.filter(prompt=prompt, owner_id=owner.pk).delete()[0])


def tried_version(
    prompt: Prompt, *, system: str, template: str, response_schema: dict[str, object] | None
) -> PromptVersion:
    """The version with exactly this text: one of the prompt's where there is one, else one of the hidden holder's.

    The text must have passed `actions.check_prompt`.
    """
    wanted = PromptVersion(prompt=prompt, system=system, template=template, response_schema=response_schema)
    hashed = wanted.compute_digest()
    saved = prompt.versions.filter(digest=hashed).order_by("-number").first()
    if saved is not None:
        return saved
    slug = f"{TRIED}-{prompt.task}"
    holder, _ = Prompt.objects.get_or_create(
        slug=slug,
        defaults={"name": f"Tried texts ({prompt.get_task_display()})"[:120], "task": prompt.task, "hidden": True},
    )
    found = PromptVersion.objects.filter(prompt=holder, digest=hashed).first()
    if found is not None:
        return found
    for attempt in range(5):
        made = PromptVersion(
            prompt=holder,
            system=system,
            template=template,
            response_schema=response_schema,
            message=f"Tried while editing {prompt.slug}"[:200],
            parent=prompt.versions.order_by("-number").first(),
        )
        try:
            with transaction.atomic():
                made.save()
            return made
        except IntegrityError:
            if attempt == 4:
                raise
    raise AssertionError("not reached")
