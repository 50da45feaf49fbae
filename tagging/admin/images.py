"""Images: facts, tags in force, history. Decisions are made in the review screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ..models import ImageAsset, ImageTag, Proposal, TagEdit
from .common import TONES, AnnotatesPage, BigAdmin, ReadOnly, bar, confirmed, link, mark, picture, table

HISTORY = 30


class PriorityForm(forms.Form):
    priority = forms.IntegerField(
        min_value=-1000, max_value=1000, initial=1, help_text="Higher comes first in the review queue; 0 is usual."
    )


@admin.register(ImageAsset)
class ImageAssetAdmin(AnnotatesPage[ImageAsset], BigAdmin[ImageAsset], ReadOnly[ImageAsset]):
    list_display = (
        "thumbnail", "path", "collection", "shown_review", "tags", "rating", "shown_state", "pixels", "priority",
    )  # fmt: skip
    list_display_links = ("thumbnail", "path")
    list_filter = ("review_state", "state", "proposal_state", "collection")
    list_select_related = ("collection",)
    ordering = ("-pk",)
    search_fields = ("path", "=sha256")
    search_help_text = "Part of the path, or the whole SHA-256"
    actions = ("set_priority",)
    fieldsets = (
        (None, {"fields": ("thumbnail_large", "collection", "path", "caption", "tags_in_force")}),
        ("Review", {"fields": ("review_state", "reviewed_at", "reviewed_by", "priority", "rating", "history")}),
        ("Proposals", {"fields": ("proposed_by", "proposal_state", "top_score", "proposals")}),
        (
            "File",
            {
                "fields": (
                    "state", "error", "sha256", "size", "format", "width", "height", "orientation", "frames",
                    "captured_at", "missing_since", "added_at",
                )
            },
        ),
    )  # fmt: skip

    def annotate_page(self, rows: Sequence[ImageAsset]) -> None:
        states = ImageTag.objects.filter(image__in=[row.pk for row in rows], state__in=ImageTag.IN_FORCE)
        counts = dict(states.order_by().values_list("image_id").annotate(n=Count("tag_id")))
        for row in rows:
            row.n_tags = counts.get(row.pk, 0)  # type: ignore[attr-defined]

    @admin.display(description="picture")
    def thumbnail(self, obj: ImageAsset) -> SafeString | str:
        return picture(obj, 72)

    @admin.display(description="picture")
    def thumbnail_large(self, obj: ImageAsset) -> SafeString | str:
        return picture(obj, 320)

    @admin.display(description="tags")
    def tags(self, obj: Any) -> int:
        return int(obj.n_tags)

    @admin.display(description="review", ordering="review_state")
    def shown_review(self, obj: ImageAsset) -> SafeString:
        return mark(obj.get_review_state_display(), "ok" if obj.review_state == "reviewed" else "")

    @admin.display(description="file")
    def shown_state(self, obj: ImageAsset) -> SafeString:
        if obj.missing_since:
            return mark("missing", "warning")
        return mark(obj.get_state_display(), TONES.get(obj.state, ""))

    @admin.display(description="pixels")
    def pixels(self, obj: ImageAsset) -> str:
        return f"{obj.width:,} × {obj.height:,}" if obj.width else "–"

    @admin.display(description="tags in force")
    def tags_in_force(self, obj: ImageAsset) -> SafeString | str:
        rows = ImageTag.objects.filter(image=obj).select_related("tag", "run").order_by("-score", "tag_id")
        return table(
            ("tag", "category", "state", "probability", "proposed by"),
            (
                (
                    link(r.tag),
                    r.tag.category,
                    mark(r.get_state_display(), _TAG_TONES[r.state]),
                    bar(r.score),
                    link(r.run),
                )
                for r in rows
            ),
            "Tags of this image",
        )

    @admin.display(description="proposals")
    def proposals(self, obj: ImageAsset) -> SafeString | str:
        rows = Proposal.objects.filter(image=obj).select_related("run").defer("tags").order_by("-pk")[:HISTORY]
        return table(
            ("run", "state", "made"),
            ((link(r, str(r.run)), mark(r.get_state_display(), TONES.get(r.state, "")), r.created_at) for r in rows),
            "Proposals for this image, newest first",
        )

    @admin.display(description="history")
    def history(self, obj: ImageAsset) -> SafeString | str:
        rows = TagEdit.objects.filter(image=obj).select_related("tag", "by").order_by("-pk")[:HISTORY]
        return table(
            ("when", "who", "what", "before", "after", "door"),
            (
                (r.at.strftime("%Y-%m-%d %H:%M"), r.by or "–", r.tag or r.get_kind_display(), said(r, r.before),
                 said(r, r.after), r.door)
                for r in rows
            ),
            f"The last {HISTORY} changes by people",
        )  # fmt: skip

    @confirmed(
        title="Set the review priority",
        question="Give these images another place in the review queue?",
        button="Set the priority",
        permission="prioritise",
        form=PriorityForm,
    )
    def set_priority(self, request: HttpRequest, queryset: QuerySet[ImageAsset], data: dict[str, Any]) -> str:
        n = ImageAsset.objects.filter(pk__in=queryset.order_by().values("pk")).update(priority=data["priority"])
        return f"{n:,} image{'s have' if n != 1 else ' has'} priority {data['priority']}."

    def has_prioritise_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tagging.change_imageasset")


_TAG_TONES: dict[int, str] = {
    ImageTag.State.PROPOSED: "",
    ImageTag.State.ACCEPTED: "ok",
    ImageTag.State.REJECTED: "error",
    ImageTag.State.ADDED: "ok",
}


def said(edit: TagEdit, value: Any) -> str:
    """A value of an edit in words."""
    if edit.kind == TagEdit.Kind.TAG:
        return ImageTag.State(value).label if value else "none"
    if isinstance(value, dict):
        found = value.get("text") or value.get("rating") or value.get("state") or ""
        return str(found)[:200] or "none"
    return str(value)[:200] if value is not None else "none"
