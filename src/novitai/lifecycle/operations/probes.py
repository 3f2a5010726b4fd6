# SPDX-License-Identifier: Apache-2.0
"""Readiness: probe whether the watched ports of an instance answer.

Probes run in tasks of their own, so that a slow port cannot block a step: a step waits half a
second for the results and is woken when the rest have arrived. Every probe ends at its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final, TypeVar

import httpx2
import structlog

from novitai.domain.instance import Instance, LaunchSpec, Port, PortMapping, PortType
from novitai.egress.guard import AddressRefused, EndpointGuard
from novitai.egress.wire import BROKEN, Wire

K = TypeVar("K")

PROBE_SECONDS: Final = 3.0
"""The deadline of one probe: resolve, connect, send, and read the head of the answer."""
AT_A_TIME: Final = 4
"""Concurrent probes of one instance."""
PLACES: Final = 256
"""Concurrent probes of this process."""
SLOW_PLACES: Final = 192
"""Those of `PLACES` that instances may use whose last probes timed out; the rest stay free."""
QUICK: Final = 0.5
"""Seconds for which a step waits for its probes."""
_KEPT: Final = 10.0
"""Seconds for which the result of a round is kept for the step that began it."""
_REMEMBERED: Final = 10_000
_JUPYTER: Final = "jupyter"
"""The only tool that Novita supports (upstream.md §4), in lower case."""
_NOT_ALIVE: Final = frozenset({502, 503, 504})
"""The statuses of Novita's gateway while the service inside is down (upstream.md §5)."""
_BROKEN: Final = (*BROKEN, httpx2.InvalidURL, ValueError)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Silence:
    """A watched port that does not answer, and the reason in a few words."""

    port: Port
    why: str


Round = tuple[Silence, ...]
"""The ports that did not answer in one round of probes; empty means ready."""


@dataclass(slots=True)
class _UnderWay:
    """A running round. `wake` is called at its end if a step did not wait for it."""

    of: object
    task: asyncio.Task[Round]
    wake: Callable[[], None] | None = field(default=None, repr=False)


class Places:
    """Limits the concurrent probes of this process. Waiting probes are served in order."""

    def __init__(self, total: int = PLACES, slow: int = SLOW_PLACES) -> None:
        self._all = asyncio.Semaphore(total)
        self._slow = asyncio.Semaphore(slow)

    @contextlib.asynccontextmanager
    async def take(self, *, slow: bool) -> AsyncIterator[None]:
        """Wait for a place and hold it; `slow` probes share only a part of the places."""
        async with contextlib.AsyncExitStack() as stack:
            if slow:
                await stack.enter_async_context(self._slow)
            await stack.enter_async_context(self._all)
            yield


