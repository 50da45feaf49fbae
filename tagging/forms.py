"""Forms drawn from pydantic models: the options of an adapter, and everything else that is configured by a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.http import QueryDict
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from pydantic import BaseModel, ValidationError

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
_LONG_TEXT = 200  # a string that may be longer gets a text area


@dataclass(frozen=True)
class Choice:
    """One value of a select or of a list of checkboxes, with whether it is chosen."""

    value: str
    label: str
    chosen: bool


@dataclass
class SchemaField:
    """One property of the schema, ready to be drawn.

    `kind` is number, integer, boolean, choice, choices, text, long, lines (a list of strings, one a line), pairs (a
    mapping, "name = value" a line) or json (whatever else there is). `value` is what the input shows.
    """

    name: str
    html_name: str
    kind: str
    schema: dict[str, Any]
    required: bool
    optional: bool  # None is a legitimate value, written as an empty input
    initial: Any
    value: Any
    errors: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"id_{self.html_name}"

    @property
    def title(self) -> str:
        return str(self.schema.get("title") or self.name.replace("_", " ").capitalize())

    @property
    def help(self) -> str:
        return str(self.schema.get("description", ""))

    @property
    def advanced(self) -> bool:
        return bool(self.schema.get("advanced")) and not self.errors

    @property
    def selection(self) -> bool:
        """Chooses among stored scores: changing it needs no new inference."""
        return bool(self.schema.get("selection"))

    @property
    def minimum(self) -> Any:
        return self.schema.get("minimum", self.schema.get("exclusiveMinimum"))

    @property
    def maximum(self) -> Any:
        return self.schema.get("maximum", self.schema.get("exclusiveMaximum"))

    @property
    def step(self) -> str:
        if "multipleOf" in self.schema:
            return f"{self.schema['multipleOf']:g}"
        if self.kind == "integer":
            return "1"
        return "0.01" if self.bounded and self.maximum - self.minimum <= 1 else "any"

    @property
    def bounded(self) -> bool:
        """Both ends are known: a slider makes sense beside the number."""
        return self.kind in ("number", "integer") and self.minimum is not None and self.maximum is not None

    @property
    def range_text(self) -> str:
        if self.kind not in ("number", "integer"):
            return ""
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"{low:g} to {high:g}"
        if low is not None:
            return f"{'more than' if 'exclusiveMinimum' in self.schema else 'at least'} {low:g}"
        if high is not None:
            return f"{'less than' if 'exclusiveMaximum' in self.schema else 'at most'} {high:g}"
        return ""

    @property
    def default_text(self) -> str:
        """The starting value in words; empty where there is none worth a word."""
        if self.required or self.kind in ("json", "pairs", "lines", "choices", "long", "boolean"):
            return ""
        if self.initial is None:
            return "default: none"
        label = self.labels.get(self.initial, self.initial) if self.kind == "choice" else self.initial
        return f"default: {_shown(label, self.kind)}" if label != "" else ""

    @property
    def rows(self) -> int:
        """Height of a text area that shows what is in it without scrolling, within reason."""
        return max(2 if self.kind == "long" else 3, min(12, str(self.value).count("\n") + 2))

    @property
    def labels(self) -> dict[Any, str]:
        """Enum value → its label; `json_schema_extra={"labels": {...}}` gives better words than the values."""
        given = self.schema.get("labels", {})
        return {v: str(given.get(str(v), v)) for v in _enum(self.schema)}

    @property
    def choices(self) -> list[Choice]:
        chosen = {str(v) for v in self.value} if self.kind == "choices" else {str(self.value)}
        found = [Choice(str(v), label, str(v) in chosen) for v, label in self.labels.items() if v is not None]
        if self.kind == "choice" and (self.optional or (self.required and self.value in (None, ""))):
            words = "none" if self.optional else "choose…"
            found.insert(0, Choice("", words, self.value in (None, "")))
        return found

    @property
    def described_by(self) -> str:
        """For aria-describedby: the ids of the help and the error that are drawn."""
        ids = []
        if self.help or self.range_text or self.default_text:
            ids.append(f"{self.id}_help")
        if self.errors:
            ids.append(f"{self.id}_error")
        return " ".join(ids)


class SchemaForm:
    """An HTML form of a pydantic model.

    `model`    the pydantic class; its JSON schema gives names, titles, help, ranges, defaults and choices. A field with
               `json_schema_extra={"advanced": True}` goes behind a disclosure.
    `data`     what was posted (a QueryDict); None for a form nobody has filled in yet.
    `initial`  values over the schema's defaults, by field name (an adapter row's configured options).
    `carry`    values that a person typed into another form (`changed()` of it). Those that this model accepts replace
               the initial ones; the others are dropped, so that changing the adapter never produces an error.
    `prefix`   put before every input's name, so that two forms live on one page.

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
    ) -> None:
        self.model = model
        self.data = data
        self.prefix = prefix
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
        return {name: _flat(s, definitions) for name, s in self.schema.get("properties", {}).items()}

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
            value = _parse(schema, [str(v) for v in values])
            if value is _EMPTY:
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
        return self.instance.model_dump(mode="json")

    def changed(self) -> dict[str, Any]:
        """What a person set differently from the starting values, valid or not: for another form's `carry`."""
        start = {name: self._start(name, schema) for name, schema in self.properties.items()}
        found = {}
        for name, value in self.raw().items():
            kind = self.properties[name]["kind"]
            if _compare(value, kind) != _compare(start[name], kind):
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
        value = _shown(self.carry.get(name, start), kind)
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
        return any(_compare(f.value, f.kind) != _compare(_shown(f.initial, f.kind), f.kind) for f in self.advanced)

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


