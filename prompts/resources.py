"""Import and export of wordlists as CSV: formula-safe by the rule that can be taken back (`cells`)."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from import_export import resources
from import_export.fields import Field

from . import actions
from .cells import escape_cell, unescape_cell
from .models import Wordlist, WordlistVersion
from .wordlists import WordlistError, check_entries, format_text, parse_text


def words_of(version: WordlistVersion) -> str:
    """The entries as people write them."""
    return format_text(check_entries(version.entries, version.wordlist.kind), version.wordlist.kind)


class WordlistResource(resources.ModelResource):
    """A row per list: slug, name, kind, note, words as text. Found by its slug; other words are a new version.

    Cells are escaped on the way out, and exactly that is taken back on the way in.
    """

    words = Field(column_name="words")

    class Meta:
        model = Wordlist
        fields = ("slug", "name", "kind", "note", "words")
        export_order = fields
        import_id_fields = ("slug",)
        skip_unchanged = True
        report_skipped = True
        clean_model_instances = True

    def dehydrate_words(self, obj: Wordlist) -> str:
        current = obj.current if obj.pk else None
        return words_of(current) if current else ""

    def export_field(self, field: Field, instance: Any, **kwargs: Any) -> Any:
        value = super().export_field(field, instance, **kwargs)
        return escape_cell(value) if isinstance(value, str) else value

    def before_import_row(self, row: dict[str, Any], **kwargs: Any) -> None:
        for name, value in row.items():
            if isinstance(value, str):
                row[name] = unescape_cell(value)
        kind = row.get("kind") or ""
        if "words" in row and kind in Wordlist.Kind.values:
            try:
                # as it will be stored, so that another spelling of the same list is no change
                row["words"] = format_text(parse_text(row["words"] or "", kind), kind)
            except WordlistError as e:
                raise ValidationError({"words": str(e)}) from None
        stored = Wordlist.objects.filter(slug=row.get("slug") or "").first()
        if stored and kind and kind != stored.kind and stored.versions.exists():
            raise ValidationError({"kind": f"{stored.slug} is a {stored.kind} list: its kind cannot change."})

    def skip_row(self, instance: Any, original: Any, row: dict[str, Any], import_validation_errors: Any = None) -> bool:
        if original is None or original.pk is None or import_validation_errors:
            return False
        return all(
            (super(WordlistResource, self).export_field(field, original) or "") == (row[field.column_name] or "")
            for field in self.get_import_fields()
            if field.column_name in row
        )

    def after_save_instance(self, instance: Wordlist, row: dict[str, Any], **kwargs: Any) -> None:
        if "words" in row:
            actions.save_wordlist(
                instance, parse_text(row["words"] or "", instance.kind), message="Imported", by=kwargs.get("user")
            )
