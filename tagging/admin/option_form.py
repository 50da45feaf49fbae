"""The options of a configured model in the administration: drawn from the chosen kind, swapped when it changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from ..adapters import registry
from ..adapters.base import Adapter
from ..adapters.endpoint.servers import SERVERS
from ..forms import SchemaForm
from ..models import OptionPreset

PREFIX = "options-"
PIECE = "admin/tagging/modeladapter/options.html"


def class_of(kind: str) -> type[Adapter] | None:
    """The code of a kind; None when it is unknown or broken."""
    try:
        return registry.adapter_class(kind)
    except (registry.UnknownAdapter, ImportError, TypeError):
        return None


def draw(kind: str, form: SchemaForm | None, text: str = "", errors: Any = ()) -> SafeString:
    """The piece of the page that hangs on the kind: options, or a text area where its code is missing."""
    code = class_of(kind)
    context = {
        "kind": kind,
        "form": form,
        "text": text,
        "errors": errors,
        "servers": SERVERS if getattr(code, "lists_models", False) else (),
        "devices": code.capabilities.devices if code else (),
        "quantizations": code.capabilities.quantizations if code else (),
        "presets": OptionPreset.objects.filter(kind=kind).order_by("name", "pk") if code else (),
    }
    return render_to_string(PIECE, context)


def swapped(data: QueryDict) -> SafeString:
    """The piece for the kind, or with the preset, that was just chosen. What was typed stays where it applies."""
    kind = data.get("kind", "")
    code, before = class_of(kind), class_of(data.get("options_kind", ""))
    if code is None:
        return draw(kind, None, "{}")
    carry = SchemaForm(before.Options, data=data, prefix=PREFIX).changed() if before else {}
    preset = OptionPreset.objects.filter(kind=kind, pk=_number(data.get("preset", ""))).first()
    if preset is not None and data.get("options_kind") == kind:
        carry = preset.values
    return draw(kind, SchemaForm(code.Options, carry=carry, prefix=PREFIX))


def _number(text: str) -> int:
    return int(text[:18]) if text.isdecimal() else 0


class OptionsWidget(forms.Widget):
    """Inputs named options-…; a text area "options" with JSON where the kind has no code here."""

    kind = ""
    bound: QueryDict | None = None
    field_errors: Mapping[str, list[str]] = {}

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        code = class_of(self.kind)
        if code is None:
            text = value if isinstance(value, str) else json.dumps(value or {}, indent=2, ensure_ascii=False)
            return draw(self.kind, None, text)
        if self.bound is not None:
            return draw(self.kind, SchemaForm(code.Options, data=self.bound, prefix=PREFIX))
        if isinstance(value, str):  # sent as JSON, by a script
            try:
                value = _from_text(value)
            except ValidationError:
                value = {}
        return draw(self.kind, SchemaForm(code.Options, carry=value or {}, prefix=PREFIX))

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        if name in data:
            return data[name]
        return data

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False


class OptionsField(forms.Field):
    """Cleans to a dict of the options that are not at their defaults: what the row stores."""

    widget = OptionsWidget

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)

    def clean(self, value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            return _from_text(value)
        code = class_of(value.get("kind", "")) if value is not None else None
        if code is None:
            return {}
        form = SchemaForm(code.Options, data=value, prefix=PREFIX)
        if not form.is_valid():
            n = len(form.errors)
            raise ValidationError([*form.form_errors, f"Correct the {n} marked option{'s' * (n != 1)}."])
        return {k: v for k, v in form.cleaned.items() if v != form.properties[k].get("default")}

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != (initial or {}))
        except ValidationError:
            return True


def _from_text(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as e:
        raise ValidationError(f"This is not JSON: {e}.") from None
    if not isinstance(found, dict):
        raise ValidationError('Options are a JSON object, e.g. {"threshold": 0.4}.')
    return found
