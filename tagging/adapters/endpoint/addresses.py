"""Which addresses an endpoint may have: a curator types them, and the server must not be talked into others.

Only http and https. Link-local addresses (169.254.0.0/16, where clouds keep their metadata services, and fe80::/10),
multicast, unspecified and reserved ones are always refused, also when a host name resolves to one. This machine is
allowed, because local model servers live there; other private addresses are a setting, IWTAG_ALLOW_PRIVATE_ENDPOINTS:
unset allows this machine only, True the private networks as well, False neither.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from urllib.parse import urlsplit

#: Metadata services outside the link-local range.
_METADATA = frozenset(
    ipaddress.ip_address(a) for a in ("100.100.100.200", "168.63.129.16", "fd00:ec2::254", "192.0.0.192")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


SETTING = "IWTAG_ALLOW_PRIVATE_ENDPOINTS"


class AddressRefused(ValueError):
    """The address may not be called. The text says why and the mend."""


class HostNotFound(AddressRefused):
    """The name leads nowhere now. It may tomorrow."""


def private_allowed() -> bool | None:
    """What the setting says: True for private networks and this machine, None for this machine only, False for neither.

    Read here, for adapters know no settings.
    """
    given = os.environ.get(SETTING, "").strip().lower()
    return None if not given else given in ("true", "1", "yes", "on")


def check_address(url: str, *, allow_private: bool | None = True, resolve: bool = True) -> list[Address]:
    """The IP addresses behind `url`, all of them allowed. Raises AddressRefused. `allow_private` as `private_allowed`.

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
        raise HostNotFound(f"The host {host!r} is not found: {e.strerror or e}.") from None
    return [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]


def _check(address: Address, host: str, allow_private: bool | None) -> None:
    if isinstance(address, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        address = address.ipv4_mapped or address.sixtofour or inner or address
    named = f"{host} ({address})" if host != str(address) else host
    if address in _METADATA or address.is_link_local:
        raise AddressRefused(f"{named} is a link-local or metadata address: it is never called.")
    if address.is_loopback:
        if allow_private is False:
            raise AddressRefused(f"{named} is this machine: {SETTING}=False forbids it.")
        return
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        raise AddressRefused(f"{named} is not the address of a server.")
    if not address.is_global and not allow_private:
        raise AddressRefused(f"{named} is a private address: allow it with {SETTING}=True.")
