from __future__ import annotations

from django.apps import AppConfig


class JudgingConfig(AppConfig):
    name = "judging"
    verbose_name = "Comparison and judging"

    def ready(self) -> None:
        from tagging import watching
        from tagging.engine import leases

        from . import tasks  # importing the tasks registers their sweeps

        leases.ENDED.append(tasks.run_ended)
        watching.register_step("gate", "judging.watch:GateStep")
