# SPDX-License-Identifier: Apache-2.0
"""Find the address and scheme of a caller behind proxies.

`X-Forwarded-*` is used only if it comes from a trusted proxy. The HTTP server must not interpret
these headers itself (uvicorn: `proxy_headers=False`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope as AsgiScope

from novitai.domain.addresses import Address
from novitai.settings import IpNetwork


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller behind trusted proxies; `address` is `local` for a Unix socket."""

    address: str
    secure: bool

    @property
    def loopback(self) -> bool:
        """Whether the caller is on this machine."""
        address = _address(self.address)
        return self.address == "local" or (address is not None and address.is_loopback)


def find_peer(scope: AsgiScope, headers: Headers, trusted: Sequence[IpNetwork]) -> Peer:
    """Follow the chain of trusted proxies from the connection back to the caller."""
    client = scope.get("client")
    peer = client[0] if client else "local"
    secure = scope["scheme"] == "https"
    if not trusted or not _is_trusted(peer, trusted):
        return Peer(peer, secure)
    # The nearest proxy appends the last entry; the client may have forged earlier entries.
    protocols = _listed(headers, "x-forwarded-proto")
    if protocols:
        secure = protocols[-1].lower() == "https"
    for hop in reversed(_listed(headers, "x-forwarded-for")):
        address = _address(hop)
        if address is None:
            break
        peer = str(address)
        if not _is_trusted(peer, trusted):
            break
    return Peer(peer, secure)


def neighbourhood(address: str) -> str:
    """Return the network that counts as one caller: the IPv4 address or the IPv6 /64.

    A customer usually gets an IPv6 /64, which has too many addresses to limit one by one.
    """
    parsed = _address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address


def _listed(headers: Headers, name: str) -> list[str]:
    joined = ",".join(headers.getlist(name))
    return [part.strip() for part in joined.split(",") if part.strip()]


def _is_trusted(peer: str, trusted: Sequence[IpNetwork]) -> bool:
    address = _address(peer)
    return address is not None and any(
        address.version == network.version and address in network for network in trusted
    )


def _address(text: str) -> Address | None:
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