# -- JSON schema → kinds and back --------------------------------------------------------------------------------------
_EMPTY = object()


def _flat(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A property's schema without $ref, single allOf and "or null"; adds `kind` and `optional`."""
    found = dict(schema)
    optional = False
    for _ in range(8):  # a reference may lead to a reference; a cycle must not hang the page
        if "$ref" in found:
            target = definitions.get(found.pop("$ref").rpartition("/")[2], {})
            found = {**target, **found}
        elif len(found.get("allOf", ())) == 1:
            found = {**found.pop("allOf")[0], **found}
        elif "anyOf" in found:
            options = [o for o in found["anyOf"] if o.get("type") != "null"]
            optional = optional or len(options) < len(found["anyOf"])
            if len(options) != 1:
                break
            found.pop("anyOf")
            found = {**options[0], **found}
        else:
            break
    if isinstance(found.get("items"), dict) and "$ref" in found["items"]:
        found["items"] = definitions.get(found["items"]["$ref"].rpartition("/")[2], {})
    found["optional"] = optional
    found["kind"] = _kind(found)
    return found


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return "choice"
    match schema.get("type"):
        case "boolean" | "number" | "integer" as plain:
            return str(plain)
        case "string":
            long = schema.get("maxLength", 0) > _LONG_TEXT or schema.get("format") == "textarea"
            return "long" if long else "text"
        case "array":
            items = schema.get("items", {})
            if "enum" in items:
                return "choices"
            return "lines" if items.get("type") == "string" else "json"
        case "object":
            values = schema.get("additionalProperties")
            plain_values = isinstance(values, dict) and values.get("type") in ("string", "number", "integer")
            return "pairs" if plain_values and not schema.get("properties") else "json"
    return "json"


def _enum(schema: dict[str, Any]) -> list[Any]:
    if "const" in schema:
        return [schema["const"]]
    return list(schema.get("enum") or schema.get("items", {}).get("enum", ()))


def _parse(schema: dict[str, Any], values: list[str]) -> Any:
    """Posted strings → a value for pydantic, or _EMPTY where nothing was entered. Bad input stays as it was typed."""
    kind, last = schema["kind"], values[-1]
    if kind == "boolean":
        return last == "true"
    if kind == "choices":
        return [v for v in values if v]
    if kind in ("text", "long"):
        return last if last or not schema["optional"] else _EMPTY
    if kind == "lines":
        return [line.strip() for line in last.splitlines() if line.strip()]
    if kind == "pairs":
        return _parse_pairs(last)
    if not last.strip():
        return _EMPTY
    if kind == "choice":
        return next((v for v in _enum(schema) if str(v) == last), last)
    if kind == "json":
        try:
            return json.loads(last)
        except ValueError:
            return last
    return last.strip()


def _parse_pairs(text: str) -> dict[str, str]:
    """ "name = value" lines. A line without "=" keeps an empty value, which pydantic then refuses by name."""
    found = {}
    for line in text.splitlines():
        if line.strip():
            name, _, value = line.rpartition("=") if "=" in line else (line, "", "")
            found[name.strip()] = value.strip()
    return found


def _shown(value: Any, kind: str) -> Any:
    """A value as its input shows it."""
    if kind == "boolean":
        return bool(value)
    if kind == "choices":
        return [str(v) for v in value or ()]
    if value is None:
        return ""
    if kind == "lines" and not isinstance(value, str):
        return "\n".join(str(v) for v in value)
    if kind == "pairs" and isinstance(value, Mapping):
        return "\n".join(f"{k} = {_shown(v, 'number')}" for k, v in value.items())
    if kind == "json" and not isinstance(value, str):
        return json.dumps(value, indent=2, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.10g}"
    return value


def _compare(value: Any, kind: str) -> Any:
    """A form of `value` in which "0.35" and 0.35 are the same."""
    shown = _shown(value, kind)
    if kind in ("number", "integer"):
        try:
            return float(shown)
        except (TypeError, ValueError):
            return shown
    return sorted(shown) if kind == "choices" else shown
