# SPDX-License-Identifier: Apache-2.0
"""Makes every call to upstream: limiter, breaker, exchange, verdict, retries of reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, TypeAlias, TypeVar

import structlog

from novitai.clock import Clock
from novitai.crash_points import CrashPoint, reach
from novitai.ids import Ids
from novitai.upstream.answers import failure, payload
from novitai.upstream.breaker import Breaker, BreakerState, CallVerdict, Ticket
from novitai.upstream.errors import (
    BreakerOpen,
    CallOutcome,
    NotSent,
    RateLimited,
    UpstreamError,
)
from novitai.upstream.health import HealthRecord, UpstreamHealth
from novitai.upstream.limiter import UpstreamLimiter
from novitai.upstream.operations import Endpoint, EndpointClass
from novitai.upstream.transport import FIGURES_PATH, Answer, Transport, UpstreamCall
from novitai.upstream.window import SendWindow
from novitai.upstream.wire import Object

T = TypeVar("T")
# Reads the JSON object of a success; the second argument is when the request was sent, in Unix
# milliseconds.
Reader: TypeAlias = Callable[[Object, int], T]

READ_TRIES: Final = 3
_FIRST_WAIT: Final = 0.5

_log = structlog.get_logger(__name__)


class CallObserver(Protocol):
    """Called after every exchange with upstream, for metrics."""

    def __call__(self, endpoint: str, outcome: CallOutcome, seconds: float) -> None:
        """Record an exchange; endpoint and outcome have few values, so they can be labels."""
        ...


class Permit:
    """The permission for one call, from the limiter and a breaker; it can be used once."""

    def __init__(self, limiter: UpstreamLimiter, breaker: Breaker, ticket: Ticket) -> None:
        self._limiter = limiter
        self._breaker = breaker
        self._ticket = ticket
        self._is_spent = False

    def spend(self) -> Ticket:
        """Use the permit.

        Raises:
            NotSent: it was already used or released.
        """
        if self._is_spent:
            raise NotSent("the permit was already used", reason="PERMIT_SPENT")
        self._is_spent = True
        return self._ticket

    def release(self) -> None:
        """Return an unused permit; does nothing if it was used."""
        if not self._is_spent:
            self._is_spent = True
            self._limiter.give_back()
            self._breaker.settle(self._ticket, CallVerdict.NOTHING)


class UpstreamGateway:
    """Sends calls, and updates limiter, breakers and health from their results."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock,
        ids: Ids,
        limiter: UpstreamLimiter,
        breakers: Mapping[EndpointClass, Breaker],
        observer: CallObserver,
        secrets: Iterable[str],
    ) -> None:
        """Make a gateway.

        Args:
            transport: The connections.
            clock: Time and sleeping.
            ids: The source of jitter.
            limiter: The limiter of this process.
            breakers: One for each class of operations.
            observer: Called after every exchange.
            secrets: Values to remove from messages, such as the API key.
        """
        self.clock_offset: int | None = None
        self._transport = transport
        self._limiter = limiter
        self._clock = clock
        self._ids = ids
        self._breakers = breakers
        self._observer = observer
        self.secrets = tuple(secrets)
        self._record = HealthRecord()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    def health(self) -> UpstreamHealth:
        """Return upstream's health as seen in earlier calls."""
        return self._record.snapshot(self._breakers.values())

    @property
    def permits_waiting(self) -> int:
        """The number of calls that wait for the limiter."""
        return self._limiter.waiting

    def breaker_states(self) -> dict[str, BreakerState]:
        """Return the state of each breaker, by its class of operations."""
        return {name.value: breaker.state for name, breaker in self._breakers.items()}

    async def permit(self, endpoint: Endpoint) -> Permit:
        """Wait for a permit for one call.

        Raises:
            BreakerOpen: the breaker of this class of operations is open.
        """
        ticket = await self._admit(endpoint)
        return Permit(self._limiter, self._breakers[endpoint.endpoint_class], ticket)

    async def read(
        self, endpoint: Endpoint, path: str, query: Mapping[str, str], reader: Reader[T]
    ) -> T:
        """Send a GET; retry after upstream's faults and after a 429.

        Each attempt takes its own permit, so a retry after a 429 waits for the limiter's pause.

        Raises:
            UpstreamError: the error of the last attempt.
        """
        number = 1
        while True:
            try:
                permit = await self.permit(endpoint)
                call = UpstreamCall("GET", path, query)
                return await self.once(endpoint, call, permit, reader)
            except UpstreamError as error:
                if number == READ_TRIES or not _may_be_retried(error):
                    raise
            wait = _FIRST_WAIT * 2 ** (number - 1)
            number += 1
            _log.debug("reading_again", operation=endpoint.label, number=number)
            await self._clock.sleep(self._ids.jitter(wait, 0.5))

    async def figure(
        self, endpoint: Endpoint, path: str, query: Mapping[str, str], reader: Reader[T]
    ) -> T:
        """Send a GET for a figure that is only shown, once.

        Its failure counts for neither a breaker nor health, nor does a 429 pause other calls.

        Raises:
            UpstreamError: the call failed.
        """
        await self._limiter.acquire(endpoint.priority)
        outcome = CallOutcome.CANCELLED
        began, asked_at = self._clock.monotonic(), self._clock.now()
        call = UpstreamCall("GET", path, query, base_path=FIGURES_PATH)
        try:
            answer = await self._transport.send(call)
            result = self._result(endpoint, call, answer, asked_at, reader, self.secrets)
        except UpstreamError as error:
            outcome = error.outcome
            raise
        else:
            outcome = CallOutcome.OK
            return result
        finally:
            self._tell(endpoint, outcome, self._clock.monotonic() - began)

    async def act(self, endpoint: Endpoint, path: str, body: Object, window: SendWindow) -> None:
        """Send a POST, once, within its window.

        The body of the response is never parsed (upstream.md §6).

        Raises:
            UpstreamError: the call failed.
        """
        permit = await self.permit(endpoint)
        call = UpstreamCall(
            "POST",
            path,
            body=body,
            reads_body=False,
            may_begin=lambda: window.begin(self._clock),
        )
        await self.once(endpoint, call, permit, lambda _, __: None)

    async def once(
        self,
        endpoint: Endpoint,
        call: UpstreamCall,
        permit: Permit,
        reader: Reader[T],
        *,
        secrets: Iterable[str] = (),
    ) -> T:
        """Make one exchange, and report its result to limiter, breaker, health and metrics.

        Raises:
            UpstreamError: the call failed.
        """
        ticket = permit.spend()
        verdict, outcome = CallVerdict.NOTHING, CallOutcome.CANCELLED
        began, asked_at = self._clock.monotonic(), self._clock.now()
        try:
            reach(CrashPoint.CALL_SENDING, endpoint.label)
            answer = await self._transport.send(
                call, sent=lambda: reach(CrashPoint.CALL_SENT, endpoint.label)
            )
            reach(CrashPoint.CALL_ANSWERED, endpoint.label)
            self._read_clock(answer)
            known = (*self.secrets, *secrets)
            result = self._result(endpoint, call, answer, asked_at, reader, known)
        except UpstreamError as error:
            outcome = error.outcome
            verdict = _verdict(error)
            self._record.failed(error)
            if isinstance(error, RateLimited):
                self._limiter.pause(error.retry_after)
            raise
        else:
            verdict, outcome = CallVerdict.SUCCESS, CallOutcome.OK
            self._record.answered()
            self._limiter.answered()
            return result
        finally:
            self._breakers[endpoint.endpoint_class].settle(ticket, verdict)
            self._tell(endpoint, outcome, self._clock.monotonic() - began)

    def _result(
        self,
        endpoint: Endpoint,
        call: UpstreamCall,
        answer: Answer,
        asked_at: int,
        reader: Reader[T],
        secrets: Iterable[str],
    ) -> T:
        """Read the result of a response; raise its error if it has one."""
        error = failure(endpoint, answer, now=self._clock.now(), secrets=secrets)
        if error is not None:
            raise error
        return reader(payload(answer) if call.reads_body else {}, asked_at)

    async def _admit(self, endpoint: Endpoint) -> Ticket:
        breaker = self._breakers[endpoint.endpoint_class]
        bypass = endpoint.bypasses_breaker
        try:
            breaker.check(bypass=bypass)
            await self._limiter.acquire(endpoint.priority)
            try:
                return breaker.enter(bypass=bypass)
            except BreakerOpen:
                self._limiter.give_back()
                raise
        except BreakerOpen as error:
            self._tell(endpoint, error.outcome, 0.0)
            raise

    def _read_clock(self, answer: Answer) -> None:
        """Compute from a response's `Date` how far upstream's clock is ahead."""
        try:
            said = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except (ValueError, OverflowError, OSError):
            return
        # A `Date` is truncated to whole seconds, so on average it is 500 ms too early.
        self.clock_offset = int(said * 1000) + 500 - self._clock.now()

    def _tell(self, endpoint: Endpoint, outcome: CallOutcome, seconds: float) -> None:
        with contextlib.suppress(Exception):  # a bug in metrics must not lose a call's result
            self._observer(endpoint.label, outcome, seconds)


def _verdict(error: UpstreamError) -> CallVerdict:
    if error.is_fault:
        return CallVerdict.FAULT
    return CallVerdict.NOTHING if error.http_status is None else CallVerdict.ANSWERED


def _may_be_retried(error: UpstreamError) -> bool:
    """Whether a retry of a read may succeed."""
    return error.is_fault or isinstance(error, RateLimited)
