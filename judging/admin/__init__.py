"""Tables of comparison and judging in the administration, one module each."""

from __future__ import annotations
