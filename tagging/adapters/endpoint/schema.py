"""Does a JSON value have the form that was asked for? Servers promise it and break it, so every reply is checked here.

The part of JSON Schema that requests use: types, enum and const, bounds of numbers, lengths and patterns of strings,
items and properties, anyOf, oneOf, allOf, not, and references within the schema. What is unknown is passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

#: Problems listed at most: a person and a model read the first ones.
MOST = 8
_DEPTH = 40
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: not isinstance(v, bool) and (isinstance(v, int) or (isinstance(v, float) and v.is_integer())),
}


def problems(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with `value`, one line a finding, with its path ("tags[2]: …"); empty when it fits."""
    found: list[str] = []
    _Check(schema, found).value(value, schema, "", 0)
    return found[:MOST]


class _Check:
    def __init__(self, root: dict[str, Any], found: list[str]) -> None:
        self.root, self.found = root, found

    def value(self, value: Any, schema: Any, path: str, depth: int) -> None:
        if schema is False:
            self._say(path, "is not allowed")
        if not isinstance(schema, dict) or depth > _DEPTH or len(self.found) >= MOST:
            return
        if "$ref" in schema:
            self.value(value, self._resolved(schema["$ref"]), path, depth + 1)
        wanted = schema.get("type")
        types = [wanted] if isinstance(wanted, str) else wanted or []
        if types and not any(_TYPES.get(t, lambda _: True)(value) for t in types):
            self._say(path, f"must be {' or '.join(types)}, not {_kind(value)}")
            return
        if "enum" in schema and not any(_same(value, v) for v in schema["enum"]):
            self._say(path, f"{_short(value)} is not one of the allowed values")
        if "const" in schema and not _same(value, schema["const"]):
            self._say(path, f"must be {_short(schema['const'])}")
        self._combined(value, schema, path, depth)
        if isinstance(value, dict):
            self._object(value, schema, path, depth)
        elif isinstance(value, list):
            self._array(value, schema, path, depth)
        elif isinstance(value, str):
            self._string(value, schema, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._number(value, schema, path)

    def _combined(self, value: Any, schema: dict[str, Any], path: str, depth: int) -> None:
        for part in schema.get("allOf", ()):
            self.value(value, part, path, depth + 1)
        for name, most in (("anyOf", None), ("oneOf", 1)):
            if parts := schema.get(name):
                fitting = sum(not self._trial(value, part, depth) for part in parts)
                if not fitting or (most and fitting > most):
                    self._say(path, "fits none of its forms" if not fitting else "fits more than one of its forms")
        if "not" in schema and not self._trial(value, schema["not"], depth):
            self._say(path, "has a form that is excluded")

    def _trial(self, value: Any, schema: Any, depth: int) -> list[str]:
        found: list[str] = []
        _Check(self.root, found).value(value, schema, "", depth + 1)
        return found

    def _object(self, value: dict[str, Any], schema: dict[str, Any], path: str, depth: int) -> None:
        known = schema.get("properties") or {}
        for name in schema.get("required", ()):
            if name not in value:
                self._say(path, f"lacks {name!r}")
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            if name in known:
                self.value(inner, known[name], where, depth + 1)
            elif "additionalProperties" in schema:
                self.value(inner, schema["additionalProperties"], where, depth + 1)
        self._count(len(value), schema, path, "minProperties", "maxProperties", "properties")

    def _array(self, value: list[Any], schema: dict[str, Any], path: str, depth: int) -> None:
        first = schema.get("prefixItems") or ()
        for i, inner in enumerate(value):
            rule = first[i] if i < len(first) else schema.get("items")
            if rule is not None:
                self.value(inner, rule, f"{path}[{i}]", depth + 1)
        self._count(len(value), schema, path, "minItems", "maxItems", "items")
        if schema.get("uniqueItems") and len({json.dumps(v, sort_keys=True) for v in value}) < len(value):
            self._say(path, "repeats an item")

    def _string(self, value: str, schema: dict[str, Any], path: str) -> None:
        self._count(len(value), schema, path, "minLength", "maxLength", "characters")
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and len(pattern) < 500 and len(value) < 10_000:
            try:
                fits = re.search(pattern, value) is not None
            except re.error:
                return
            if not fits:
                self._say(path, f"does not match {pattern}")

    def _number(self, value: float, schema: dict[str, Any], path: str) -> None:
        if not math.isfinite(value):
            self._say(path, "must be a finite number")
            return
        for name, wrong, words in (
            ("minimum", lambda a, b: a < b, "at least"),
            ("maximum", lambda a, b: a > b, "at most"),
            ("exclusiveMinimum", lambda a, b: a <= b, "more than"),
            ("exclusiveMaximum", lambda a, b: a >= b, "less than"),
        ):
            limit = schema.get(name)
            if isinstance(limit, int | float) and not isinstance(limit, bool) and wrong(value, limit):
                self._say(path, f"{value:g} must be {words} {limit:g}")
        step = schema.get("multipleOf")
        if isinstance(step, int | float) and step > 0 and abs(value / step - round(value / step)) > 1e-9:
            self._say(path, f"{value:g} is no multiple of {step:g}")

    def _count(self, n: int, schema: dict[str, Any], path: str, least: str, most: str, what: str) -> None:
        if isinstance(schema.get(least), int) and n < schema[least]:
            self._say(path, f"has {n} {what}, at least {schema[least]} are wanted")
        if isinstance(schema.get(most), int) and n > schema[most]:
            self._say(path, f"has {n} {what}, at most {schema[most]} are allowed")

    def _resolved(self, reference: Any) -> Any:
        """A reference within the schema ("#/$defs/Tag"); None for any other."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        found: Any = self.root
        for part in reference[1:].strip("/").split("/") if reference != "#" else ():
            part = part.replace("~1", "/").replace("~0", "~")
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def _say(self, path: str, what: str) -> None:
        if len(self.found) < MOST:
            self.found.append(f"{path or 'the answer'}: {what}")


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: True is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _kind(value: Any) -> str:
    return next((name for name, fits in _TYPES.items() if fits(value)), type(value).__name__)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
