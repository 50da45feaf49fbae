"""What the page asks for exports that write beside the images."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import QueryDict

from tagging.forms import SchemaForm
from tagging.models import Collection

from . import in_place
from .exporters import registry
from .forms import NewExport
from .models import ExportJob


class NewInPlace(NewExport):
    """The form behind /exports/beside/: only collections with a folder of their own, formats that write into it."""

    def __init__(self, data: QueryDict, *, bound: bool = False) -> None:
        super().__init__(data, bound=bound)
        self.formats = list(registry.IN_PLACE.items())
        self.uploads = self.collection is not None and self.collection.kind != Collection.Kind.FOLDER
        self.collections = [c for c in self.collections if c.kind == Collection.Kind.FOLDER]
        if self.uploads and bound:
            self.errors["collection"] = ["This collection holds uploads: there is no folder to write into."]
        elif self.collection not in self.collections:
            self.collection = self.collections[0] if self.collections and not data.get("collection") else None

    @cached_property
    def options(self) -> SchemaForm:
        model = in_place.options_of(self.format)
        if self.bound:
            return SchemaForm(model, data=self.data)
        asked = SchemaForm(model, data=self.data)
        carry = {name: value for name, value in asked.raw().items() if asked.prefix + name in self.data}
        return SchemaForm(model, carry=carry)

    @cached_property
    def exporter(self) -> Any:
        return in_place.get_exporter(self.chosen, self.format, self.options.cleaned, self.filter)

    def start(self, by: AbstractBaseUser) -> ExportJob:
        """Queue the plan. ValidationError as `in_place.create`."""
        try:
            return in_place.create(self.chosen, self.format, self.options.cleaned, self.filter, by=by)
        except ValidationError as e:
            self.refuse(e)
            raise
