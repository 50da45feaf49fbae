"""The review screen: one image beside its tags, decisions saved as they are made, the next image at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from ..actions import review as actions
from ..actions.access import may
from ..actions.tags import search_tags
from ..filters import ImageFilter
from ..models import Channel, Collection, ImageAsset, Proposal, Run, TagEdit
from ..queries import previous, tags_of, upcoming
from .chips import chips, probability, seen
from .filters import words
from .guard import Request, needs
from .media import SHOWN_BY_BROWSERS
from .review_progress import forget, moved, progress_of

PAGE = "tagging/review.html"
HISTORY = 40  # edits shown
RATINGS = ("general", "sensitive", "questionable", "explicit")


def _filter(request: Request) -> ImageFilter:
    """From the address. What cannot be read is left out here: the grid is where filters are mended."""
    try:
        return ImageFilter.parse(request.GET)
    except ValidationError:
        return ImageFilter()


def _address(name: str, *args: Any, f: ImageFilter, **extra: Any) -> str:
    query = f.query_string()
    more = "&".join(f"{key}={value}" for key, value in extra.items())
    joined = "&".join(part for part in (query, more) if part)
    return reverse(f"tagging:{name}", args=args) + (f"?{joined}" if joined else "")


def _words(f: ImageFilter) -> str:
    return ", ".join(word.text for word in words(f))


def _image(pk: int) -> ImageAsset:
    return get_object_or_404(ImageAsset.objects.select_related("collection", "proposed_by__recipe"), pk=pk)


# -- pages ----------------------------------------------------------------------------------------------------------
@needs("read")
def queue(request: Request, slug: str) -> HttpResponseBase:
    """The way into a review: the first image of the filter (of the unreviewed ones without any), or that all is done.

    `after` names the image that was looked at last; with a review state the queue begins again behind its end.
    """
    collection = get_object_or_404(Collection, slug=slug)
    f = _filter(request)
    after = int(given) if (given := request.GET.get("after", "")).isdecimal() and len(given) < 19 else None
    if not f.active and not f.sort and after is None:
        f = replace(f, review=ImageAsset.Review.UNREVIEWED.value)
    found = upcoming(collection, f, after, wrap=bool(f.review)) or (
        _still(collection, f, after) if after and f.review else []
    )
    if found:
        return redirect(_address("review", found[0].pk, f=f))
    context = {
        "collection": collection,
        "filter": f,
        "filter_words": _words(f),
        "undo": _address("undo", f=f),
        "at_end": after is not None and not f.review,
        "progress": progress_of(collection),
        "may_curate": may(request.user, "curate"),
    }
    return render(request, "tagging/review_end.html" + ("#main" if request.htmx else ""), context)


def _still(collection: Collection, f: ImageFilter, pk: int) -> list[ImageAsset]:
    """The image itself, when it was only looked at and nothing else is left."""
    return list(upcoming(collection, f, None))[:1]


@needs("read")
def review(request: Request, pk: int) -> HttpResponseBase:
    image = _image(pk)
    f = _filter(request)
    if request.GET.get("go") == "previous":
        before = previous(image.collection, f, image) or image
        return redirect(_address("review", before.pk, f=f))
    # without wrapping: what lies before this image is looked for when its end is reached, not fetched ahead now
    coming = upcoming(image.collection, f, image, n=2, wrap=False)
    following = (
        _address("review", coming[0].pk, f=f)
        if coming
        else _address("queue", image.collection.slug, f=f, after=image.pk)
    )
    context = {
        **_tags_context(request, image),
        "filter_words": _words(f),
        "next": following,
        "previous": _address("review", image.pk, f=f, go="previous"),
        "prefetch": [other.sha256 for other in coming if other.sha256],
        "decide": _address("decide", image.pk, f=f),
        "undo": _address("undo", f=f),
        "grid": _address("grid", image.collection.slug, f=f),
        "progress": progress_of(image.collection),
        "shows_original": image.format.upper() in SHOWN_BY_BROWSERS and not image.missing_since,
        "ratings": _ratings(image),
        "alt": _alt(image),
    }
    return render(request, PAGE + ("#main" if request.htmx else ""), context)


def _ratings(image: ImageAsset) -> list[str]:
    """Choices of the rating field, which is there only where something rates."""
    if not image.rating:
        return []
    return [*RATINGS, *([] if image.rating in RATINGS else [image.rating])]


def _alt(image: ImageAsset) -> str:
    return image.caption or image.name


def _tags_context(request: Request, image: ImageAsset, conflicts: Iterable[int] = ()) -> dict[str, Any]:
    rows = tags_of([image.pk])[image.pk]
    can = may(request.user, "review")
    context: dict[str, Any] = {
        "image": image,
        "collection": image.collection,
        "may_review": can,
        "chips": chips(rows, editable=can, conflicts=set(conflicts)),
        "n_proposed": sum(row.state == 1 for row in rows),
        "seen": seen(rows),
        "problem": "",
        "waiting_for": None,
        "may_curate": may(request.user, "curate"),
    }
    if image.proposal_state == Proposal.State.ERROR:
        said = Proposal.objects.filter(run=image.proposed_by_id, image=image).values_list("error", flat=True)
        context["problem"] = said.first() or "The model could not read this image."
    elif not image.proposal_state and image.state == ImageAsset.State.READY and not image.missing_since:
        open_runs = Run.objects.filter(collection=image.collection_id, state__in=Run.OPEN, shown=True)
        context["waiting_for"] = open_runs.order_by("-pk").first()
    return context


@needs("read")
def tags(request: Request, pk: int) -> HttpResponseBase:
    """The tags alone: asked for while a run has not reached the image. 204 as long as nothing has changed."""
    image = _image(pk)
    context = _tags_context(request, image)
    if context["waiting_for"]:
        return HttpResponse(status=204)
    return render(request, f"{PAGE}#tags", context)


@needs("read")
def more(request: Request, pk: int) -> HttpResponseBase:
    """What is known about the image: the file, what each run proposed, who changed what."""
    image = _image(pk)
    proposals = list(
        image.proposals.exclude(run__purpose=Run.Purpose.TRIAL).select_related("run").order_by("-run_id")[:20]
    )
    channels: dict[int, list[Channel]] = {}
    recipes = {proposal.run.recipe_id for proposal in proposals}
    for channel in Channel.objects.filter(recipe__in=recipes).select_related("adapter", "prompt_version__prompt"):
        channels.setdefault(channel.recipe_id, []).append(channel)
    context = {
        "image": image,
        "proposals": [_proposal_context(image, proposal, channels) for proposal in proposals],
        "edits": [_edit_context(edit) for edit in image.edits.select_related("tag", "by")[:HISTORY]],
    }
    return render(request, "tagging/review_more.html", context)


def _proposal_context(image: ImageAsset, proposal: Proposal, channels: dict[int, list[Channel]]) -> dict[str, Any]:
    kept = [tag for tag in proposal.tags if tag[3] in ("kept", "changed", "added")]
    return {
        "run": proposal.run,
        "proposal": proposal,
        "shown": proposal.run_id == image.proposed_by_id,
        "models": channels.get(proposal.run.recipe_id, []),
        "kept": [(tag[0], probability(tag[2]), tag[5]) for tag in kept],
        "several": len(channels.get(proposal.run.recipe_id, [])) > 1,
        "flags": [flag_words(flag) for flag in proposal.flags],
        "dropped": [(tag[0], tag[4]) for tag in proposal.tags if tag[3] == "dropped"],
    }


FLAG_WORDS = {
    "merge_fallback": "not merged: the weighted union stands",
    "truncated": "the answer was cut off",
    "parse_failed": "the answer could not be read",
    "original_read": "read from the original: it has no proxy",
    "failed": "no answer",
    "combine": "combined anew by",
}


def flag_words(flag: str) -> str:
    """A flag of a proposal as a person reads it; "failed:wd" names the channel."""
    what, _, which = flag.partition(":")
    words = FLAG_WORDS.get(what, what.replace("_", " "))
    return f"{words}: {which.strip()}" if which else words


_TAG_WORDS = {None: "cleared", 1: "proposed again", 2: "accepted", 3: "rejected", 4: "added"}


def _edit_context(edit: TagEdit) -> dict[str, Any]:
    """One line of the history in words."""
    after: Any = edit.after
    if edit.kind == TagEdit.Kind.TAG:
        what = f"{_TAG_WORDS.get(after, 'changed')} {edit.tag or 'a tag that was removed since'}"
    elif edit.kind == TagEdit.Kind.CAPTION:
        text = after["text"]
        what = (
            "accepted the caption"
            if after["state"] == "accepted"
            else "changed the caption"
            if text
            else ("removed the caption")
        )
    elif edit.kind == TagEdit.Kind.RATING:
        what = f"rated it {after['rating']}" if after["rating"] else "removed the rating"
    else:
        what = f"set it to {after['state']}"
    return {"what": what, "by": edit.by or "somebody", "at": edit.at, "door": edit.door, "undo": edit.undoes_id}


# -- decisions ------------------------------------------------------------------------------------------------------
@needs("review", "POST")
def decide(request: Request, pk: int) -> HttpResponseBase:
    """One change (tags, caption or rating) or a verb on the whole image, merged with what others did meanwhile.

    A script gets JSON: what to draw anew. A plain form is sent on to the next image, or back to this one.
    """
    post = request.POST
    verb = post.get("verb", "")
    try:
        _check_caption_seen(pk, post.get("caption"), post.get("caption_seen"))
        decision = _decide(request, pk, verb)
    except ImageAsset.DoesNotExist:
        return _refuse(request, pk, 404, "This image was removed meanwhile.")
    except CaptionChanged as changed:
        return _refuse(request, pk, 409, str(changed), caption=changed.caption)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        return _refuse(request, pk, 400, messages[0], field=field)
    image = decision.image
    if decision.batch and verb:
        moved(image.collection_id, post.get("was", ""), image.review_state)
    if not request.htmx:
        f = _filter(request)
        to_next = verb and not decision.changed_by_others
        found = upcoming(image.collection, f, image, wrap=bool(f.review)) if to_next else [image]
        target = (
            _address("review", found[0].pk, f=f)
            if found
            else _address("queue", image.collection.slug, f=f, after=image.pk)
        )
        return redirect(target)
    return JsonResponse(_answer(request, decision, verb))


def _decide(request: Request, pk: int, verb: str) -> actions.Decision:
    post, by = request.POST, request.user
    shown = None if (given := post.get("seen")) is None else [part for part in given.split(",") if part]
    if verb == "accept":
        return actions.accept_image(pk, by=by, door="review", seen=shown)  # type: ignore[arg-type]
    if verb == "reject":
        return actions.reject_image(pk, by=by, door="review", seen=shown)  # type: ignore[arg-type]
    if verb == "skip":
        return actions.skip_image(pk, by=by, door="review")
    if verb:
        raise ValidationError({"verb": f"{verb!r} is none of accept, reject, skip."})
    return actions.decide(
        pk,
        by=by,
        door="review",
        seen=shown,  # type: ignore[arg-type]
        accept=post.getlist("accept"),  # type: ignore[arg-type]
        reject=post.getlist("reject"),  # type: ignore[arg-type]
        clear=post.getlist("clear"),  # type: ignore[arg-type]
        add=post.getlist("add"),
        caption=post.get("caption"),
        rating=post.get("rating"),
    )


def _answer(request: Request, decision: actions.Decision, verb: str) -> dict[str, Any]:
    image, post = decision.image, request.POST
    answer: dict[str, Any] = {
        "at": timezone.localtime().strftime("%H:%M"),
        "conflicts": len(decision.changed_by_others),
        "batch": str(decision.batch) if decision.batch else None,
    }
    if verb:
        progress = {"progress": progress_of(image.collection)}
        answer["progress"] = render_to_string(f"{PAGE}#progress", progress)
    if "caption" in post:
        answer["caption"] = image.caption
    # a chip that was pressed is drawn by the page itself; anything else that the page cannot know is drawn here
    if decision.changed_by_others or "add" in post:
        context = _tags_context(request, image, decision.changed_by_others)
        answer["tags"] = render_to_string(f"{PAGE}#tags", context, request)
    return answer


class CaptionChanged(Exception):
    def __init__(self, caption: str) -> None:
        super().__init__(
            "Somebody else changed the caption meanwhile. Yours is still in the field; save it again to keep it."
        )
        self.caption = caption


def _check_caption_seen(pk: int, caption: str | None, shown: str | None) -> None:
    """CaptionChanged when the stored caption is neither the one the page showed nor the new one."""
    if caption is None or shown is None:
        return
    stored = ImageAsset.objects.filter(pk=pk).values_list("caption", flat=True).first()
    if stored is not None and stored not in (shown.replace("\r\n", "\n"), caption.replace("\r\n", "\n").strip()):
        raise CaptionChanged(stored)


def _refuse(request: Request, pk: int, status: int, message: str, **extra: Any) -> HttpResponse:
    if request.htmx:
        return JsonResponse({"error": message, **extra}, status=status)
    back = _address("review", pk, f=_filter(request)) if status != 404 else reverse("tagging:home")
    return render(request, "tagging/refused.html", {"message": message, "back": back}, status=status)


@needs("review", "POST")
def undo(request: Request) -> HttpResponseBase:
    """Take back the person's last decision, or the batch that is named, and go to its image."""
    f = _filter(request)
    batch = request.POST.get("batch", "")
    try:
        undone = actions.undo(batch, by=request.user) if batch else actions.undo_last(request.user)
    except actions.NothingToUndo as nothing:
        return _refuse_undo(request, str(nothing))
    if not undone.image_ids:
        return _refuse_undo(request, "Others changed it since: there is nothing left to undo.")
    image = ImageAsset.objects.select_related("collection").get(pk=undone.image_ids[0])
    forget(image.collection_id)
    n = len(undone.image_ids)
    message = f"Undone on {image.name}" if n == 1 else f"Undone on {n:,} images"
    if undone.skipped:
        message += "; some others have changed since and stay"
    url = _address("review", image.pk, f=f)
    if not request.htmx:
        return redirect(url)
    return JsonResponse({"url": url, "images": undone.image_ids[:100], "message": message})


def _refuse_undo(request: Request, message: str) -> HttpResponse:
    if request.htmx:
        return JsonResponse({"error": message}, status=409)
    return render(request, "tagging/refused.html", {"message": message, "back": reverse("tagging:home")}, status=409)


@needs("read")
def tag_search(request: Request) -> HttpResponseBase:
    """What a tag box offers for `q`: JSON {hits: [{name, category, count, match, alias}]}."""
    collection = Collection.objects.filter(slug=request.GET.get("collection", "")).first()
    hits = search_tags(request.GET.get("q", "")[:200], limit=12, collection=collection)
    names = ("name", "category", "count", "match", "alias")
    return JsonResponse({"hits": [{name: getattr(hit, name) for name in names} for hit in hits]})
