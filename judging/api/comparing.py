"""The router of experiments, whole: its operations stand in four modules."""

from __future__ import annotations

from . import best, bundles, experiments, reports

__all__ = ["best", "bundles", "reports", "router"]

router = experiments.router
