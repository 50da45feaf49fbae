"""Tables of comparison and judging in the administration, one module each. Importing the modules registers them."""

from __future__ import annotations

from . import judges

__all__ = ["judges"]
