from __future__ import annotations

import errno
import logging
import re
import signal
import socket
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tagging.engine import process
from tagging.management.static_files import collect

log = logging.getLogger("tagging.web")


class Command(BaseCommand):
    help = "Serves the pages and the API. Never loads a model: that is the workers' part."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", nargs="?", help="[host:]port (default: IWTAG_HOST and IWTAG_PORT)")
        parser.add_argument("--threads", type=int, default=8, help="requests served at once (%(default)s)")

    def handle(self, *args: Any, address: str | None = None, threads: int = 8, **options: Any) -> None:
        host, port = parse_address(address)
        if threads < 1:
            raise CommandError("--threads: at least 1.")
        process.die_with_named_parent()
        collect()
        server = make_server(host, port, threads)
        host, port = server.bind_addr[:2]
        self.stdout.write(f"Serving {url(host, port)}")
        self.stdout.flush()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _interrupt)
        try:
            server.serve()
        except KeyboardInterrupt:
            pass
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # one is enough
            server.stop()


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def parse_address(text: str | None) -> tuple[str, int]:
    """ "[host:]port" → (host, port), with the settings where a part is missing. CommandError when it cannot be one."""
    if not text:
        return settings.IWTAG_HOST, settings.IWTAG_PORT
    match = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):)?(\d{1,5})", text)
    if not match or int(match[2]) > 65535:
        raise CommandError(f"{text!r} is not an address: give a port, or host:port such as 127.0.0.1:8000.")
    return (match[1] or settings.IWTAG_HOST).strip("[]"), int(match[2])


def url(host: str, port: int) -> str:
    """The address to open: one that a browser on this machine can reach."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def why_not(host: str, port: int, error: OSError) -> str:
    """A line that says why the server cannot listen there, and the mend."""
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop what uses it, or choose another: IWTAG_PORT={port % 65535 + 1}."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has. Choose one above 1023: IWTAG_PORT=8000."
    return f"Cannot listen on {host}, port {port}: {error.strerror or error}. Check IWTAG_HOST and IWTAG_PORT."


def check_free(host: str, port: int) -> None:
    """CommandError when nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as e:
            raise CommandError(why_not(host, port, e)) from None


def make_server(host: str, port: int, threads: int) -> Any:
    """A bound server. CommandError when the address is taken."""
    from cheroot import wsgi
    from django.core.wsgi import get_wsgi_application

    class Server(wsgi.Server):
        def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
            if msg and "shutting down" not in msg:
                log.log(level, msg.strip(), exc_info=traceback)

    check_free(host, port)  # cheroot says no more than "No socket could be created"
    server = Server(
        (host, port), get_wsgi_application(), numthreads=threads, request_queue_size=64, timeout=30, shutdown_timeout=1
    )
    try:
        server.prepare()
    except OSError as e:
        raise CommandError(why_not(host, port, e)) from None
    return server
