"""Import and export of the vocabulary as CSV: formula-safe by the rule that can be taken back (docs/exports.md)."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from import_export import resources, widgets
from import_export.fields import Field

from prompts.cells import escape_cell, join_text, split_text, unescape_cell

from ..actions.tags import check_name, resolve_tags
from ..models import Tag, TagAlias
from ..policy.text import tag_key


class SafeResource(resources.ModelResource):
    """Escapes every cell on the way out and takes exactly that back on the way in."""

    def export_field(self, field: Field, instance: Any, **kwargs: Any) -> Any:
        value = super().export_field(field, instance, **kwargs)
        return escape_cell(value) if isinstance(value, str) else value

    def before_import_row(self, row: dict[str, Any], **kwargs: Any) -> None:
        for name, value in row.items():
            if isinstance(value, str):
                row[name] = unescape_cell(value)

    def skip_row(self, instance: Any, original: Any, row: dict[str, Any], import_validation_errors: Any = None) -> bool:
        """Nothing of the row differs from what is stored; columns that are not in the file do not count."""
        if original is None or original.pk is None or import_validation_errors:
            return False
        return all(
            (super(SafeResource, self).export_field(field, original) or "") == (row[field.column_name] or "")
            for field in self.get_import_fields()
            if field.column_name in row
        )


class Parent(widgets.Widget):
    """The tag above by its name; made when it is new."""

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> Tag | None:
        name = str(value or "").strip()
        if not name:
            return None
        try:
            return resolve_tags([name], field="parent")[name]
        except ValidationError as e:
            raise ValueError(" ".join(e.messages)) from None

    def render(self, value: Tag | None, obj: Any = None, **kwargs: Any) -> str:
        return value.name if value else ""


class TagResource(SafeResource):
    """A row per tag: name, category, parent, aliases (joined by "; "), note. A tag is found by its name."""

    parent = Field(attribute="parent", column_name="parent", widget=Parent())
    aliases = Field(column_name="aliases")

    class Meta:
        model = Tag
        fields = ("name", "category", "parent", "aliases", "note")
        export_order = fields
        import_id_fields = ("name",)
        skip_unchanged = True
        report_skipped = True
        use_bulk = False

    def get_queryset(self) -> Any:
        return Tag.objects.select_related("parent").prefetch_related("aliases")

    def get_instance(self, instance_loader: Any, row: dict[str, Any]) -> Tag | None:
        return Tag.objects.filter(key=tag_key(row.get("name") or "")).select_related("parent").first()

    def dehydrate_aliases(self, obj: Tag) -> str:
        return join_text(sorted(a.name for a in obj.aliases.all())) if obj.pk else ""

    def before_import_row(self, row: dict[str, Any], **kwargs: Any) -> None:
        super().before_import_row(row, **kwargs)
        row["name"], key = check_name(row.get("name") or "", "name")
        row["category"] = (row.get("category") or "").strip() or "general"
        if len(row["category"]) > 40:
            raise ValidationError({"category": "At most 40 characters."})
        if "aliases" in row:
            names = {name for name in split_text(row["aliases"] or "") if tag_key(name) != key}
            row["aliases"] = join_text(sorted(names))
        alias = TagAlias.objects.filter(key=key).select_related("tag").first()
        if alias:
            raise ValidationError({"name": f"{row['name']!r} is an alias of {alias.tag.name!r}."})

    def after_save_instance(self, instance: Tag, row: dict[str, Any], **kwargs: Any) -> None:
        if "aliases" not in row:
            return
        wanted = {tag_key(name): name for name in split_text(row["aliases"] or "")}
        instance.aliases.exclude(key__in=wanted).delete()
        there = set(instance.aliases.values_list("key", flat=True))
        for key, name in wanted.items():
            if key not in there:
                check_alias(name, instance)
                TagAlias.objects.create(tag=instance, name=name)


def check_alias(name: str, tag: Tag, field: str = "aliases") -> None:
    """ValidationError where the name means something else already."""
    _, key = check_name(name, field)
    if Tag.objects.filter(key=key).exists():
        raise ValidationError({field: f"{name!r} is a tag of its own; merge the two instead."})
    other = TagAlias.objects.filter(key=key).exclude(tag_id=tag.pk).select_related("tag").first()
    if other:
        raise ValidationError({field: f"{name!r} is already an alias of {other.tag.name!r}."})