class Prober:
    """Probes the published ports of instances."""

    def __init__(
        self,
        guard: EndpointGuard,
        wire: Wire,
        *,
        deadline: float = PROBE_SECONDS,
        quick: float = QUICK,
        places: Places | None = None,
    ) -> None:
        """Set the dependencies.

        Args:
            guard: Decides which addresses may be probed.
            wire: Makes the HTTP exchanges.
            deadline: Seconds for one probe.
            quick: Seconds for which `poll` waits for a round.
            places: Limits the probes of this process.
        """
        self._guard = guard
        self._wire = wire
        self._deadline = deadline
        self._quick = quick
        self._places = places or Places()
        self._under_way: dict[str, _UnderWay] = {}
        self._slow: OrderedDict[str, None] = OrderedDict()
        self._refused: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def aclose(self) -> None:
        """End every probe."""
        rounds = list(self._under_way.values())
        self._under_way.clear()
        for one in rounds:
            one.wake = None
            one.task.cancel()
        await asyncio.gather(*(one.task for one in rounds), return_exceptions=True)

    async def poll(
        self, name: str, instance: Instance, spec: LaunchSpec, *, wake: Callable[[], None]
    ) -> Round | None:
        """Return the result of a round of probes, or begin one, without waiting for slow ports.

        Args:
            name: Identifies the caller, such as an operation ID; each has one round at a time.
            instance: The instance with its endpoints; if they change, a new round begins.
            spec: The launch specification with the watched ports.
            wake: Called when a round ends that this call did not wait for.

        Returns:
            The ports that do not answer; None while the round is running.
        """
        of = (_places_of(instance, spec), instance.acted_at)
        round_ = self._under_way.get(name)
        if round_ is not None and round_.of != of:
            self._forget(name, round_)
            round_.task.cancel()
            round_ = None
        if round_ is None:
            round_ = self._begin(name, of, self.not_ready(instance, spec))
            # An instance that was slow last time would most likely use up the wait again.
            if instance.id not in self._slow:
                await asyncio.wait({round_.task}, timeout=self._quick)
        if not round_.task.done():
            round_.wake = wake
            return None
        self._forget(name, round_)
        return round_.task.result()

    async def not_ready(self, instance: Instance, spec: LaunchSpec) -> Round:
        """Probe each watched port once, and return those that do not answer.

        A port that is not mapped yet does not answer; Jupyter may have a separate address from
        Novita. If no port is watched, the result is empty. A round takes at most one deadline for
        every four ports, plus the wait for places.
        """
        published = _places_of(instance, spec)
        ports = tuple(dict.fromkeys(spec.watched_ports()))
        own = asyncio.Semaphore(AT_A_TIME)
        slow = instance.id in self._slow
        late: list[Port] = []

        async def probe(port: Port) -> str | None:
            mapping = published.get(port.port)
            if mapping is None or not mapping.endpoint:
                return "not mapped yet"
            async with own, self._places.take(slow=slow):
                try:
                    async with asyncio.timeout(self._deadline):
                        return await self._ask(mapping)
                except (TimeoutError, httpx2.TimeoutException):
                    late.append(port)
                    return f"no answer within {self._deadline:g} s"
                except AddressRefused as refusal:
                    self._tell(instance, mapping, refusal)
                    return f"not probed: {refusal}"
                except _BROKEN:
                    return "no connection"

        answers = await asyncio.gather(*(probe(port) for port in ports))
        self._slow.pop(instance.id, None)
        if late:
            _remember(self._slow, instance.id)
        return tuple(
            Silence(port, why) for port, why in zip(ports, answers, strict=True) if why is not None
        )

    def _begin(self, name: str, of: object, round_: Coroutine[None, None, Round]) -> _UnderWay:
        one = _UnderWay(of, asyncio.create_task(round_))
        self._under_way[name] = one

        def ended(_: asyncio.Task[Round]) -> None:
            if one.wake is not None:
                one.wake()
            # If another process has claimed the operation, no step here collects the result.
            asyncio.get_running_loop().call_later(_KEPT, self._forget, name, one)

        one.task.add_done_callback(ended)
        return one

    def _forget(self, name: str, round_: _UnderWay) -> None:
        if self._under_way.get(name) is round_:
            del self._under_way[name]
        round_.wake = None

    async def _ask(self, mapping: PortMapping) -> str | None:
        endpoint = mapping.endpoint
        if mapping.type == PortType.HTTP.value or "://" in endpoint.removeprefix("tcp://"):
            return await self._ask_http(endpoint if "://" in endpoint else f"https://{endpoint}")
        return await self._ask_tcp(endpoint.removeprefix("tcp://"))

    async def _ask_http(self, url: str) -> str | None:
        target = await self._guard.http(url)
        async with self._wire.exchange(
            "GET",
            url,
            target,
            headers={"Accept": "*/*"},
            wait=self._deadline,
            connect=self._deadline / len(target.addresses),
        ) as response:
            status = response.status_code
            return f"HTTP {status}" if status in _NOT_ALIVE else None

    async def _ask_tcp(self, place: str) -> str | None:
        target = await self._guard.tcp(place)
        for address in target.addresses:
            try:
                async with asyncio.timeout(self._deadline / len(target.addresses)):
                    _, writer = await asyncio.open_connection(str(address), target.port)
            except OSError:
                if address == target.addresses[-1]:
                    raise
            else:
                writer.transport.abort()
                return None
        return "no connection"

    def _tell(self, instance: Instance, mapping: PortMapping, refusal: AddressRefused) -> None:
        """Log a refusal once for each endpoint, without the endpoint: it may contain a secret."""
        key = instance.id, mapping.endpoint
        if key not in self._refused:
            _remember(self._refused, key)
            _log.warning(
                "probe_refused", instance=instance.id, port=mapping.port, reason=str(refusal)
            )


def _places_of(instance: Instance, spec: LaunchSpec) -> dict[int, PortMapping]:
    """Return the mapping of each port.

    Novita gives the address of Jupyter in `connectComponentJupyter` (upstream.md §5.1); its
    port may be missing from the port mappings.
    """
    seen = instance.observed
    places = {mapping.port: mapping for mapping in seen.port_mappings}
    for tool in spec.tools:
        mapped = places.get(tool.port)
        if tool.name.lower() != _JUPYTER or not seen.jupyter or (mapped and mapped.endpoint):
            continue
        places[tool.port] = PortMapping(tool.port, seen.jupyter, PortType.HTTP.value)
    return places


def _remember(known: OrderedDict[K, None], key: K) -> None:
    known[key] = None
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
