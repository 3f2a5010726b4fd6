# SPDX-License-Identifier: Apache-2.0
"""Where a message may go: a name is resolved once, and every address it has must be public."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from novitai.domain.addresses import PORTS, Address, is_public, read_place
from novitai.domain.fields import Wrong
from novitai.domain.validation import webhook_url
from novitai.errors import NovitaiError

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]
"""`(name, port)`: every address of a name; raises `OSError` where there is none."""


class Refused(NovitaiError):
    """The message must not go there; the text says why and names no address."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and what the receiver is called.

    Attributes:
        addresses: The addresses that were checked, in the order in which to try them.
        host: What goes into the `Host` header.
        tls_name: What the certificate must be for; None where the URL names an address.
    """

    addresses: Sequence[Address]
    host: str
    tls_name: str | None


class Guard:
    """Decides where messages may go."""

    def __init__(self, *, allow_private: bool, resolve: Resolver | None = None) -> None:
        self._allow_private = allow_private
        self._resolve = resolve or system_resolver

    async def target(self, url: str) -> Target:
        """Find and check the addresses of a URL's host.

        Raises:
            Refused: the URL is none of HTTP, or leads to what is not public.
            OSError: the name does not resolve.
        """
        try:
            webhook_url(url, allow_private=self._allow_private)
            host, port = read_place(url)
        except (Wrong, ValueError) as error:
            raise Refused(str(error)) from None
        shown = host.name if port == PORTS[urlsplit(url).scheme] else f"{host.name}:{port}"
        if host.address is not None:
            # `webhook_url` has judged it.
            return Target([host.address], shown, None)
        addresses = list(await self._resolve(host.name, port))
        if not addresses:
            raise OSError("the name has no address")
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise Refused("The host resolves to an address that is not public")
        return Target(addresses, shown, host.name)


async def system_resolver(name: str, port: int) -> Sequence[Address]:
    """Ask the system, on a thread of its own: a name server that is slow holds up nobody else.

    Raises:
        OSError: the name has no address.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Sequence[Address]] = loop.create_future()

    def settle(found: Sequence[Address] | OSError) -> None:
        if answered.done():
            return
        if isinstance(found, OSError):
            answered.set_exception(found)
        else:
            answered.set_result(found)

    def ask() -> None:
        found: Sequence[Address] | OSError
        try:
            rows = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(ipaddress.ip_address(row[4][0]) for row in rows))
        except OSError as error:
            found = error
        except (UnicodeError, ValueError):
            found = OSError("the name cannot be resolved")
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, found)

    # A daemon, so that no look-up that takes its time keeps the process from ending.
    threading.Thread(target=ask, name="novitai-resolve", daemon=True).start()
    return await answered
