"""Prompts in from files and out to files, through the actions that everybody uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.db import transaction

from . import actions
from .files import PromptFile, write
from .models import Prompt, PromptVersion, digest


def import_prompts(
    files: Sequence[PromptFile], *, by: AbstractBaseUser | None = None
) -> list[tuple[PromptVersion, bool]]:
    """Each file as the newest version of its prompt: (version, whether it is new), all or nothing.

    A prompt that is not there is made; a version that says the same as the newest is not saved again. What a prompt is
    called and meant for stays as it is here. ValidationError keyed by slug.
    """
    with transaction.atomic():
        return [_import(file, by) for file in files]


def _import(file: PromptFile, by: AbstractBaseUser | None) -> tuple[PromptVersion, bool]:
    try:
        prompt = Prompt.objects.filter(slug=file.slug).first() or actions.create_prompt(
            slug=file.slug, name=file.name[:120], task=file.task, families=list(file.families)
        )
        newest = prompt.versions.order_by("-number").first()
        if newest and newest.digest == digest([file.system, file.template, file.response_schema]):
            return newest, False
        made = actions.create_version(
            prompt,
            system=file.system,
            template=file.template,
            response_schema=file.response_schema,
            message=file.message or f"Imported from {file.name}"[:200],
            by=by,
        )
    except ValidationError as error:
        raise ValidationError({file.slug: error.messages}) from None
    return made, True


def as_file(version: PromptVersion) -> PromptFile:
    """A version as the file that `import_prompts` takes back."""
    prompt = version.prompt
    return PromptFile(
        slug=prompt.slug,
        name=prompt.name,
        task=prompt.task,
        families=tuple(prompt.families),
        system=version.system,
        template=version.template,
        message=version.message,
        response_schema=version.response_schema,
    )


def export_prompts(prompts: Iterable[Prompt], folder: Path) -> list[Path]:
    """The newest version of each prompt as <slug>.md in the folder (made when missing), over files of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for prompt in prompts:
        version = prompt.versions.select_related("prompt").order_by("-number").first()
        if version is not None:
            path = folder / f"{prompt.slug}.md"
            path.write_text(write(as_file(version)), encoding="utf-8", newline="\n")
            written.append(path)
    return written
