# SPDX-License-Identifier: Apache-2.0
"""Send requests: deadlines, retries, idempotency keys, and errors of the API."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import httpx2
from pydantic import ValidationError

from novitai_client.clock import Clock
from novitai_client.configuration import Target
from novitai_client.errors import (
    ApiError,
    ConnectionFailed,
    NovitaiError,
    UnexpectedResponse,
    class_of,
)
from novitai_client.wire import Model

M = TypeVar("M", bound=Model)
T = TypeVar("T")

ATTEMPT_SECONDS: Final = 40.0
"""The longest wait for one response. The server ends a request after 30 seconds."""
CONNECT_SECONDS: Final = 10.0
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0
VERSION: Final = "0.2.0"

_RETRIED: Final = frozenset({408, 429, 502, 503, 504})
_RETRIED_CODES: Final = frozenset({"IDEMPOTENCY_IN_PROGRESS", "COMMIT_UNKNOWN"})
"""The first request with the same key still runs; or it may have been stored or not."""
_TRANSIENT: Final = (
    httpx2.NetworkError,
    httpx2.TimeoutException,
    httpx2.RemoteProtocolError,
    httpx2.ProxyError,
)
_WITH_KEY: Final = frozenset({"POST", "DELETE"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request that does not change from one attempt to the next."""

    method: str
    url: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: httpx2.Headers
    content: bytes = field(repr=False)

    def json(self) -> Any:
        """Decode the body.

        Raises:
            UnexpectedResponse: it is not JSON.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise unexpected(self.status, "its body is not JSON") from None


class Transport(ABC):
    """Input and output of one of the two surfaces."""

    blocking: bool

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @abstractmethod
    async def exchange(self, request: Request, seconds: float) -> Answer:
        """Send a request and read the response, within a number of seconds.

        Raises:
            httpx2.TransportError: there is no response, or not in time.
        """

    @abstractmethod
    def stream(
        self, request: Request, seconds: float
    ) -> AbstractAsyncContextManager[tuple[Answer, AsyncIterator[bytes]]]:
        """Send a request and read the response in parts, each within a number of seconds."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait."""

    @abstractmethod
    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work to its end, even if the task is cancelled meanwhile."""


def _arguments(request: Request, seconds: float) -> dict[str, Any]:
    """Return the arguments of `stream` of both clients of httpx2."""
    return {
        "method": request.method,
        "url": request.url,
        "params": list(request.query) or None,
        "headers": dict(request.headers),
        "content": request.content,
        "timeout": httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        "follow_redirects": False,
    }


class BlockingTransport(Transport):
    """Blocks the thread. Its coroutines never suspend."""

    blocking = True

    def __init__(self, client: httpx2.Client, clock: Clock) -> None:
        super().__init__(clock)
        self._client = client

    async def exchange(self, request: Request, seconds: float) -> Answer:
        """Send a request; the deadline is checked after each part of the response."""
        end = self.clock.monotonic() + seconds
        parts = []
        with self._open(request, seconds) as response:
            for part in response.iter_bytes():
                parts.append(part)
                if self.clock.monotonic() > end:
                    raise httpx2.ReadTimeout(f"not read within {seconds:.0f} s")
            return Answer(response.status_code, response.headers, b"".join(parts))

    @asynccontextmanager
    async def stream(
        self, request: Request, seconds: float
    ) -> AsyncGenerator[tuple[Answer, AsyncIterator[bytes]], None]:
        """Send a request and read the response in parts."""
        with self._open(request, seconds) as response:
            content = b"" if response.is_success else response.read()
            answer = Answer(response.status_code, response.headers, content)
            yield answer, _each(response.iter_bytes())

    def _open(self, request: Request, seconds: float) -> Any:
        return self._client.stream(**_arguments(request, seconds))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        self.clock.sleep(seconds)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work; only a second interrupt of the process ends it."""
        return await work


