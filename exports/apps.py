from __future__ import annotations

from django.apps import AppConfig


class ExportsConfig(AppConfig):
    name = "exports"
    verbose_name = "Exports"

    def ready(self) -> None:
        from tagging import queue, watching

        queue.register_sweep(_sweep)
        watching.register_step("export", "exports.watch:ExportStep")
        queue.register_sweep(_sweep_imports)


def _sweep() -> None:
    from .actions import sweep

    sweep()


def _sweep_imports() -> None:
    from .imports import sweep

    sweep()
