"""What the queue calls. Each task is thin: load by id, call the action; problems are stored, never raised."""

from __future__ import annotations
