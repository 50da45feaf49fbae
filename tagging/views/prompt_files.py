"""Prompts as files: in (front matter and template, zip, TagGUI, Imageworks) and out (one, or all as a zip)."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from prompts.files import ENDINGS, MAX_BYTES, PromptFile, read_files, write
from prompts.models import Prompt
from prompts.rendering import PromptError
from prompts.transfer import as_file, import_prompts

from .guard import Request, needs

MAX_ZIP = 20_000_000
FORMS = (
    ("ours", "Ours: front matter and template, or a plain text", ", ".join((*ENDINGS, ".zip"))),
    ("taggui", "TagGUI templates: {tags}, {name}, {directory}", "text files, .zip"),
    ("imageworks", "Imageworks prompt profile", ".json"),
)


@needs("curate", "GET", "HEAD", "POST")
def take(request: Request) -> HttpResponse:
    """Files, several at once or zipped: each is a new version of the prompt that it names, all or nothing."""
    errors: list[str] = []
    if request.method == "POST":
        form = request.POST.get("form", "ours")
        sent = [(f.name or "prompt", f.size or 0, f) for f in request.FILES.getlist("files")]
        text = request.POST.get("text", "").strip()
        try:
            data = [(name, _bytes(name, size, file)) for name, size, file in sent]
            if text:
                data.append((request.POST.get("name", "").strip() or "pasted", text.encode()))
            if not data:
                raise ValidationError({"files": "Choose files, or paste a text."})
            found = read_files(data, form)
            saved = import_prompts(found, by=request.user)
        except PromptError as error:
            errors = [f"{p}." for p in error.problems]
        except ValidationError as error:
            named = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
            errors = [f"{name}: {line}" if name != "files" else line for name, lines in named.items() for line in lines]
        else:
            fresh = [version for version, made in saved if made]
            old = len(saved) - len(fresh)
            names = ", ".join(str(version) for version in fresh[:8])
            if fresh:
                messages.success(request, f"Imported {names}{' and more' if len(fresh) > 8 else ''}.")
            if old:
                messages.info(request, f"{old} said what was there already: no new version.")
            one = saved[0][0].prompt if len(saved) == 1 else None
            return redirect("tagging:prompt", one.slug) if one else redirect("tagging:prompts")
    context = {"errors": errors, "forms": FORMS, "form": request.POST.get("form", "ours"), "values": request.POST}
    return render(request, "prompts/prompt_import.html", context, status=422 if errors else 200)


def _bytes(name: str, size: int, file: Any) -> bytes:
    if size > (MAX_ZIP if name.lower().endswith(".zip") else MAX_BYTES):
        raise ValidationError({"files": f"{name} is too large: 1 MB a text, 20 MB a zip."})
    return bytes(file.read())


@needs("read")
def file(request: Request, slug: str) -> HttpResponse:
    """One version as a file, the newest unless `?v=` names another."""
    row = get_object_or_404(Prompt.objects.listed(), slug=slug)
    number = request.GET.get("v", "")
    versions = row.versions.select_related("prompt").order_by("-number")
    wanted = versions.filter(number=int(number[:9])) if number.isdecimal() else versions
    version = wanted.first()
    if version is None:
        text = f"The prompt {slug} has no version {number or 'yet'}."
        return render(request, "tagging/bad_request.html", {"text": text}, status=404)
    answer = HttpResponse(write(as_file(version)), content_type="text/markdown; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{row.slug}-v{version.number}.md"'
    return answer


@needs("read")
def all_files(request: Request) -> HttpResponse:
    """The newest version of every prompt (or of those with `?task=`) as a zip that import takes back."""
    rows = Prompt.objects.listed()
    if task := request.GET.get("task", ""):
        rows = rows.filter(task=task)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            version = row.versions.select_related("prompt").order_by("-number").first()
            if version is not None:
                entry: PromptFile = as_file(version)
                archive.writestr(f"{row.slug}.md", write(entry))
    answer = HttpResponse(stream.getvalue(), content_type="application/zip")
    answer["Content-Disposition"] = 'attachment; filename="prompts.zip"'
    return answer