async def _each(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class ConcurrentTransport(Transport):
    """Uses the event loop of asyncio."""

    blocking = False

    def __init__(self, client: httpx2.AsyncClient, clock: Clock) -> None:
        super().__init__(clock)
        self._client = client

    async def exchange(self, request: Request, seconds: float) -> Answer:
        """Send a request; the event loop ends it at the deadline."""
        try:
            async with asyncio.timeout(seconds), self._open(request, seconds) as response:
                content = await response.aread()
                return Answer(response.status_code, response.headers, content)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"not read within {seconds:.0f} s") from None

    @asynccontextmanager
    async def stream(
        self, request: Request, seconds: float
    ) -> AsyncGenerator[tuple[Answer, AsyncIterator[bytes]], None]:
        """Send a request and read the response in parts."""
        async with self._open(request, seconds) as response:
            content = b"" if response.is_success else await response.aread()
            answer = Answer(response.status_code, response.headers, content)
            yield answer, response.aiter_bytes()

    def _open(self, request: Request, seconds: float) -> Any:
        return self._client.stream(**_arguments(request, seconds))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self.clock.pause(seconds)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work in a task of its own, and wait for it even if this task is cancelled."""
        task = asyncio.ensure_future(work)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
            except BaseException:  # the result below raises it
                break
        if cancelled is not None and not task.cancelled() and task.exception() is None:
            raise cancelled
        return task.result()


class Api:
    """Calls the API of one server with one key."""

    def __init__(self, target: Target, transport: Transport, timeout: float) -> None:
        self.url = target.url
        self.timeout = timeout
        self.transport = transport
        self.clock = transport.clock
        self._headers = {
            "Authorization": f"Bearer {target.key}",
            "Accept": "application/json",
            "User-Agent": f"novitai-client/{VERSION}",
        }

    @property
    def blocking(self) -> bool:
        """Whether calls block the thread."""
        return self.transport.blocking

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        takes_key: bool = True,
    ) -> Request:
        """Build a request once, with an idempotency key if its method takes one."""
        sent = {**self._headers, **(headers or {})}
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        if takes_key and method in _WITH_KEY:
            sent["Idempotency-Key"] = key or new_key()
        return Request(method, self.url + path, tuple(query), sent, content)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        takes_key: bool = True,
        deadline: float | None = None,
        attempt: float = ATTEMPT_SECONDS,
        also: frozenset[int] = frozenset(),
    ) -> Answer:
        """Send a request until there is a response, or the deadline has come.

        Args:
            method: The method.
            path: The path below the URL of the server.
            query: The parameters.
            content: The body.
            headers: More headers.
            key: The idempotency key; by default a new one.
            takes_key: Whether the operation takes one, if its method does.
            deadline: When the last attempt ends, on the clock; by default after `timeout`.
            attempt: The longest wait for one response.
            also: Statuses of errors that are results here.

        Raises:
            ApiError: the API refused the request.
            ConnectionFailed: there was no response.
            UnexpectedResponse: the response is not one of the API.
        """
        request = self.request(
            method,
            path,
            query=query,
            content=content,
            headers=headers,
            key=key,
            takes_key=takes_key,
        )
        if deadline is None:
            deadline = self.clock.monotonic() + self.timeout
        for number in range(1 << 30):
            left = max(deadline - self.clock.monotonic(), 0.001)
            try:
                answer = await self.transport.exchange(request, min(attempt, left))
            except httpx2.DecodingError as error:
                failure: NovitaiError = unexpected(200, f"its body cannot be decoded: {error}")
                pause = None
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                failure = self.unreachable(request, error)
                pause = self.back_off(number) if is_transient(error) else None
            else:
                if answer.status < 300 or answer.status in also:
                    return answer
                failure = error_of(answer)
                pause = self.pause_after(failure, number)
            failure.idempotency_key = request.headers.get("Idempotency-Key")
            repeatable = method == "GET" or failure.idempotency_key is not None
            if pause is None or not repeatable or self.clock.monotonic() + pause >= deadline:
                raise failure
            await self.transport.sleep(pause)
        raise AssertionError("unreachable")

    async def fetch(self, model: type[M], method: str, path: str, **options: Any) -> M:
        """Send a request and read the response; `options` are those of `send`."""
        return read(model, await self.send(method, path, **options))

    async def pages(
        self, model: type[M], path: str, name: str, query: Sequence[tuple[str, str]] = ()
    ) -> AsyncGenerator[M, None]:
        """Read all pages of a list, whose rows are in the field `name`."""
        cursor: str | None = None
        while True:
            more = [("cursor", cursor)] if cursor else []
            answer = await self.send("GET", path, query=[*query, *more])
            page = answer.json()
            rows = page.get(name) if isinstance(page, dict) else None
            if not isinstance(rows, list):
                raise unexpected(answer.status, f"it has no list of {name}")
            for row in rows:
                yield read_value(model, row, answer.status)
            following = page.get("nextCursor")
            if not following:
                return
            if following == cursor:
                raise unexpected(answer.status, "its next page is the same page")
            cursor = following

    def back_off(self, number: int) -> float:
        """Return the pause before another attempt; it grows, and varies from client to client."""
        longest: float = min(FIRST_PAUSE * 2 ** min(number, 10), LONGEST_PAUSE)
        return longest * (0.5 + self.clock.random() / 2)

    def pause_after(self, failure: NovitaiError, number: int) -> float | None:
        """Return the pause before the request is sent again; None if that is of no use."""
        if isinstance(failure, UnexpectedResponse):
            return self.back_off(number) if failure.status in _RETRIED else None
        if not isinstance(failure, ApiError):
            return None
        if failure.status in _RETRIED or failure.code in _RETRIED_CODES:
            return self.back_off(number) if failure.retry_after is None else failure.retry_after
        return None

    def unreachable(self, request: Request, error: Exception) -> ConnectionFailed:
        """Build the error for a request without a response."""
        told = str(error) or type(error).__name__
        doubt = "" if request.method == "GET" else "; the change may have been made"
        failure = ConnectionFailed(f"no response from {self.url}: {told}{doubt}")
        failure.__cause__ = error
        return failure


def certificates(url: str) -> ssl.SSLContext | bool:
    """Return the certificates to trust: none for `http:`; those of the machine take 0.2 s to read.

    The result is the argument `verify` of the clients of httpx2.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if url.startswith("http:") else True


