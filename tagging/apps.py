from __future__ import annotations

from django.apps import AppConfig


class TaggingConfig(AppConfig):
    name = "tagging"
    verbose_name = "Tagging"

    def ready(self) -> None:
        from . import queue, tasks  # noqa: F401  importing the tasks registers their sweeps

        queue.connect_hooks()
