"""The menu of a chip: ban a word, add it to a vocabulary, make it an alias, replace it; with what would change."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render

from prompts.models import Wordlist, WordlistVersion
from prompts.wordlists import check_entries

from ..actions import words as actions
from ..actions.lists import lists_with
from ..actions.previews import preview, unsaved
from ..actions.recompute import start_recompute
from ..actions.runs import NotNow
from ..models import ImageAsset, Run
from .guard import Request, needs
from .prompt_text import number_of
from .wordlists import pictures

#: verb → (button, what the word is asked for, what it does)
VERBS: dict[str, tuple[str, str, str]] = {
    "ban": ("Ban everywhere", "", "It never comes out again."),
    "vocabulary": ("Add to vocabulary", "", "It becomes a word that you want, spelled like this."),
    "alias": ("Make alias of…", "The term it means", "It is another name of a term, which is written instead."),
    "replace": ("Replace by…", "The word that takes its place", "It is written differently. Empty: it goes."),
}
LIMIT = 500


def _asked(request: Request) -> dict[str, Any]:
    """The word, the run it was seen in, and the verb that is chosen."""
    data = request.POST if request.method == "POST" else request.GET
    word = " ".join(data.get("word", "").replace("\x00", "").split())[:200]
    image = ImageAsset.objects.filter(pk=number_of(data.get("image", ""))).first()
    run = Run.objects.filter(pk=number_of(data.get("run", "")) or (image.proposed_by_id if image else 0) or 0).first()
    return {"word": word, "image": image, "run": run, "data": data}


@needs("curate")
def menu(request: Request) -> HttpResponse:
    """The dialog for a word: `?word=&verb=&image=` (or `run=`)."""
    asked = _asked(request)
    verb = asked["data"].get("verb", "ban")
    if not asked["word"] or verb not in VERBS:
        raise Http404("Which word?")
    return render(request, "prompts/partials/word_menu.html", _menu(asked, verb))


def _menu(asked: dict[str, Any], verb: str, **more: Any) -> dict[str, Any]:
    policy = actions.policy_of(asked["run"])
    choices = actions.choices(verb, policy)
    chosen = asked["data"].get("list", "")
    return {
        **asked,
        "verb": verb,
        "verbs": [(name, label) for name, (label, _, _) in VERBS.items()],
        "target_label": VERBS[verb][1],
        "what": VERBS[verb][2],
        "policy": policy,
        "choices": choices,
        "chosen": chosen or (choices[0].wordlist.slug if choices else ""),
        "first_list": actions.FIRST_LISTS[actions.VERBS[verb]][1],
        "target": asked["data"].get("target", ""),
        "inside": asked["data"].get("inside", "") == "on",
        **more,
    }


@needs("curate", "POST")
def change(request: Request, verb: str) -> HttpResponse:
    """Do it; `dry`: only say what it would change. `and_run`: also recompute the run that the word was seen in."""
    if verb not in VERBS:
        raise Http404(f"A word cannot be told to {verb}.")
    asked = _asked(request)
    row = Wordlist.objects.filter(slug=asked["data"].get("list", "")).first()
    target, inside = asked["data"].get("target", ""), asked["data"].get("inside", "") == "on"
    if "dry" in asked["data"]:
        return render(request, "prompts/partials/word_effect.html", _effect(verb, asked, row, target, inside))
    given: dict[str, Any] = {"wordlist": row, "run": asked["run"], "by": request.user}
    try:
        if verb == "ban":
            done = actions.ban_everywhere(asked["word"], inside=inside, **given)
        elif verb == "vocabulary":
            done = actions.add_to_vocabulary(asked["word"], **given)
        elif verb == "alias":
            done = actions.make_alias(asked["word"], target, **given)
        else:
            done = actions.replace_by(asked["word"], target, **given)
    except ValidationError as error:
        context = _menu(asked, verb, errors=[line for lines in error.message_dict.values() for line in lines])
        return render(request, "prompts/partials/word_menu.html", context)
    return render(request, "prompts/partials/word_done.html", {**asked, "done": done, **_jobs(request, asked["run"])})


def _jobs(request: Request, run: Run | None) -> dict[str, Any]:
    """The recompute that was asked for along with it."""
    if run is None or "and_run" not in request.POST:
        return {"jobs": []}
    try:
        return {"jobs": [start_recompute(run, actions.policy_of(run), by=request.user)], "may_curate": True}
    except NotNow as error:
        return {"jobs": [], "refused": str(error)}


def _effect(verb: str, asked: dict[str, Any], row: Wordlist | None, target: str, inside: bool) -> dict[str, Any]:
    """What the word would change in the run it was seen in."""
    run, policy = asked["run"], actions.policy_of(asked["run"])
    if row is None:
        choices = actions.choices(verb, policy)
        row = choices[0].wordlist if choices else None
    kind = actions.VERBS[verb]
    wordlist = row or Wordlist(slug=actions.FIRST_LISTS[kind][0], kind=kind)
    current = row.current if row else None
    entries = check_entries(current.entries if current else [], kind)
    try:
        changed = actions.changed_entries(verb, entries, asked["word"], target, inside=inside)
        if changed == entries:
            return {"same": True, "row": wordlist}
        if run is None:
            return {}
        version = unsaved(wordlist, [entry.as_json() for entry in changed])
        found = preview(run, policy.spec, lists_with(policy, version), limit=LIMIT, examples=6, seconds=1.0)
    except ValidationError as error:
        return {"problems": error.messages}
    context: dict[str, Any] = {"found": found, "pictures": pictures(e.image for e in found.examples), "run": run}
    if kind == Wordlist.Kind.VOCABULARY and policy.spec.get("vocabulary", "free") == "free":
        context["free"] = policy.policy
    return context


@needs("curate", "POST")
def undo(request: Request, pk: int) -> HttpResponse:
    """Take back what made this version of a list; the run is recomputed again where it was."""
    asked = _asked(request)
    version = get_object_or_404(WordlistVersion.objects.select_related("wordlist"), pk=pk)
    try:
        done = actions.undo_word(version, by=request.user)
    except ValidationError as error:
        return render(request, "prompts/partials/word_done.html", {**asked, "problems": error.messages})
    return render(
        request,
        "prompts/partials/word_done.html",
        {**asked, "done": done, "undone": True, **_jobs(request, asked["run"])},
    )
