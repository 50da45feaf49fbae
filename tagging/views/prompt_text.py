"""The text of a prompt as the editor's form sends it."""

from __future__ import annotations

import json
from typing import Any

from .guard import Request


def number_of(text: str) -> int:
    """A number of an address or a form; 0 where it is none."""
    return int(text[:18]) if text.isdecimal() else 0


def typed(request: Request) -> tuple[str, str, Any, str]:
    """System, template, response schema (an object or None) and the error of a schema that is no JSON."""
    schema_text = request.POST.get("response_schema", "").strip()
    schema, problem = None, ""
    if schema_text:
        try:
            schema = json.loads(schema_text)
        except ValueError as error:
            problem = f"Line {getattr(error, 'lineno', 1)}: not JSON: {getattr(error, 'msg', error)}."
    system = request.POST.get("system", "").replace("\r\n", "\n")
    return system, request.POST.get("template", "").replace("\r\n", "\n"), schema, problem
