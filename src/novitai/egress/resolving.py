# SPDX-License-Identifier: Apache-2.0
"""Name resolution, with one thread per name: a name server that hangs does not delay other names.

`getaddrinfo` cannot be cancelled. So a caller stops waiting at its own deadline, while the thread
runs until the system gives up. The number of threads is limited: in total, per domain, and to one
per name.
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
"""`(name, port)`: returns every address of a name; raises `OSError` if it has none."""

MAX_LOOK_UPS: Final = 256
MAX_LOOK_UPS_OF_DOMAIN: Final = 16

_Answer = Sequence[Address] | OSError


class SystemResolver:
    """Resolves names with `getaddrinfo`; concurrent callers of one name share a look-up."""

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
        """Return every address of a name. Cancelling one caller does not affect the others.

        Raises:
            OSError: the name has no address, or too many look-ups are running.
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
        # Retrieve the exception, so that asyncio does not warn if all callers have given up.
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
            except Exception:  # callers must not wait forever, such as for an invalid name
                found = OSError("the name cannot be resolved")
            try:
                loop.call_soon_threadsafe(settle, found)
            except RuntimeError:  # the loop is closed: no caller is waiting
                self._forget(key, domain)

        self._under_way[key] = flight
        self._of_domain[domain] += 1
        # A daemon thread, so that a slow look-up does not keep the process from exiting.
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
"""The resolver shared by the whole process."""
