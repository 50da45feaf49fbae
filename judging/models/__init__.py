"""State, constraints and querysets of comparison and judging."""

from __future__ import annotations

from .experiments import Experiment, ExperimentRecipe, ExperimentRun
from .votes import Vote

__all__ = [
    "Experiment",
    "ExperimentRecipe",
    "ExperimentRun",
    "Vote",
]
