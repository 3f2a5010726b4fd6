# SPDX-License-Identifier: Apache-2.0
"""Opens the TCP ports of instances as loopback sockets.

One task reconciles the sockets with the clock. It binds a socket when the instance runs, so that
the port number is known; listens from boot on, so that earlier connections are refused; and
closes the socket when the instance stops.
"""

from __future__ import annotations

import asyncio
import heapq
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from novitai.emulator.clock import EmulatorClock
from novitai.emulator.instances import NEVER, Instance, Status, phase, secret

_LONGEST_SLEEP = 5.0

SPARE_DESCRIPTORS = 128
"""File descriptors reserved for HTTP connections and everything else."""


class _Accept(asyncio.Protocol):
    """Accepts a connection and keeps it open until either side closes it."""

    def __init__(self, open_connections: set[asyncio.BaseTransport]) -> None:
        self._open = open_connections
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._open.discard(self._transport)


@dataclass(slots=True)
class _Run:
    """The sockets of one run of an instance."""

    starts: int
    wanted: frozenset[int]
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    servers: list[asyncio.Server] = field(default_factory=list)
    connections: set[asyncio.BaseTransport] = field(default_factory=set)
    listening: bool = False
    closed: bool = False

    def close(self) -> None:
        self.closed = True
        for server in self.servers:
            server.close()
        for each in self.sockets.values():
            each.close()
        for transport in list(self.connections):
            transport.close()


class Listeners:
    """Keeps the sockets of the instances passed to `watch` up to date.

    Before `start` it opens no sockets and returns made-up port numbers. It also returns made-up
    numbers if the machine has no free sockets.

    Attributes:
        open: Number of bound sockets.
        refused: Number of sockets that could not be bound or listened on.
    """

    def __init__(self, clock: EmulatorClock, find: Callable[[str], Instance | None]) -> None:
        self._clock = clock
        self._find = find
        self._runs: dict[str, _Run] = {}
        self._due: list[tuple[float, str]] = []
        self._next: dict[str, float] = {}
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._most = 0
        self.open = 0
        self.refused = 0

    def watch(self, instance: Instance) -> None:
        """Schedule a check of an instance that is new or has changed."""
        if instance.has_tcp and self._wake is not None:
            self._look_at(instance.id, 0.0)
            self._wake.set()

    def nudge(self) -> None:
        """Recompute the next check after a change of the clock."""
        if self._wake is not None:
            self._wake.set()

    def endpoint(self, instance: Instance, port: int) -> str:
        """Return the `host:port` at which a port of a running instance can be reached."""
        if self._wake is not None:
            bound = self._bound(instance).sockets.get(port)
            if bound is not None and bound.fileno() >= 0:
                return f"127.0.0.1:{bound.getsockname()[1]}"
        return f"127.0.0.1:{made_up_port(instance, f'tcp-{port}')}"

    async def start(self) -> None:
        """Begin to manage sockets on the running event loop."""
        self._most = most_sockets()
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._keep(self._wake))

    async def stop(self) -> None:
        """Stop the task and close all sockets."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = self._wake = None
        self.clear()

    def clear(self) -> None:
        """Close all sockets and forget all instances."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()
        self.open = self.refused = 0
        self._due.clear()
        self._next.clear()

    async def reconcile(self) -> None:
        """Open and close the sockets that are due now."""
        if self._wake is None:
            return
        async with self._turn:
            now = self._clock.now()
            while self._due and self._due[0][0] <= now:
                at, instance_id = heapq.heappop(self._due)
                if self._next.get(instance_id) != at:
                    continue
                del self._next[instance_id]
                again = await self._settle(instance_id, now)
                if again < NEVER and instance_id not in self._next:
                    self._look_at(instance_id, again)

    def _look_at(self, instance_id: str, at: float) -> None:
        if self._next.get(instance_id) != at:
            self._next[instance_id] = at
            heapq.heappush(self._due, (at, instance_id))

    async def _keep(self, wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            await self.reconcile()
            sleep = self._clock.real_until(self._due[0][0]) if self._due else _LONGEST_SLEEP
            try:
                await asyncio.wait_for(wake.wait(), min(sleep, _LONGEST_SLEEP))
            except TimeoutError:
                continue

    async def _settle(self, instance_id: str, now: float) -> float:
        """Update the sockets of one instance; return when to check it again."""
        instance = self._find(instance_id)
        seen = phase(instance, now) if instance is not None else None
        if instance is None or seen is None or seen.status is not Status.RUNNING:
            self._close(instance_id)
            return seen.until if seen is not None else NEVER
        run = self._bound(instance)
        if seen.booted and not run.listening:
            run.listening = True
            await self._listen(run)
        return seen.until

    async def _listen(self, run: _Run) -> None:
        loop = asyncio.get_running_loop()
        for each in list(run.sockets.values()):
            if each.fileno() < 0:
                continue
            try:
                server = await loop.create_server(lambda: _Accept(run.connections), sock=each)
            except OSError:
                self.refused += 1
                continue
            if run.closed:
                server.close()
            else:
                run.servers.append(server)

    def _bound(self, instance: Instance) -> _Run:
        run = self._runs.get(instance.id)
        wanted = frozenset(port.port for port in instance.ports if port.type == "tcp")
        if run is not None and run.starts == instance.starts and run.wanted == wanted:
            return run
        self._close(instance.id)
        run = _Run(instance.starts, wanted)
        for port in wanted:
            bound = _bind() if self.open < self._most else None
            if bound is None:
                self.refused += 1
            else:
                run.sockets[port] = bound
                self.open += 1
        self._runs[instance.id] = run
        return run

    def _close(self, instance_id: str) -> None:
        run = self._runs.pop(instance_id, None)
        if run is not None:
            self.open -= len(run.sockets)
            run.close()


def most_sockets() -> int:
    """Return the maximum number of ports: each needs up to two file descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, limit - SPARE_DESCRIPTORS) // 2


def _bind() -> socket.socket | None:
    """Return a socket on a free loopback port, or None if none is available."""
    try:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        bound.setblocking(False)
        bound.bind(("127.0.0.1", 0))
    except OSError:
        bound.close()
        return None
    return bound


def made_up_port(instance: Instance, purpose: str) -> int:
    """Return a public port number on which nothing listens; it differs with every start.

    It is below the ephemeral port range, so that no other process gets it by chance.
    """
    return 20_000 + int(secret(instance, purpose, 8), 16) % 12_000
