"""The only module that knows django-q2: our tables are the ledger, the queue is only the doorbell."""

from __future__ import annotations


def connect_hooks() -> None:
    """Called once by the app's ready()."""
