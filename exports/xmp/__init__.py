"""XMP sidecars: read, merge and edit without touching what is not ours. Pure: bytes in, bytes out."""

from __future__ import annotations
