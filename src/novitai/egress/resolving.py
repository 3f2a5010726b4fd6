# SPDX-License-Identifier: Apache-2.0
"""Names are resolved on threads of their own: a name server that hangs holds up no other name.

`getaddrinfo` cannot be cancelled. So a caller stops waiting at its own deadline, the thread goes
on until the system gives up, and the number of such threads is bounded: in all, for the names of
one domain, and to one for each name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from novitai.domain.addresses import Address

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]
"""`(name, port)`: every address of a name; raises `OSError` where there is none."""

MAX_LOOK_UPS: Final = 256
MAX_LOOK_UPS_OF_DOMAIN: Final = 16

_Answer = Sequence[Address] | OSError


class SystemResolver:
    """Asks the system; callers of one name share a look-up."""

    def __init__(
        self,
        look_up: Callable[[str], Sequence[Address]] | None = None,
        *,
        most: int = MAX_LOOK_UPS,
        most_of_domain: int = MAX_LOOK_UPS_OF_DOMAIN,
    ) -> None:
        self._look_up = look_up or _ask_system
        self._most = most
        self._most_of_domain = most_of_domain
        self._under_way: dict[tuple[int, str], asyncio.Future[Sequence[Address]]] = {}
        self._of_domain: Counter[str] = Counter()

    async def __call__(self, name: str, _port: int) -> Sequence[Address]:
        """Find every address of a name; who stops waiting stops nobody else.

        Raises:
            OSError: the name has no address, or too many look-ups hang.
        """
        loop = asyncio.get_running_loop()
        key = id(loop), name
        flight = self._under_way.get(key)
        if flight is None:
            domain = ".".join(name.split(".")[-2:])
            if (
                len(self._under_way) >= self._most
                or self._of_domain[domain] >= self._most_of_domain
            ):
                raise OSError("too many names are being resolved")
            flight = self._begin(loop, key, domain)
        return await asyncio.shield(flight)

    def _begin(
        self, loop: asyncio.AbstractEventLoop, key: tuple[int, str], domain: str
    ) -> asyncio.Future[Sequence[Address]]:
        flight: asyncio.Future[Sequence[Address]] = loop.create_future()
        # An error that nobody waits for any more is not worth a warning.
        flight.add_done_callback(lambda done: done.cancelled() or done.exception())

        def settle(found: _Answer) -> None:
            self._forget(key, domain)
            if flight.done():
                return
            if isinstance(found, OSError):
                flight.set_exception(found)
            else:
                flight.set_result(found)

        def ask() -> None:
            found: _Answer
            try:
                found = self._look_up(key[1])
            except OSError as error:
                found = error
            except Exception:  # an odd name must not leave its callers waiting
                found = OSError("the name cannot be resolved")
            try:
                loop.call_soon_threadsafe(settle, found)
            except RuntimeError:  # the loop has ended: nobody waits any more
                self._forget(key, domain)

        self._under_way[key] = flight
        self._of_domain[domain] += 1
        # A daemon, so that no look-up that takes its time keeps the process from ending.
        threading.Thread(target=ask, name="novitai-resolve", daemon=True).start()
        return flight

    def _forget(self, key: tuple[int, str], domain: str) -> None:
        with contextlib.suppress(KeyError):
            del self._under_way[key]
            self._of_domain[domain] -= 1
            if self._of_domain[domain] <= 0:
                del self._of_domain[domain]


def _ask_system(name: str) -> Sequence[Address]:
    rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(row[4][0]) for row in rows))


system_resolver: Final = SystemResolver()
"""The one of this process."""
