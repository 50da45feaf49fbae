"""The builder of recipes: channels, order, rule and policy, checked as they are set."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django_htmx.http import trigger_client_event

from ..actions.recipe_presets import PRESETS, preset
from ..models import Recipe
from .guard import Request, needs
from .recipe_form import RecipeForm, preset_data, recipe_data


@needs("curate", "GET", "HEAD", "POST")
def new(request: Request) -> HttpResponse:
    """The form; `?from=` begins with a recipe. Saving finds the recipe of this content or makes it."""
    if request.method == "POST":
        form = RecipeForm(request.POST, request.user)
        there = set(Recipe.objects.filter(key=form.draft.key).values_list("pk", flat=True)) if form.draft else set()
        saved = form.save()
        if saved is None:
            return _page(request, form, 422)
        text = "is there already" if saved.pk in there else "saved"
        messages.success(request, f"Recipe {saved.pk} {text}.")
        return redirect("tagging:recipe", saved.pk)
    begin = request.GET.get("from", "")
    data = recipe_data(get_object_or_404(Recipe, pk=int(begin[:18]))) if begin.isdecimal() else request.GET
    return _page(request, RecipeForm(data, request.user))


def _page(request: Request, form: RecipeForm, status: int = 200) -> HttpResponse:
    return render(request, "tagging/recipe_new.html", _context(form), status=status)


def _context(form: RecipeForm) -> dict[str, Any]:
    problems = form.problems
    return {
        "form": form,
        "presets": PRESETS,
        "problems": problems,
        "loose": [line for where, line in problems if where == "form"],
        "there": Recipe.objects.filter(key=form.draft.key).first() if form.draft else None,
    }


@needs("curate", "POST")
def form(request: Request) -> HttpResponse:
    """The form anew, with a channel more, one less, two in another order, or as a preset; what was typed stays."""
    data = request.POST.copy()
    verb, _, which = request.POST.get("do", "").partition("-")
    slots = data.getlist("slot")
    if verb == "add" and (free := RecipeForm(data, request.user).free):
        data.setlist("slot", [*slots, free])
        for name in [n for n in data if n.startswith((f"c{free}-", f"trust-{free}"))]:
            del data[name]
        rows = RecipeForm(data, request.user).adapters
        data[f"c{free}-adapter"] = rows[0].slug if rows else ""
    elif verb == "drop" and len(slots) > 1:
        data.setlist("slot", [s for s in slots if s != which])
    elif verb == "up" and which in slots[1:]:
        at = slots.index(which)
        slots[at - 1], slots[at] = slots[at], slots[at - 1]
        data.setlist("slot", slots)
    elif verb == "preset":
        try:
            data = preset_data(preset(data.get("preset", "")), request.user)
        except ValidationError:
            messages.warning(request, "Choose what to begin with.")
    return render(request, "tagging/recipe_new.html#form", _context(RecipeForm(data, request.user)))


@needs("curate", "POST")
def check(request: Request) -> HttpResponse:
    """What it would be saved as. The mistakes go to their fields as an event."""
    found = RecipeForm(request.POST, request.user)
    response = render(request, "tagging/recipe_new.html#check", _context(found))
    problems = [{"id": where, "message": line} for where, line in found.problems]
    return trigger_client_event(response, "recipe-problems", {"problems": problems, "names": found.names})
