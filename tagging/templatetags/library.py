"""Small things that the pages of prompts, wordlists and policies need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template

register = template.Library()


@register.filter
def most(counts: Mapping[str, int], n: int = 8) -> list[tuple[str, int]]:
    """The n highest counts, highest first (a database may give JSON back in any order)."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]


@register.filter
def of(mapping: Mapping[Any, Any], key: Any) -> Any:
    """mapping[key]; None where there is none."""
    return mapping.get(key)
