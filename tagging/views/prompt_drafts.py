"""Drafts of prompts: saved while a person types."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone

from prompts import drafts
from prompts.models import Prompt, PromptDraft, PromptVersion

from .guard import Request, needs


@needs("curate", "POST")
def draft(request: Request, slug: str) -> HttpResponseBase:
    """Keep what was typed: JSON {revision, at}. 409 with the other window's text where it was saved there since."""
    prompt = get_object_or_404(Prompt.objects.listed(), slug=slug)

    def number(name: str) -> int:
        text = request.POST.get(name, "")
        return int(text[:18]) if text.isdecimal() else 0

    try:
        saved = drafts.save_draft(
            prompt,
            request.user,
            system=request.POST.get("system", ""),
            template=request.POST.get("template", ""),
            response_schema=request.POST.get("response_schema", ""),
            message=request.POST.get("message", ""),
            base=PromptVersion.objects.filter(pk=number("base")).first(),
            revision=number("revision"),
        )
    except ValidationError as error:
        return JsonResponse({"error": " ".join(error.messages)}, status=422)
    except drafts.DraftConflict as conflict:
        there = conflict.draft
        return JsonResponse({"conflict": _as_json(there) if there else None}, status=409)
    return JsonResponse({"revision": saved.revision, "at": _clock(saved)})


def _as_json(found: PromptDraft) -> dict[str, object]:
    return {
        "revision": found.revision,
        "at": _clock(found),
        "system": found.system,
        "template": found.template,
        "response_schema": found.response_schema,
    }


def _clock(found: PromptDraft) -> str:
    return f"{timezone.localtime(found.updated_at):%H:%M}"


@needs("curate", "POST")
def discard(request: Request, slug: str) -> HttpResponse:
    """Throw the draft away; the newest version is shown again."""
    prompt = get_object_or_404(Prompt.objects.listed(), slug=slug)
    drafts.discard_draft(prompt, request.user)
    return redirect("tagging:prompt", prompt.slug)
