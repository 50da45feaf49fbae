"""Collections and the looks at their files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ..actions import ingest
from ..models import Collection, ImageAsset, IngestJob
from .common import Admin, AnnotatesPage, ReadOnly, Stated, as_json, confirmed, list_link


class CollectionForm(forms.ModelForm):
    class Meta:
        model = Collection
        fields = ("name", "kind", "root", "excludes")

    def clean_excludes(self) -> list[str]:
        given = self.cleaned_data["excludes"] or []
        if not isinstance(given, list) or not all(isinstance(v, str) for v in given):
            raise ValidationError('A JSON list of patterns, e.g. ["*/previews/*"].')
        return given


class NewCollectionForm(CollectionForm):
    """The action checks and makes it, within the transaction of the page: its refusals stand beside the fields."""

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                self.instance = ingest.create_collection(**data)
            except ValidationError as e:
                for name, lines in e.message_dict.items():
                    self.add_error(name if name in self.fields else None, lines)
        return data

    def save(self, commit: bool = True) -> Collection:
        return self.instance

    def save_m2m(self) -> None:
        """Nothing is left to save."""

    def _post_clean(self) -> None:
        """The action has checked and saved it."""


@admin.register(Collection)
class CollectionAdmin(AnnotatesPage[Collection], Admin[Collection]):
    form = CollectionForm
    list_display = ("name", "kind", "root", "images", "reviewed", "indexed_at")
    list_filter = ("kind",)
    search_fields = ("name", "slug", "root")
    search_help_text = "Name or folder"
    actions = ("index_again",)
    readonly_fields = ("slug", "created_at", "indexed_at")
    fieldsets = (
        (None, {"fields": ("name", "kind", "root", "excludes")}),
        ("Facts", {"fields": ("slug", "created_at", "indexed_at")}),
    )

    def annotate_page(self, rows: Sequence[Collection]) -> None:
        """One query for the page: the index on (collection, review state) answers it."""
        reviewed = Count("pk", filter=Q(review_state=ImageAsset.Review.REVIEWED))
        counted = ImageAsset.objects.filter(collection__in=rows, missing_since=None).values("collection").order_by()
        found = {
            row["collection"]: (row["n"], row["reviewed"]) for row in counted.annotate(n=Count("pk"), reviewed=reviewed)
        }
        for row in rows:
            row.n_images, row.n_reviewed = found.get(row.pk, (0, 0))  # type: ignore[attr-defined]

    @admin.display(description="images")
    def images(self, obj: Any) -> SafeString:
        return list_link(ImageAsset, f"{obj.n_images:,}", collection__id__exact=obj.pk)

    @admin.display(description="reviewed")
    def reviewed(self, obj: Any) -> str:
        return f"{obj.n_reviewed:,}"

    def get_readonly_fields(self, request: HttpRequest, obj: Collection | None = None) -> tuple[str, ...]:
        # another folder would be another collection: the paths of the images are relative to it
        return (*self.readonly_fields, "kind", "root") if obj else self.readonly_fields

    def get_form(self, request: HttpRequest, obj: Collection | None = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(
            request, obj, change=change, **({} if change else {"form": NewCollectionForm}), **kwargs
        )

    def save_model(self, request: HttpRequest, obj: Collection, form: ModelForm, change: bool) -> None:
        if change:
            obj.save()
        elif obj.kind == Collection.Kind.FOLDER:
            ingest.start_ingest(obj, by=request.user)  # type: ignore[arg-type]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only while it is empty: what people decided on its images would go with it."""
        if obj is not None and ImageAsset.objects.filter(collection=obj).exists():
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found = super().get_actions(request)
        found.pop("delete_selected", None)
        return found

    @confirmed(
        title="Index again",
        question="Look at the files of these collections again? Only what changed is read; nothing is deleted.",
        button="Index again",
    )
    def index_again(self, request: HttpRequest, queryset: QuerySet[Collection], data: dict[str, Any]) -> str:
        jobs = [ingest.start_ingest(c, by=request.user) for c in queryset]  # type: ignore[arg-type]
        return f"{len(jobs)} collection{'s' if len(jobs) != 1 else ''} will be indexed."


@admin.register(IngestJob)
class IngestJobAdmin(Stated[IngestJob], ReadOnly[IngestJob]):
    list_display = ("__str__", "shown_state", "seen", "added", "changed", "missing", "failed", "created_at")
    list_filter = ("state", "collection")
    list_select_related = ("collection",)
    search_fields = ("collection__name",)
    search_help_text = "Name of the collection"
    date_hierarchy = "created_at"
    actions = ("cancel",)
    exclude = ("notes",)
    readonly_fields = ("shown_notes",)

    @admin.display(description="notes")
    def shown_notes(self, obj: IngestJob) -> SafeString | str:
        return as_json(obj.notes)

    @confirmed(
        title="Cancel",
        question="Stop these looks at the files? What was stored so far stays.",
        button="Stop them",
        permission="cancel",
    )
    def cancel(self, request: HttpRequest, queryset: QuerySet[IngestJob], data: dict[str, Any]) -> str:
        n = sum(bool(ingest.cancel_ingest(job)) for job in queryset)
        return f"{n} stopped."

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tagging.change_ingestjob")
