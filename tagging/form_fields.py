"""One input of a form that is drawn from a JSON schema: what kind it is, what it shows, what was typed into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONG_TEXT = 200  # a string that may be longer gets a text area
#: Stands for "nothing was entered".
EMPTY = object()


@dataclass(frozen=True)
class Choice:
    """One value of a select or of a list of checkboxes, with whether it is chosen."""

    value: str
    label: str
    chosen: bool


@dataclass
class SchemaField:
    """One property of the schema, ready to be drawn.

    `kind` is number, integer, boolean, choice, choices, text, long, lines (a list of strings, one a line), groups (a
    list of such lists, one a line with commas), pairs (a mapping, "name = value" a line) or json (whatever else there
    is). `value` is what the input shows.
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
    configured: bool = False  # `initial` is not the schema's default: the adapter's row says so
    start_word: str = "default"

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
    def group(self) -> str:
        """The heading it stands under; "" for those that come first, without one."""
        return str(self.schema.get("group", ""))

    @property
    def unit(self) -> str:
        return str(self.schema.get("unit", ""))

    @property
    def placeholder(self) -> str:
        """What an empty input means."""
        return str(self.schema.get("placeholder", "")) or ("none" if self.optional and self.kind != "choice" else "")

    @property
    def changed(self) -> bool:
        """What it shows is not where it starts."""
        return comparable(self.value, self.kind) != comparable(shown(self.initial, self.kind), self.kind)

    @property
    def start(self) -> str:
        """The starting value for a script that puts it back: the text of the input, "true"/"false" of a checkbox, a
        JSON list of ticked values."""
        value = shown(self.initial, self.kind)
        if self.kind == "choices":
            return json.dumps(sorted(value))
        return str(value).lower() if self.kind == "boolean" else str(value)

    @property
    def start_text(self) -> str:
        """The starting value in words, for the mark of a field that was changed."""
        if self.kind == "boolean":
            return "on" if self.initial else "off"
        if self.kind == "choices":
            return ", ".join(self.labels.get(v, str(v)) for v in self.initial or ()) or "none"
        if self.initial in (None, "", [], {}, ()):
            return "empty"
        label = self.labels.get(self.initial, self.initial) if self.kind == "choice" else self.initial
        text = " ".join(str(shown(label, self.kind)).split())
        return text if len(text) <= 60 else text[:59] + "…"

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
        return "0.01" if self.bounded and self.maximum - self.minimum <= 2 else "any"

    @property
    def slider_step(self) -> str:
        return self.step if self.step != "any" else "0.05"

    @property
    def bounded(self) -> bool:
        """Both ends are known."""
        return self.kind in ("number", "integer") and self.minimum is not None and self.maximum is not None

    @property
    def slider(self) -> bool:
        """A slider makes sense beside the number: both ends are known, a step of it can be hit (a whole number up to a
        few hundred steps, or a fraction of a short range), and it does not start empty."""
        if not self.bounded or (self.optional and self.initial is None) or self.schema.get("slider") is False:
            return False
        span = self.maximum - self.minimum
        return bool(span <= 10 if self.kind == "number" else span <= 512)

    @property
    def range_text(self) -> str:
        if self.kind not in ("number", "integer"):
            return ""
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            return f"{plain(low)} to {plain(high)}"
        if low is not None:
            return f"{'more than' if 'exclusiveMinimum' in self.schema else 'at least'} {plain(low)}"
        if high is not None:
            return f"{'less than' if 'exclusiveMaximum' in self.schema else 'at most'} {plain(high)}"
        return ""

    @property
    def default_text(self) -> str:
        """The starting value in words, and whose it is; empty where there is none worth a word."""
        if self.required or self.kind in ("json", "pairs", "lines", "groups", "choices", "long"):
            return ""
        whose = ", set for this model" if self.configured and self.start_word == "default" else ""
        if self.kind == "boolean":
            return f"default: {self.start_text}{whose}" if whose else ""
        if self.initial is None:
            return f"{self.start_word}: none{whose}"
        label = self.labels.get(self.initial, self.initial) if self.kind == "choice" else self.initial
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.start_word}: {shown(label, self.kind)}{unit}{whose}" if label != "" else ""

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


def plain(value: float) -> str:
    """A number without an exponent: 65535, 0.0001."""
    return f"{value:.10g}" if abs(value) < 1e10 else f"{value:g}"


# -- JSON schema → kinds and back --------------------------------------------------------------------------------------


def flat(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
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
            long = schema.get("maxLength", 0) > LONG_TEXT or schema.get("format") == "textarea"
            return "long" if long else "text"
        case "array":
            items = schema.get("items", {})
            if "enum" in items:
                return "choices"
            if items.get("type") == "array" and items.get("items", {}).get("type") == "string":
                return "groups"
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


def parse(schema: dict[str, Any], values: list[str]) -> Any:
    """Posted strings → a value for pydantic, or EMPTY where nothing was entered. Bad input stays as it was typed."""
    kind, last = schema["kind"], values[-1]
    if kind == "boolean":
        return last == "true"
    if kind == "choices":
        return [v for v in values if v]
    if kind in ("text", "long"):
        return last if last or not schema["optional"] else EMPTY
    if kind == "lines":
        return [line.strip() for line in last.splitlines() if line.strip()]
    if kind == "groups":
        words = ([word.strip() for word in line.split(",") if word.strip()] for line in last.splitlines())
        return [group for group in words if group]
    if kind == "pairs":
        return _parse_pairs(last)
    if not last.strip():
        return EMPTY
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


def shown(value: Any, kind: str) -> Any:
    """A value as its input shows it."""
    if kind == "boolean":
        return bool(value)
    if kind == "choices":
        return [str(v) for v in value or ()]
    if value is None:
        return ""
    if kind == "lines" and not isinstance(value, str):
        return "\n".join(str(v) for v in value)
    if kind == "groups" and not isinstance(value, str):
        return "\n".join(", ".join(str(word) for word in group) for group in value)
    if kind == "pairs" and isinstance(value, Mapping):
        return "\n".join(f"{k} = {shown(v, 'number')}" for k, v in value.items())
    if kind == "json" and not isinstance(value, str):
        return json.dumps(value, indent=2, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.10g}"
    return value


def comparable(value: Any, kind: str) -> Any:
    """A form of `value` in which "0.35" and 0.35 are the same."""
    text = shown(value, kind)
    if kind in ("number", "integer"):
        try:
            return float(text)
        except (TypeError, ValueError):
            return text
    return sorted(text) if kind == "choices" else text
