"""State, constraints and querysets of comparison and judging."""

from __future__ import annotations
