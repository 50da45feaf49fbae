from __future__ import annotations

from django.apps import AppConfig


class JudgingConfig(AppConfig):
    name = "judging"
    verbose_name = "Comparison and judging"

    def ready(self) -> None:
        from . import tasks  # noqa: F401  importing the tasks registers their sweeps
