"""How a server can be asked for JSON, found out by asking: the best rung it takes is remembered.

    json_schema          {"type": "json_schema", "json_schema": {…}}
    json_object+schema   {"type": "json_object", "schema": {…}}
    json_object          {"type": "json_object"}, the schema in the prompt
    none                 the schema in the prompt

A server that refuses a rung is asked one further down. One that takes a rung and then does not keep to it (the model
never saw the schema) is asked from the prompt on as well.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

RUNGS = ("json_schema", "json_object+schema", "json_object", "none")
_BY_MODE = {
    "auto": RUNGS,
    "json_schema": ("json_schema",),
    "json_object": ("json_object+schema", "json_object"),
    "none": ("none",),
}
#: Answers out of form, on a rung that promises form, after which the promise is not believed any more.
BROKEN_PROMISES = 3
_ABOUT_FORMAT = re.compile(
    r"response_?format|json_?schema|json_?object|json mode|structured|grammar|guided|schema|format", re.IGNORECASE
)
_ABOUT_MAX_TOKENS = re.compile(r"max_completion_tokens", re.IGNORECASE)


class Ladder:
    """What one server and model were found to take. Thread-safe; shared by all that ask them in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: set[str] = set()
        self._broken: dict[str, int] = {}
        self.max_completion_tokens = False  # the limit has to be sent under its new name
        self._answers_as = ""

    def rungs(self, mode: str) -> list[str]:
        """What to try, best first; never empty."""
        with self._lock:
            found = [rung for rung in _BY_MODE[mode] if rung not in self._refused]
            return found or [_BY_MODE[mode][-1]]

    def refuse(self, rung: str) -> None:
        """The server takes it not, as the next rung showed."""
        with self._lock:
            self._refused.add(rung)

    def out_of_form(self, rung: str) -> None:
        """An answer did not keep to the schema."""
        with self._lock:
            self._broken[rung] = self._broken.get(rung, 0) + 1
            if self._broken[rung] >= BROKEN_PROMISES and rung != "none":
                self._refused.add(rung)

    def moved(self, name: str) -> bool:
        """The server answers as `name`: True when it answered as another model before, so that the alias has moved."""
        with self._lock:
            before, self._answers_as = self._answers_as, name
            return bool(before) and before != name

    def in_form(self, rung: str) -> None:
        with self._lock:
            self._broken[rung] = 0


def response_format(rung: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    """What is sent for a rung."""
    if rung == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": "answer", "strict": _strict(schema), "schema": schema}}
    if rung == "json_object+schema":
        return {"type": "json_object", "schema": schema}
    return {"type": "json_object"} if rung == "json_object" else None


def instruction(rung: str, schema: dict[str, Any]) -> str:
    """What the prompt has to say on a rung that shows the model no schema; empty on the others."""
    if rung in ("json_schema", "json_object+schema"):
        return ""
    return f"Answer with JSON only, of the form of this JSON schema:\n{json.dumps(schema, ensure_ascii=False)}"


def _strict(schema: Any) -> bool:
    """OpenAI's strict mode wants every object closed and every property required; asking it of others is an error."""
    if isinstance(schema, list):
        return all(_strict(s) for s in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        names = set(schema.get("properties") or {})
        if schema.get("additionalProperties") is not False or names != set(schema.get("required") or ()):
            return False
    return all(_strict(value) for key, value in schema.items() if key not in ("enum", "const", "required"))


def is_about_format(message: str) -> bool:
    """Whether a server's refusal may mean the response format."""
    return bool(_ABOUT_FORMAT.search(message))


def wants_max_completion_tokens(message: str) -> bool:
    return bool(_ABOUT_MAX_TOKENS.search(message))


_LADDERS: dict[tuple[str, str], Ladder] = {}
_LOCK = threading.Lock()


def ladder(address: str, model: str) -> Ladder:
    """What is known of a server and model in this process."""
    with _LOCK:
        return _LADDERS.setdefault((address, model), Ladder())


def forget() -> None:
    """Nothing was found out (tests)."""
    with _LOCK:
        _LADDERS.clear()
