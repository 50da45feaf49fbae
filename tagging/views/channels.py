"""The piece of a form that hangs on the chosen model, and the presets in it."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse, QueryDict
from django.shortcuts import render

from prompts.models import Prompt

from ..actions import presets
from ..models import OptionPreset
from .channelform import ChannelForm, refusals
from .guard import Request, needs

PIECE = "tagging/partials/channel_options.html"


@needs("curate")
def form(request: Request) -> HttpResponse:
    """The options of the model just chosen, or with the preset just chosen. What was typed before stays where it still
    applies."""
    keep = "keep" in request.GET  # only the prompt was changed: a preset that is named is not applied anew
    return _piece(request, _channel(request, request.GET, swapped=True, keep_typed=keep))


def _channel(request: Request, data: QueryDict, **more: Any) -> ChannelForm:
    """The form that the address means: its prefix, and the tasks whose prompts it offers."""
    tasks = [task for task in request.GET.get("tasks", "").split(",") if task in Prompt.Task.values]
    return ChannelForm(data, prefix=_prefix(request), tasks=tasks, by=request.user, **more)


def _prefix(request: Request) -> str:
    """Prefixes are ours, and end up in ids and selectors: nothing but letters, digits, - and _."""
    given = request.GET.get("prefix", "")
    if not all(c.isascii() and (c.isalnum() or c in "-_") for c in given):
        raise Http404("There is no such piece of a form.")
    return given


def _piece(request: Request, channel: ChannelForm) -> HttpResponse:
    return render(request, PIECE, {"channel": channel})


@needs("curate", "POST")
def act(request: Request, verb: str) -> HttpResponse:
    """save, change or delete a preset; the answer is the piece anew, with what was refused beside its field."""
    match verb:
        case "save":
            return _save(request)
        case "change":
            return _change(request)
        case "delete":
            return _delete(request)
    raise Http404(f"A preset cannot be told to {verb}.")


def _save(request: Request) -> HttpResponse:
    sent = _channel(request, request.POST, bound=True)
    if sent.adapter is None or sent.options is None:
        raise Http404("There is no such model.")
    if not sent.options.is_valid():
        sent.errors["preset_name"] = ["Not saved: correct the options that are marked."]
        return _piece(request, sent)
    code = type(sent.adapter.build())
    try:
        saved = presets.save_preset(
            sent.value("preset_name"),
            kind=sent.adapter.kind,
            values=presets.kept_values(code, sent.options.cleaned),
            owner=request.user,
            shared=bool(sent.value("preset_shared")),
            replace=True,
        )
    except ValidationError as e:
        sent.errors["preset_name"] = [line for lines in refusals(e).values() for line in lines]
        return _piece(request, sent)
    return _again(request, saved, f"Saved “{saved.name}”.")


def _chosen(request: Request) -> OptionPreset:
    prefix = _prefix(request)
    pk = request.POST.get(f"{prefix}preset", "")
    found = presets.visible(OptionPreset.objects.all(), request.user).filter(pk=pk).first() if pk.isdecimal() else None
    if found is None:
        raise Http404("There is no such preset.")
    return found


def _change(request: Request) -> HttpResponse:
    prefix, preset = _prefix(request), _chosen(request)
    name = request.POST.get(f"{prefix}preset_name", "")
    shared = bool(request.POST.get(f"{prefix}preset_shared"))
    try:
        presets.change_preset(preset, by=request.user, name=name, shared=shared)
    except ValidationError as e:
        channel = _channel(request, request.POST, swapped=True, keep_typed=True)
        channel.errors["preset_name"] = [line for lines in refusals(e).values() for line in lines]
        return _piece(request, channel)
    return _again(request, preset, f"Now called “{preset.name}”.")


def _delete(request: Request) -> HttpResponse:
    preset = _chosen(request)
    name = preset.name
    presets.delete_preset(preset, by=request.user)
    return _again(request, None, f"Deleted “{name}”; the options stay as they are here.")


def _again(request: Request, preset: OptionPreset | None, notice: str) -> HttpResponse:
    """The piece with what was typed, and with this preset chosen (None: with none)."""
    data: QueryDict = request.POST.copy()
    prefix = _prefix(request)
    data[f"{prefix}preset"] = str(preset.pk) if preset else ""
    data[f"{prefix}preset_name"] = ""
    channel = _channel(request, data, swapped=True, keep_typed=True)
    channel.notice = notice
    return _piece(request, channel)
