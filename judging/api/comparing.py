"""The router of experiments, whole: its operations stand in three modules."""

from __future__ import annotations

from . import best, bundles, experiments

__all__ = ["best", "bundles", "router"]

router = experiments.router
