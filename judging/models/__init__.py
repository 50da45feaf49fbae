"""State, constraints and querysets of comparison and judging."""

from __future__ import annotations

from .calibration import Calibration, InboxAnswer
from .experiments import Experiment, ExperimentRecipe, ExperimentRun
from .judge_jobs import Gate, GateOutcome, JudgeJob
from .judges import (
    JudgedTag,
    JudgeProfile,
    JudgeProfileVersion,
    JudgeVerdict,
    RunVerdict,
    family_of,
    replies_of,
    verdict_key,
)
from .overnight import OvernightRound, OvernightSearch
from .second_looks import SecondLook, SecondLookShare
from .votes import Vote

__all__ = [
    "Calibration",
    "Experiment",
    "ExperimentRecipe",
    "ExperimentRun",
    "Gate",
    "GateOutcome",
    "InboxAnswer",
    "JudgeJob",
    "JudgeProfile",
    "JudgeProfileVersion",
    "JudgeVerdict",
    "JudgedTag",
    "OvernightRound",
    "OvernightSearch",
    "RunVerdict",
    "SecondLook",
    "SecondLookShare",
    "Vote",
    "family_of",
    "replies_of",
    "verdict_key",
]
