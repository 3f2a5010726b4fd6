# SPDX-License-Identifier: Apache-2.0
"""Handles each call to the emulated API: log, key, rate limit, faults, work, reply.

The work itself never awaits, so a call sees and changes one moment of virtual time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import parse_qsl

import orjson
from starlette.types import Message, Receive, Scope, Send

from novitai.emulator.calling import Call, Reply
from novitai.emulator.calls import LONGEST_BODY, Entry, caller_label
from novitai.emulator.dropping import drop_connection
from novitai.emulator.errors import Refusal, error_body, invalid, rate_limited, unauthorized
from novitai.emulator.faults import CallFault, short
from novitai.emulator.misnaming import misnamed
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

Handler = Callable[[Emulator, Rows, Call], Reply]
RouteTable = Mapping[tuple[str, str], Handler]

_NO_SUCH_PAGE = Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")


@dataclass(frozen=True, slots=True)
class _Task:
    """The work of one call."""

    handler: Handler | None
    entry: Entry
    body: object
    base_url: str


class Gate:
    """The emulated API as an ASGI application over a table that maps (method, path) to a handler.

    The handler `accepted` answers an operation that a fault postpones.
    """

    def __init__(
        self, emulator: Emulator, rows: Rows, table: RouteTable, accepted: Handler
    ) -> None:
        self._emulator = emulator
        self._rows = rows
        self._table = table
        self._accepted = accepted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        begun = time.perf_counter()
        raw = await _read(receive)
        method, path = scope["method"], short(scope["path"])
        headers = _headers(scope)
        key = _bearer(headers)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        body = _parsed(raw)
        handler = self._table.get((method, path))
        entry = self._emulator.calls.add(
            method,
            path,
            query=query,
            body=_kept(raw, body),
            caller=caller_label(key),
            virtual_at=self._emulator.clock.now(),
            known=handler is not None,
        )
        reply = self._barred(key)
        if reply is None:
            reply = await self._with_faults(
                _Task(handler, entry, body, _base_url(scope, headers)), raw
            )
        entry.duration_ms = round((time.perf_counter() - begun) * 1000, 3)
        if reply is None:
            entry.status = 0
            await drop_connection(scope, receive)
            return
        entry.status = reply.status
        await _send(send, reply)

    def _barred(self, key: str) -> Reply | None:
        """Return the reply to a call with a wrong key or above the rate limit, or None."""
        wanted = self._emulator.config.api_key
        if not key or (wanted is not None and key != wanted):
            return Reply(401, unauthorized().body())
        limit = self._emulator.settings.rate_limit_per_minute
        if limit <= 0:
            return None
        now, recent = self._emulator.clock.real(), self._emulator.recent_calls
        while recent and recent[0] <= now - 60:
            recent.popleft()
        if len(recent) < limit:
            recent.append(now)
            return None
        headers: tuple[tuple[str, str], ...] = ()
        if self._emulator.settings.rate_limit_retry_after:
            headers = (("retry-after", str(max(1, math.ceil(recent[0] + 60 - now)))),)
        return Reply(429, rate_limited().body(), headers=headers)

    async def _with_faults(self, task: _Task, raw: bytes) -> Reply | None:
        """Return the reply, or None to drop the connection."""
        entry = task.entry
        faults = self._emulator.faults.for_call(entry.method, entry.path, entry.query, raw)
        if not faults:
            return self._work(task)
        reply: Reply | None = None
        for fault in sorted(faults, key=lambda each: each.when != "before"):
            if fault.when == "after" and reply is None:
                reply = self._work(task)
            entry.faults += (f"{fault.when}: {describe(fault)}",)
            if fault.latency:
                await asyncio.sleep(fault.latency)
            if fault.late:
                return self._answered_first(task, fault)
            if fault.drop:
                return None
            replaced = self._misnamed(entry, fault, reply) or _replaced(fault, reply)
            if fault.when == "before" and replaced is not None:
                return replaced
            reply = replaced or reply
        return reply if reply is not None else self._work(task)

    def _answered_first(self, task: _Task, fault: CallFault) -> Reply | None:
        """Reply to a call whose work is done later; None drops the connection.

        An operation on an instance that does not exist is refused at once and not postponed.
        """
        reply = None
        if not fault.drop:
            reply = _replaced(fault, None)
            if reply is None:
                reply = self._work(replace(task, handler=self._accepted))
                if reply.status != HTTPStatus.OK:
                    return reply
        self._emulator.postpone(fault.late, lambda at: self._late(task, at))
        return reply

    def _late(self, task: _Task, at: float) -> None:
        status = self._work(task, at).status
        task.entry.faults += (f"done late: {status}",)

    def _misnamed(self, entry: Entry, fault: CallFault, reply: Reply | None) -> Reply | None:
        if not fault.reply_id or reply is None:
            return None
        replaced = misnamed(self._emulator, reply, fault.reply_id, entry.caller)
        if replaced is None:
            entry.faults += ("after: the id stayed",)
        return replaced

    def _work(self, task: _Task, at: float | None = None) -> Reply:
        """Do the work now, or as of `at`, which no other change may have followed."""
        if at is None:
            self._emulator.settle()
        if task.handler is None:
            return _NO_SUCH_PAGE
        entry = task.entry
        try:
            if not isinstance(task.body, dict):
                raise invalid("the body must be a JSON object")
            call = Call(
                entry.method,
                entry.path,
                entry.query,
                task.body,
                entry.caller,
                self._emulator.public_url or task.base_url,
                self._emulator.clock.now() if at is None else at,
            )
            return task.handler(self._emulator, self._rows, call)
        except Refusal as refusal:
            status = refusal.status
            if refusal.missing:
                status = self._emulator.settings.not_found_status
            return Reply(status, refusal.body(status))


def describe(fault: CallFault) -> str:
    """Summarize in a few words what a fault does to a call."""
    words = [f"{fault.latency:g} s"] if fault.latency else []
    if fault.late:
        words.append(f"to be done {fault.late:g} s later")
    if fault.drop:
        words.append("dropped")
    if fault.status:
        words.append(f"{fault.status} {fault.reason}".strip())
    if fault.raw_body is not None:
        words.append("body replaced")
    if fault.reply_id:
        words.append(f"id: {fault.reply_id}")
    return ", ".join(words)


def _replaced(fault: CallFault, reply: Reply | None) -> Reply | None:
    """Return the reply that the fault sets, or None if it keeps the original."""
    if not fault.status and fault.raw_body is None:
        return None
    status = fault.status or (reply.status if reply is not None else 200)
    headers = (("retry-after", fault.retry_after),) if fault.retry_after else ()
    if fault.raw_body is not None:
        return Reply(status, fault.raw_body.encode(), fault.content_type, headers)
    body = error_body(status, fault.reason, fault.message, dict(fault.metadata))
    return Reply(status, body, headers=headers)


async def _read(receive: Receive) -> bytes:
    message: Message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


def _parsed(raw: bytes) -> object:
    if not raw.strip():
        return {}
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value


def _kept(raw: bytes, body: object) -> object:
    """Return the body as the call log stores it."""
    if not raw:
        return None
    return body if len(raw) <= LONGEST_BODY else f"({len(raw)} bytes)"


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _bearer(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _base_url(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    return f"{scope.get('scheme', 'http')}://{headers.get(b'host', b'localhost').decode('latin-1')}"


async def _send(send: Send, reply: Reply) -> None:
    headers = [(b"content-length", str(len(reply.body)).encode())]
    if reply.content_type is not None:
        headers.append((b"content-type", reply.content_type.encode()))
    headers += [(name.encode(), value.encode()) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
