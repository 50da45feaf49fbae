"""What the new-export page asks: images, format, options."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import QueryDict

from tagging.filters import ImageFilter
from tagging.forms import SchemaForm
from tagging.models import Collection
from tagging.views.filters import words

from . import actions
from .exporters import registry
from .exporters.base import Exporter
from .models import ExportJob


class NewExport:
    """The form behind /exports/new/. `data` is what was posted (bound) or what the address says."""

    def __init__(self, data: QueryDict, *, bound: bool = False) -> None:
        self.data = data
        self.bound = bound
        self.errors: dict[str, list[str]] = {}
        self.collections = list(Collection.objects.all())
        self.formats = registry.choices()
        slug = data.get("collection", "")
        self.collection = next((c for c in self.collections if c.slug == slug), None)
        if slug and self.collection is None:
            self.errors["collection"] = [f"There is no collection {slug!r}."]
        elif not slug and not bound and self.collections:
            self.collection = self.collections[0]

    @property
    def chosen(self) -> Collection:
        """The collection, once the form is valid."""
        if self.collection is None:
            raise ValueError("ask only after is_valid()")
        return self.collection

    @cached_property
    def format(self) -> str:
        asked = self.data.get("format", "")
        known = [name for name, _ in self.formats]
        if asked and asked not in known:
            self.errors["format"] = [f"There is no format {asked!r}."]
        return asked if asked in known else next((n for n in ("csv", *known) if n in known), "")

    @cached_property
    def options(self) -> SchemaForm:
        model = registry.exporter_class(self.format).Options
        if self.bound:
            return SchemaForm(model, data=self.data)
        # another format was chosen: what was set before stays where it fits
        asked = SchemaForm(model, data=self.data)
        carry = {name: value for name, value in asked.raw().items() if asked.prefix + name in self.data}
        return SchemaForm(model, carry=carry)

    @cached_property
    def filter(self) -> ImageFilter:
        """The filter that the export is limited to, from the text of the grid's address."""
        given = QueryDict(self.data.get("filter", ""))
        try:
            return ImageFilter.parse(given)
        except ValidationError as e:
            self.errors.setdefault("filter", []).extend(e.messages)
            return ImageFilter()

    @property
    def filter_words(self) -> list[str]:
        return [word.text for word in words(self.filter)]

    def is_valid(self) -> bool:
        if self.collection is None:
            self.errors.setdefault("collection", ["Choose a collection."])
        _ = self.format, self.filter
        return self.options.is_valid() and not self.errors

    @cached_property
    def exporter(self) -> Exporter[Any]:
        return actions.get_exporter(self.chosen, self.format, self.options.cleaned, self.filter)

    def start(self, by: AbstractBaseUser) -> ExportJob:
        return actions.create_export(self.chosen, self.format, self.options.cleaned, self.filter, by=by)

    def query_string(self) -> str:
        """Filter and options as the address of a direct download takes them."""
        start = SchemaForm(registry.exporter_class(self.format).Options)
        pairs = self.filter.params()
        for name, value in self.options.cleaned.items():
            if value != start.properties[name].get("default"):
                pairs.append((self.options.prefix + name, _as_text(value)))
        return urlencode(pairs)

    def refuse(self, error: ValidationError) -> None:
        """Put an action's refusal beside the fields it names."""
        for name, lines in error.message_dict.items():
            self.errors.setdefault(name, []).extend(lines)

    @property
    def other_errors(self) -> list[str]:
        """What belongs to no field that is drawn."""
        drawn = ("collection", "format") if len(self.formats) > 1 else ("collection",)
        return [line for name, lines in self.errors.items() if name not in drawn for line in lines]


def _as_text(value: Any) -> str:
    """An option as its input takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "\n".join(str(v) for v in value)
    return "" if value is None else str(value)
