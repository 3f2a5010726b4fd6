# SPDX-License-Identifier: Apache-2.0
"""The guard for addresses that come from outside: those of webhooks and probes.

A name is resolved once, all its addresses must be allowed, and the caller connects to the checked
addresses, never to the name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx2

from novitai.clock import Clock
from novitai.domain.addresses import PORTS, Address, Host, Reach, is_public, read_host, read_place
from novitai.domain.webhook_url import PRIVATE_WEBHOOKS_HINT, webhook_url
from novitai.egress.resolving import Resolver, system_resolver
from novitai.errors import NovitaiError

MAX_ADDRESSES: Final = 3
"""The maximum number of addresses of a name that are tried."""
_MAX_ENDPOINT: Final = 2048
_REMEMBERED: Final = 60.0
"""Seconds for which the result of whether upstream's own address is private is cached."""


class AddressRefused(NovitaiError):
    """The request must not be sent to this address; the message says why and names no address."""


@dataclass(frozen=True, slots=True)
class AddressTarget:
    """Where to connect, and the name of the receiver.

    Attributes:
        addresses: The checked addresses, in the order in which to try them.
        port: The port of the URL, or the default port of its scheme.
        host: The value of the `Host` header.
        tls_name: The name that the certificate must match; None if the URL's host is an address.
    """

    addresses: Sequence[Address]
    port: int
    host: str
    tls_name: str | None


class AddressGuard:
    """Decides where webhook messages may be sent."""

    def __init__(self, *, allow_private: bool, resolve: Resolver | None = None) -> None:
        self._allow_private = allow_private
        self._resolve = resolve or system_resolver

    async def target(self, url: str) -> AddressTarget:
        """Find and check the addresses of a URL's host.

        Raises:
            AddressRefused: the URL is not an HTTP URL, or leads to an address that is not public.
            OSError: the name does not resolve.
        """
        try:
            webhook_url(url, allow_private=self._allow_private)
            host, port = read_place(url)
        except ValueError as error:
            raise AddressRefused(str(error)) from None
        reach = Reach.ANYWHERE if self._allow_private else Reach.PUBLIC
        try:
            addresses = await _addresses(host, port, reach, self._resolve)
        except AddressRefused as refusal:
            raise AddressRefused(f"{refusal}{PRIVATE_WEBHOOKS_HINT}") from None
        return _target(url, host, port, addresses)


class EndpointGuard:
    """Decides where readiness probes may be sent: the endpoints that upstream reports.

    Private addresses are allowed only if upstream's own address is private, as with the emulator.
    An address in an unusual notation is refused: Novita sends none, and parsers differ on them.
    """

    def __init__(self, reach: Callable[[], Awaitable[Reach]], resolve: Resolver) -> None:
        self._reach = reach
        self._resolve = resolve

    async def http(self, url: str) -> AddressTarget:
        """Find and check the addresses of an HTTP endpoint.

        Raises:
            AddressRefused: no probe may be sent there.
            OSError: the name does not resolve.
        """
        if len(url) > _MAX_ENDPOINT or not url.isascii() or any(not _plain(one) for one in url):
            raise AddressRefused("the endpoint is not a plain URL")
        try:
            parts = urlsplit(url)
            if "@" in parts.netloc:
                raise AddressRefused("the endpoint contains a user name")
            host, port = read_place(url)
        except ValueError:
            raise AddressRefused("the endpoint is not an HTTP URL") from None
        _refuse_spelling(parts.hostname or "", host)
        return _target(url, host, port, await self._check(host, port))

    async def tcp(self, place: str) -> AddressTarget:
        """Find and check the addresses of a TCP endpoint, `host:port`.

        Raises:
            AddressRefused: no probe may be sent there.
            OSError: the name does not resolve.
        """
        name, _, number = place.rpartition(":")
        if not (number.isascii() and number.isdecimal() and 0 < int(number[:6]) < 65_536):
            raise AddressRefused("the endpoint has no valid port")
        try:
            host = read_host(name)
        except ValueError:
            raise AddressRefused("the endpoint has no valid host") from None
        _refuse_spelling(name.strip("[]"), host)
        port = int(number)
        return AddressTarget(await self._check(host, port), port, host.name, None)

    async def _check(self, host: Host, port: int) -> Sequence[Address]:
        return await _addresses(host, port, await self._reach(), self._resolve)


class UpstreamReach:
    """Finds out whether upstream's own address is private; if so, probes may use private ones."""

    def __init__(self, base_url: str, clock: Clock, resolve: Resolver) -> None:
        self._place: tuple[Host, int] | None = None
        with contextlib.suppress(ValueError):  # an unreadable URL counts as not private
            self._place = read_place(base_url)
        self._clock = clock
        self._resolve = resolve
        self._known: tuple[Reach, float] | None = None

    async def __call__(self) -> Reach:
        """Return which addresses probes may use; only public ones if the name does not resolve."""
        if self._place is None:
            return Reach.PUBLIC
        host, port = self._place
        if host.address is not None:
            return _reach_of([host.address])
        now = self._clock.monotonic()
        if self._known is None or now >= self._known[1]:
            try:
                addresses = await self._resolve(host.name, port)
            except OSError:
                return Reach.PUBLIC
            self._known = _reach_of(addresses), now + _REMEMBERED
        return self._known[0]


def url_at(address: Address, url: str) -> httpx2.URL:
    """Replace the host of a URL with a checked address; the client might parse it otherwise."""
    parts = urlsplit(url)
    host = f"[{address}]" if address.version == 6 else str(address)
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    return httpx2.URL(urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")))


def _reach_of(addresses: Sequence[Address]) -> Reach:
    private = bool(addresses) and not any(is_public(address) for address in addresses)
    return Reach.PRIVATE if private else Reach.PUBLIC


async def _addresses(host: Host, port: int, reach: Reach, resolve: Resolver) -> Sequence[Address]:
    if not reach.may_cover(host):
        raise AddressRefused("The address is not public")
    if host.address is not None:
        return [host.address]
    addresses = list(await resolve(host.name, port))
    if not addresses:
        raise OSError("the name has no address")
    if not all(reach.covers(address) for address in addresses):
        raise AddressRefused("The host resolves to an address that is not public")
    return addresses[:MAX_ADDRESSES]


def _target(url: str, host: Host, port: int, addresses: Sequence[Address]) -> AddressTarget:
    shown = host.name if port == PORTS[urlsplit(url).scheme] else f"{host.name}:{port}"
    return AddressTarget(addresses, port, shown, None if host.address is not None else host.name)


def _refuse_spelling(name: str, host: Host) -> None:
    """Refuse an IPv4 address that is not written as four decimal numbers, such as `0x7f.1`."""
    if host.address is not None and host.address.version == 4 and name != str(host.address):
        raise AddressRefused("the endpoint's address is in an unusual notation")


def _plain(character: str) -> bool:
    return character.isprintable() and character not in ' \\<>"^`{|}'
