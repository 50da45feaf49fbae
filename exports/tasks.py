"""What the queue calls."""

from __future__ import annotations


def export(job_id: int) -> None:
    """Write the file of an ExportJob."""
    from .actions import run_export
    from .models import ExportJob

    try:
        run_export(job_id)
    except ExportJob.DoesNotExist:  # deleted meanwhile
        return


def import_metadata(job_id: int) -> None:
    """Do the queued step of an ImportJob."""
    from .import_models import ImportJob
    from .imports import run_import

    try:
        run_import(job_id)
    except ImportJob.DoesNotExist:  # deleted meanwhile
        return