def new_key() -> str:
    """Make an idempotency key."""
    return str(uuid.uuid4())


def is_transient(error: Exception) -> bool:
    """Whether another attempt may succeed; a certificate that is not valid stays so."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
        cause = cause.__cause__ or cause.__context__
    return isinstance(error, _TRANSIENT)


def unexpected(status: int, why: str) -> UnexpectedResponse:
    """Build the error for a response that is not one of the API."""
    error = UnexpectedResponse(f"the response ({status}) is not one of novitai: {why}")
    error.status = status
    return error


def read(model: type[M], answer: Answer) -> M:
    """Read a response.

    Raises:
        UnexpectedResponse: it does not fit the model.
    """
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        raise unexpected(answer.status, _wrong(error)) from None


def read_value(model: type[M], value: object, status: int) -> M:
    """Read an object of a response.

    Raises:
        UnexpectedResponse: it does not fit the model.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise unexpected(status, _wrong(error)) from None


def _wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def error_of(answer: Answer) -> ApiError | UnexpectedResponse:
    """Build the exception for a response that is not a success."""
    try:
        told = json.loads(answer.content)["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return unexpected(answer.status, "it has no error of the API")
    failure = class_of(code, answer.status)(f"{message} ({code})")
    fill(failure, answer, told)
    return failure


def fill(failure: ApiError, answer: Answer, told: Mapping[str, Any]) -> None:
    """Copy the facts of an error of the API to its exception."""
    failure.status = answer.status
    failure.code = str(told["code"])
    failure.message = str(told["message"])
    failure.category = str(told.get("category", ""))
    failure.retryable = bool(told.get("retryable", False))
    details = told.get("details")
    failure.details = details if isinstance(details, list | dict) else None
    failure.request_id = str(told.get("requestId", ""))
    failure.retry_after = retry_after(answer.headers.get("Retry-After"))


def retry_after(value: str | None) -> float | None:
    """Read a `Retry-After` header: seconds, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        return max(float(int(value)), 0.0)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)
