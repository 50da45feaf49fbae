"""Adapters: every model family behind one contract. Import `registry`, not the family modules."""

from __future__ import annotations
