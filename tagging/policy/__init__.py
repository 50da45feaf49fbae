"""Everything done to raw tags and text after the model: pure functions, each drop with its reason."""

from __future__ import annotations
