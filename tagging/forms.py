"""Forms drawn from pydantic models: the options of an adapter, and everything else that is configured by a schema."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.http import QueryDict
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from pydantic import BaseModel, ValidationError

from .form_fields import EMPTY, SchemaField, comparable, flat, parse, shown

#: What pydantic found → what the person reads, filled from the error's context. Others keep pydantic's own words.
MESSAGES = {
    "missing": "This is needed.",
    "float_parsing": "Enter a number.",
    "float_type": "Enter a number.",
    "finite_number": "Enter a finite number.",
    "int_parsing": "Enter a whole number.",
    "int_type": "Enter a whole number.",
    "int_from_float": "Enter a whole number.",
    "bool_parsing": "Choose yes or no.",
    "greater_than_equal": "At least {ge}.",
    "greater_than": "More than {gt}.",
    "less_than_equal": "At most {le}.",
    "less_than": "Less than {lt}.",
    "multiple_of": "A multiple of {multiple_of}.",
    "string_too_short": "At least {min_length} characters.",
    "string_too_long": "At most {max_length} characters.",
    "too_long": "At most {max_length} entries.",
    "too_short": "At least {min_length} entries.",
    "literal_error": "Choose one of {expected}.",
    "enum": "Choose one of {expected}.",
    "value_error": "{error}",
}


@dataclass(frozen=True)
class Group:
    """Fields under one heading; `title` is empty for those that come first."""

    title: str
    fields: list[SchemaField]


class SchemaForm:
    """An HTML form of a pydantic model.

    `model`    the pydantic class; its JSON schema gives names, titles, help, ranges, defaults and choices. A field with
               `json_schema_extra={"advanced": True}` goes behind a disclosure, "group" puts it under a heading.
    `data`     what was posted (a QueryDict); None for a form nobody has filled in yet.
    `initial`  values over the schema's defaults, by field name (an adapter row's configured options).
    `carry`    values that a person typed into another form (`changed()` of it). Those that this model accepts replace
               the initial ones; the others are dropped, so that changing the adapter never produces an error.
    `prefix`   put before every input's name, so that two forms live on one page.
    `leave_out` names of fields that are not asked for here: they are neither drawn nor read nor in `cleaned`.
    `start_word` what the starting value is called beside its field: "default", or "saved" where it was saved before.

    Bound, `is_valid()` validates with the model itself; `cleaned` is its JSON-ready dump, `errors` maps field names
    to lines (the key "" holds what concerns no single field).
    """

    template_name = "tagging/partials/schema_form.html"

    def __init__(
        self,
        model: type[BaseModel],
        *,
        data: QueryDict | None = None,
        initial: Mapping[str, Any] | None = None,
        carry: Mapping[str, Any] | None = None,
        prefix: str = "options-",
        start_word: str = "default",
        leave_out: Collection[str] = (),
    ) -> None:
        self.model = model
        self.leave_out = frozenset(leave_out)
        self.data = data
        self.prefix = prefix
        self.start_word = start_word
        self.schema = model.model_json_schema()
        self.initial = {name: value for name, value in (initial or {}).items() if name in self.properties}
        self.carry = self._applicable(carry or {})
        self.errors: dict[str, list[str]] = {}
        self.instance: BaseModel | None = None
        self._validated = False

    @cached_property
    def properties(self) -> dict[str, dict[str, Any]]:
        """Field name → its schema, references and optional wrappers resolved."""
        definitions = self.schema.get("$defs", {})
        shown = {n: s for n, s in self.schema.get("properties", {}).items() if n not in self.leave_out}
        return {name: flat(s, definitions) for name, s in shown.items()}

    @property
    def is_bound(self) -> bool:
        return self.data is not None

    # -- reading ----------------------------------------------------------------------------------------------------
    def raw(self) -> dict[str, Any]:
        """The posted values as pydantic takes them. An empty input means: the starting value (None if it may be)."""
        found: dict[str, Any] = {}
        for name, schema in self.properties.items():
            html_name = self.prefix + name
            if self.data is None or html_name not in self.data:
                if name in self.initial:
                    found[name] = self.initial[name]
                continue
            values = self.data.getlist(html_name)
            value = parse(schema, [str(v) for v in values])
            if value is EMPTY:
                if schema["optional"]:
                    found[name] = None
                elif name in self.initial:
                    found[name] = self.initial[name]
            else:
                found[name] = value
        return found

    def is_valid(self) -> bool:
        """Validate what was posted. A form without data is not valid."""
        if self.data is None:
            return False
        if not self._validated:
            self._validated = True
            try:
                self.instance = self.model.model_validate(self.raw())
            except ValidationError as e:
                self.errors = messages_of(e, known=self.properties)
        return not self.errors

    @property
    def cleaned(self) -> dict[str, Any]:
        """The valid values, defaults filled in, JSON-ready. ValueError before a successful `is_valid()`."""
        if not self.is_valid() or self.instance is None:
            raise ValueError("this form is not valid")
        return self.instance.model_dump(mode="json", exclude=set(self.leave_out) or None)

    def changed(self) -> dict[str, Any]:
        """What a person set differently from the starting values, valid or not: for another form's `carry`."""
        start = {name: self._start(name, schema) for name, schema in self.properties.items()}
        found = {}
        for name, value in self.raw().items():
            kind = self.properties[name]["kind"]
            if comparable(value, kind) != comparable(start[name], kind):
                found[name] = value
        return found

    def _applicable(self, carry: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `carry` that this model has and accepts, each on its own."""
        found = {}
        for name, value in carry.items():
            if name not in self.properties:
                continue
            try:
                self.model.model_validate({**self.initial, name: value})
            except ValidationError as e:
                if any(error["loc"][:1] == (name,) for error in e.errors()):
                    continue
            found[name] = value
        return found

    # -- drawing ----------------------------------------------------------------------------------------------------
    def _start(self, name: str, schema: dict[str, Any]) -> Any:
        return self.initial.get(name, schema.get("default"))

    @cached_property
    def fields(self) -> list[SchemaField]:
        """All fields in the model's order, with values and errors."""
        required = set(self.schema.get("required", ()))
        if self.is_bound:
            self.is_valid()
        return [self._field(name, schema, name in required) for name, schema in self.properties.items()]

    def _field(self, name: str, schema: dict[str, Any], required: bool) -> SchemaField:
        start = self._start(name, schema)
        html_name = self.prefix + name
        kind = schema["kind"]
        value = shown(self.carry.get(name, start), kind)
        if self.data is not None and html_name in self.data:
            posted = [str(v) for v in self.data.getlist(html_name)]
            if kind == "choices":
                value = [v for v in posted if v]
            elif kind == "boolean":
                value = posted[-1] == "true"
            else:
                value = posted[-1]
        return SchemaField(
            name=name,
            html_name=html_name,
            kind=kind,
            schema=schema,
            required=required,
            optional=schema["optional"],
            initial=start,
            value=value,
            errors=self.errors.get(name, []),
            configured=name in self.initial and self.initial[name] != schema.get("default"),
            start_word=self.start_word,
        )

    @property
    def form_errors(self) -> list[str]:
        """What concerns no single field."""
        return self.errors.get("", [])

    @property
    def basic(self) -> list[SchemaField]:
        return [f for f in self.fields if not f.advanced]

    @property
    def advanced(self) -> list[SchemaField]:
        return [f for f in self.fields if f.advanced]

    @property
    def advanced_touched(self) -> bool:
        """Some advanced field is not at its start: the disclosure is drawn open, so that nothing hides."""
        return any(f.changed for f in self.advanced)

    @property
    def basic_groups(self) -> list[Group]:
        """The basic fields under their headings, in the order of the model; those without a heading come first."""
        return grouped(self.basic)

    @property
    def advanced_groups(self) -> list[Group]:
        return grouped(self.advanced)

    @property
    def n_changed(self) -> int:
        """How many fields do not show where they start."""
        return sum(f.changed for f in self.fields)

    def __iter__(self) -> Iterator[SchemaField]:
        return iter(self.fields)

    def __getitem__(self, name: str) -> SchemaField:
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(name)

    def render(self) -> SafeString:
        return render_to_string(self.template_name, {"form": self})

    __str__ = render
    __html__ = render


def grouped(fields: Sequence[SchemaField]) -> list[Group]:
    """Fields by heading, headings in the order of their first field, those without one first."""
    found: dict[str, list[SchemaField]] = {"": []}
    for f in fields:
        found.setdefault(f.group, []).append(f)
    return [Group(title, members) for title, members in found.items() if members]


def messages_of(error: ValidationError, known: Mapping[str, Any] | Sequence[str] = ()) -> dict[str, list[str]]:
    """pydantic's findings by field name, in plain words. What concerns no field of `known` goes under ""."""
    found: dict[str, list[str]] = {}
    for e in error.errors():
        context = {k: str(v) for k, v in e.get("ctx", {}).items()}
        template = MESSAGES.get(e["type"], "")
        text = template.format_map(context) if template else e["msg"] + ("" if e["msg"].endswith(".") else ".")
        location = [str(part) for part in e["loc"]]
        if not location or (known and location[0] not in known):
            found.setdefault("", []).append(": ".join([".".join(location), text]) if location else text)
        else:
            where = f"Entry {int(location[1]) + 1}: " if len(location) > 1 and location[1].isdigit() else ""
            where = where or (f"{location[1]}: " if len(location) > 1 and location[1] not in ("float", "int") else "")
            lines = found.setdefault(location[0], [])
            if where + text not in lines:
                lines.append(where + text)
    return found
