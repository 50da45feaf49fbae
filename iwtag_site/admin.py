"""The administration site: the stock one, with our order of things."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

#: Tables of packages that only serve us: the queue is the doorbell, our own tables are the ledger.
HIDDEN_APPS = {"django_q"}
APPS = ("tagging", "prompts", "judging", "exports", "auth")
MODELS = tuple(
    "Collection ImageAsset Tag ModelAdapter Run Proposal Prediction Recipe Policy PolicyVersion TagEdit IngestJob "
    "Chunk Worker ApiKey Prompt PromptVersion Wordlist WordlistVersion".split()
)


class Site(admin.AdminSite):
    site_header = "iwtag administration"
    site_title = "iwtag administration"
    index_title = "Administration"

    def register(self, model_or_iterable: Any, *args: Any, **kwargs: Any) -> None:
        given = model_or_iterable if isinstance(model_or_iterable, (list, tuple)) else [model_or_iterable]
        shown: list[type[Model]] = [m for m in given if m._meta.app_label not in HIDDEN_APPS]
        if shown:
            super().register(shown, *args, **kwargs)

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """In the order of the work, not of the alphabet; what is not named comes last."""
        apps = super().get_app_list(request, app_label)
        for app in apps:
            app["models"].sort(key=lambda m: (_place(MODELS, m["object_name"]), m["name"]))
        return sorted(apps, key=lambda a: (_place(APPS, a["app_label"]), a["name"]))


def _place(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else len(names)
