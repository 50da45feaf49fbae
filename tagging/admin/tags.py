"""The vocabulary: names, parents, aliases, merging, import and export; and the log of decisions."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import IntegerField, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from import_export.admin import ImportExportMixin
from import_export.formats.base_formats import CSV

from ..actions.merge import merge_tags
from ..actions.tags import check_name
from ..models import Collection, ImageTag, Tag, TagAlias, TagCount, TagEdit
from .common import Admin, BigAdmin, ReadOnly, confirmed, link, table
from .images import said
from .resources import TagResource, check_alias


class TagForm(forms.ModelForm):
    class Meta:
        model = Tag
        fields = ("name", "category", "parent", "note")

    def clean_name(self) -> str:
        try:
            name, key = check_name(self.cleaned_data["name"], "name")
        except ValidationError as e:
            raise ValidationError(e.messages) from None
        other = Tag.objects.filter(key=key).exclude(pk=self.instance.pk).first()
        if other:
            raise ValidationError(f"There is the tag {other.name!r} already: merge this one with it instead.")
        alias = TagAlias.objects.filter(key=key).exclude(tag_id=self.instance.pk).select_related("tag").first()
        if alias:
            raise ValidationError(f"This is an alias of {alias.tag.name!r}.")
        return name

    def clean_parent(self) -> Tag | None:
        parent: Tag | None = self.cleaned_data["parent"]
        above, steps = parent, 0
        while above is not None and steps < 100:
            if above.pk == self.instance.pk:
                raise ValidationError("A tag cannot lie below itself.")
            above, steps = above.parent, steps + 1
        return parent


class AliasFormSet(BaseInlineFormSet):
    def clean(self) -> None:
        super().clean()
        for form in self.forms:
            name = form.cleaned_data.get("name") if form.is_valid() else None
            if name and not form.cleaned_data.get("DELETE"):
                try:
                    check_alias(name, self.instance, "name")
                except ValidationError as e:
                    form.add_error("name", e.messages)


class AliasInline(admin.TabularInline):
    model = TagAlias
    formset = AliasFormSet
    fields = ("name",)
    extra = 0
    verbose_name = "alias"
    verbose_name_plural = "aliases: other spellings that mean this tag"


class MergeForm(forms.Form):
    target = forms.CharField(
        label="Becomes an alias of",
        help_text="The name of the tag that stays.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "size": 40}),
    )

    def clean_target(self) -> Tag:
        try:
            _, key = check_name(self.cleaned_data["target"], "target")
        except ValidationError as e:
            raise ValidationError(e.messages) from None
        found = Tag.objects.filter(Q(key=key) | Q(aliases__key=key)).first()
        if found is None:
            raise ValidationError("There is no such tag.")
        return found


@admin.register(Tag)
class TagAdmin(ImportExportMixin, Admin[Tag]):
    form = TagForm
    resource_classes = (TagResource,)
    formats = (CSV,)
    list_display = ("name", "category", "parent", "proposed", "accepted", "rejected", "added")
    list_filter = ("category",)
    list_select_related = ("parent",)
    search_fields = ("name", "key", "aliases__key")
    search_help_text = "Part of the name or of an alias"
    autocomplete_fields = ("parent",)
    inlines = (AliasInline,)
    actions = ("merge",)
    fields = ("name", "category", "parent", "note", "use")
    readonly_fields = ("use",)
    show_facets = admin.ShowFacets.NEVER
    ordering = ("key",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tag]:
        def summed(name: str) -> Any:
            rows = TagCount.objects.filter(tag=OuterRef("pk")).order_by().values("tag").annotate(n=Sum(name))
            return Coalesce(Subquery(rows.values("n"), output_field=IntegerField()), 0)

        return super().get_queryset(request).annotate(**{f"n_{name}": summed(name) for name in _STATES})

    @admin.display(ordering="n_proposed")
    def proposed(self, obj: Any) -> str:
        return f"{obj.n_proposed:,}"

    @admin.display(ordering="n_accepted")
    def accepted(self, obj: Any) -> str:
        return f"{obj.n_accepted:,}"

    @admin.display(ordering="n_rejected")
    def rejected(self, obj: Any) -> str:
        return f"{obj.n_rejected:,}"

    @admin.display(ordering="n_added")
    def added(self, obj: Any) -> str:
        return f"{obj.n_added:,}"

    @admin.display(description="where it is used")
    def use(self, obj: Tag) -> SafeString | str:
        rows = TagCount.objects.filter(tag=obj).select_related("collection").order_by("collection__name")
        return table(
            ("collection", "proposed", "accepted", "rejected", "added"),
            (
                (_in_grid(row.collection, obj), row.proposed, row.accepted, row.rejected, row.added)
                for row in rows
                if row.proposed or row.accepted or row.rejected or row.added
            ),
            "Images with this tag by state",
            empty="On no image.",
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only while it is on no image: decisions would go with it. Merging keeps them."""
        if obj is not None and ImageTag.objects.filter(tag=obj).exists():
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found = super().get_actions(request)
        found.pop("delete_selected", None)
        return found

    @confirmed(
        title="Merge into another tag",
        question="These tags become aliases of another one. Their images, decisions and aliases go there, and the tags "
        "themselves are removed. This cannot be undone.",
        button="Merge",
        form=MergeForm,
        danger=True,
    )
    def merge(self, request: HttpRequest, queryset: QuerySet[Tag], data: dict[str, Any]) -> str:
        target: Tag = data["target"]
        sources = [tag for tag in queryset if tag.pk != target.pk]
        if not sources:
            raise ValidationError({"target": "Choose another tag than the one to merge."})
        merged = [merge_tags(source, target, by=request.user) for source in sources]  # type: ignore[arg-type]
        images = sum(m.images for m in merged)
        names = ", ".join(tag.name for tag in sources[:5]) + (", …" if len(sources) > 5 else "")
        return f"{names}: now alias{'es' if len(sources) > 1 else ''} of {target.name}, with {images:,} images."


_STATES = tuple(state.label for state in ImageTag.State)


def _in_grid(collection: Collection, tag: Tag) -> SafeString:
    url = reverse("tagging:grid", args=[collection.slug], query={"tag": tag.name})
    return format_html('<a href="{}">{}</a>', url, collection)


@admin.register(TagEdit)
class TagEditAdmin(BigAdmin[TagEdit], ReadOnly[TagEdit]):
    list_display = ("at", "by", "image", "what", "change", "door", "shown_batch")
    list_filter = ("kind", "door", ("by", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("image", "tag", "by")
    search_fields = ("=image__id", "=batch", "tag__key")
    search_help_text = "Number of the image, batch, or part of the tag"
    ordering = ("-pk",)
    fields = ("at", "by", "image", "kind", "tag", "change", "door", "batch", "undoes")
    readonly_fields = ("change",)

    @admin.display(description="what")
    def what(self, obj: TagEdit) -> SafeString | str:
        return link(obj.tag) if obj.tag else obj.get_kind_display()

    @admin.display(description="change")
    def change(self, obj: TagEdit) -> str:
        text = f"{said(obj, obj.before)} → {said(obj, obj.after)}"
        return f"{text} (taken back)" if obj.undoes_id else text

    @admin.display(description="batch")
    def shown_batch(self, obj: TagEdit) -> str:
        return str(obj.batch)[:8]
