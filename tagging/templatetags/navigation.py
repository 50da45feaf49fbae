from __future__ import annotations

from typing import Any

from django import template

from ..navigation import LIBRARY, MAIN

register = template.Library()


@register.inclusion_tag("tagging/partials/nav.html", takes_context=True)
def main_nav(context: dict[str, Any]) -> dict[str, Any]:
    """The header's links; the one of this page is marked."""
    request = context.get("request")
    match = getattr(request, "resolver_match", None)
    here = {match.url_name, match.app_name} if match else set()
    library = [(link, bool(here & link.at)) for link in LIBRARY]
    return {
        "main": [(link, bool(here & link.at)) for link in MAIN],
        "library": library,
        "in_library": any(on for _, on in library),
        "user": context.get("user"),
    }
