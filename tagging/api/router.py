"""A router whose operations refuse what they cannot mean: query parameters they do not know (a misspelt filter must not
return everything), and text or numbers that no database can keep."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

import ninja
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest
from ninja.constants import NOT_SET
from ninja.signature import ViewSignature
from pydantic import BaseModel

from .errors import Problem

LARGEST = 2**63 - 1  # what the databases' largest whole numbers hold


class Router(ninja.Router):
    def add_api_operation(self, path: str, methods: list[str], view_func: Callable[..., Any], **kwargs: Any) -> None:
        given = kwargs.get("response", NOT_SET)
        if given is not NOT_SET and kwargs.get("auth", NOT_SET) is not None:
            kwargs["response"] = {**(given if isinstance(given, dict) else {200: given}), **_problems(path)}
        super().add_api_operation(path, methods, _strict(path, view_func), **kwargs)


def _problems(path: str) -> dict[int, type[Problem]]:
    """What any operation may answer, for the schema."""
    return dict.fromkeys((401, 403, *((404,) if "{" in path else ()), 422), Problem)


def _strict(path: str, view: Callable[..., Any]) -> Callable[..., Any]:
    @cache
    def known() -> set[str]:
        models = [m for m in ViewSignature(path, view).models if m.__ninja_param_source__ == "query"]
        return {name for model in models for name in model.__ninja_flatten_map__}

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if unknown := sorted(set(request.GET) - known()):
            names = ", ".join(sorted(known())) or "none"
            raise ValidationError({unknown[0]: f"There is no parameter {unknown[0]!r} here; there are: {names}."})
        for field, why in _unkeepable(kwargs):
            if f"{{int:{field}}}" in path:
                raise Http404(f"There is no such {field.removesuffix('_id')}.")
            raise ValidationError({field: why})
        return view(request, *args, **kwargs)

    # ninja reads annotations with the globals of the function it is given, which are not those of the view
    checked.__signature__ = inspect.signature(view, eval_str=True)  # type: ignore[attr-defined]
    return checked


def _unkeepable(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(field, what is wrong) of everything in parsed input that JSON can say and a database cannot keep: NUL, half
    characters, numbers that are none. The fields of a payload are named as they were sent."""
    if isinstance(value, str):
        if "\x00" in value:
            yield name, "Text must not contain NUL."
        elif any("\ud800" <= c <= "\udfff" for c in value):
            yield name, "Text must not contain halves of characters (lone surrogates)."
    elif isinstance(value, int):
        if not -LARGEST <= value <= LARGEST:
            yield name, "The number is too large."
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield name, "Give a finite number."
    elif isinstance(value, BaseModel):
        outer = "" if name in ("payload", "filters") else f"{name}."
        for key in value.model_fields_set:
            yield from _unkeepable(getattr(value, key), outer + key)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _unkeepable(key, name)
            yield from _unkeepable(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _unkeepable(inner, name)
