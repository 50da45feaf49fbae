"""Tables of comparison and judging in the administration, one module each. Importing the modules registers them."""

from __future__ import annotations

from . import experiments, judges

__all__ = ["experiments", "judges"]
