"""HTTP to an endpoint and to nowhere else: each connection goes to an address that was checked a moment before.

A host name is looked up here, every answer is checked, and the connection is made to that very address (the name stays
in the Host header and in the TLS certificate's check), so that a name cannot point elsewhere between check and call.
Redirects are not followed and proxies of the environment not used. Replies have a limit of size and of time.

Imported only by the code that calls an endpoint, with `openai` and `httpx2`.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterator

import httpx2

from .addresses import HostNotFound, check_address, private_allowed

#: Bytes of a reply at most.
LARGEST_REPLY = 8 * 1024 * 1024
#: Seconds for which a looked-up address is used.
REMEMBERED = 30.0


class ReplyTooLarge(httpx2.ReadError):
    """The server sends more than any answer can need."""


class _Deadline(threading.local):
    """When the request that this thread makes has to be over (monotonic)."""

    at: float | None = None


DEADLINE = _Deadline()


class Guarded(httpx2.BaseTransport):
    """A transport that checks where it connects to. Thread-safe."""

    def __init__(self, connections: int) -> None:
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._inner = httpx2.HTTPTransport(limits=limits, trust_env=False, retries=0)
        self._known: dict[tuple[str, int | None], tuple[float, list[str]]] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises AddressRefused; ConnectError when no address of the host answers."""
        host, port = request.url.host, request.url.port
        addresses = self._addresses(str(request.url), host, port)
        for i, address in enumerate(addresses):
            try:
                response = self._inner.handle_request(_to(request, host, address))
                break
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                self._known.pop((host, port), None)
                if i == len(addresses) - 1:
                    raise
        response.stream = _Bounded(response.stream, DEADLINE.at)  # type: ignore[arg-type]
        return response

    def _addresses(self, url: str, host: str, port: int | None) -> list[str]:
        known = self._known.get((host, port))
        if known and time.monotonic() - known[0] < REMEMBERED:
            return known[1]
        try:
            found = [str(address) for address in check_address(url, allow_private=private_allowed())]
        except HostNotFound as error:
            raise httpx2.ConnectError(str(error), request=None) from error
        addresses = list(dict.fromkeys(found))[:4]
        self._known[(host, port)] = (time.monotonic(), addresses)
        return addresses

    def close(self) -> None:
        self._inner.close()


def _to(request: httpx2.Request, host: str, address: str) -> httpx2.Request:
    """The same request to a numeric address, named as before to the server and to TLS."""
    if host == address:
        return request
    url = request.url.copy_with(host=f"[{address}]" if ipaddress.ip_address(address).version == 6 else address)
    extensions = {**request.extensions, "sni_hostname": host}
    return httpx2.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)


class _Bounded(httpx2.SyncByteStream):
    """A reply's body that ends with an error when it grows too large or takes too long."""

    def __init__(self, inner: httpx2.SyncByteStream, deadline: float | None) -> None:
        self._inner, self._deadline = inner, deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._inner:
            size += len(part)
            if size > LARGEST_REPLY:
                raise ReplyTooLarge(f"the reply is larger than {LARGEST_REPLY // 2**20} MB")
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("the reply took too long")
            yield part

    def close(self) -> None:
        self._inner.close()
