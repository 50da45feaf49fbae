"""Which addresses an endpoint may have: a curator types them, and the server must not be talked into others.

Only http and https. Link-local addresses (169.254.0.0/16, where clouds keep their metadata services, and fe80::/10),
multicast, unspecified and reserved ones are always refused, also when a host name resolves to one. Private and loopback
addresses, where local model servers live, are a setting.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

#: Metadata services outside the link-local range.
_METADATA = frozenset(
    ipaddress.ip_address(a) for a in ("100.100.100.200", "168.63.129.16", "fd00:ec2::254", "192.0.0.192")
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(ValueError):
    """The address may not be called. The text says why and the mend."""


def check_address(url: str, *, allow_private: bool = True, resolve: bool = True) -> list[Address]:
    """The IP addresses behind `url`, all of them allowed. Raises AddressRefused.

    With `resolve` host names are looked up, and every answer is checked: call it right before connecting too, because
    names can change what they point to.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise AddressRefused(f"{url!r} is no address: {e}.") from None
    if parts.scheme not in ("http", "https"):
        raise AddressRefused(f"{url!r} must begin with http:// or https://.")
    if not host:
        raise AddressRefused(f"{url!r} names no host.")
    if parts.username or parts.password:
        raise AddressRefused("Keys do not belong in an address: name the environment variable that holds the key.")
    try:
        found = [ipaddress.ip_address(host)]
    except ValueError:
        if not resolve:
            return []
        found = _look_up(host, port or (443 if parts.scheme == "https" else 80))
    for address in found:
        _check(address, host, allow_private)
    return found


def _look_up(host: str, port: int) -> list[Address]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as e:
        raise AddressRefused(f"The host {host!r} is not found: {e.strerror or e}.") from None
    return [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]


def _check(address: Address, host: str, allow_private: bool) -> None:
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    named = f"{host} ({address})" if host != str(address) else host
    if address in _METADATA or address.is_link_local:
        raise AddressRefused(f"{named} is a link-local or metadata address: it is never called.")
    if address.is_loopback:
        if not allow_private:
            raise AddressRefused(f"{named} is this machine: allow it with IWTAG_ALLOW_PRIVATE_ENDPOINTS=True.")
        return
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        raise AddressRefused(f"{named} is not the address of a server.")
    if address.is_private and not allow_private:
        raise AddressRefused(f"{named} is a private address: allow it with IWTAG_ALLOW_PRIVATE_ENDPOINTS=True.")
