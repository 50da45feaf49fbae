"""What the log says of requests: one line for each that was refused, a traceback only where the fault is ours."""

from __future__ import annotations

import logging


class RefusalsInOneLine(logging.Filter):
    """Takes the traceback off refusals (4xx): Django logs them with the exception that carried them."""

    def filter(self, record: logging.LogRecord) -> bool:
        refused = record.name == "django.request" and record.levelno < logging.ERROR
        if refused or record.name.startswith("django.security"):
            record.exc_info = record.exc_text = None
        return True
