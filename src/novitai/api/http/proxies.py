# SPDX-License-Identifier: Apache-2.0
"""Find the address and scheme of a caller behind proxies.

`X-Forwarded-*` is used only if it comes from a trusted proxy. The HTTP server must not interpret
these headers itself (uvicorn: `proxy_headers=False`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from starlette.types import Scope as AsgiScope

from novitai.api.http.context import header_values
from novitai.domain.addresses import Address
from novitai.settings import IpNetwork

_MAX_REMEMBERED: Final = 1024
_SHORT: Final = 256
"""Bytes of the headers that are remembered with the caller found."""


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


class Proxies:
    """The trusted proxies."""

    def __init__(self, trusted: Sequence[IpNetwork]) -> None:
        self._trusted = trusted
        # The same callers come again and again.
        self._follow = lru_cache(_MAX_REMEMBERED)(self._followed)

    def peer(self, scope: AsgiScope) -> Peer:
        """Follow the chain of trusted proxies from the connection back to the caller."""
        client = scope.get("client")
        protocols = b",".join(header_values(scope, b"x-forwarded-proto"))
        hops = b",".join(header_values(scope, b"x-forwarded-for"))
        short = len(protocols) + len(hops) <= _SHORT
        return (self._follow if short else self._followed)(
            client[0] if client else "local", scope["scheme"] == "https", protocols, hops
        )

    def _followed(self, peer: str, secure: bool, protocols: bytes, hops: bytes) -> Peer:
        if not self._trusts(peer):
            return Peer(peer, secure)
        # The nearest proxy appends the last entry; the client may have forged earlier entries.
        named = _listed(protocols)
        if named:
            secure = named[-1].lower() == "https"
        for hop in reversed(_listed(hops)):
            address = _address(hop)
            if address is None:
                break
            peer = str(address)
            if not self._trusts(peer):
                break
        return Peer(peer, secure)

    def _trusts(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(
            address.version == network.version and address in network for network in self._trusted
        )


def neighbourhood(address: str) -> str:
    """Return the network that counts as one caller: the IPv4 address or the IPv6 /64.

    A customer usually gets an IPv6 /64, which has too many addresses to limit one by one.
    """
    parsed = _address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address


def _listed(header: bytes) -> list[str]:
    return [part.strip() for part in header.decode("latin-1").split(",") if part.strip()]


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
