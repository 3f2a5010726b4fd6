# SPDX-License-Identifier: Apache-2.0
"""How messages leave: claim a line, send its first message, apply what came of it.

One message of a line is under way at a time, so their order holds. What one host may take of this
process is bounded, so that a dead receiver holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.view import masked_url
from novitai.domain.webhook import (
    LONGEST_RETRY_AFTER,
    SWITCHED_OFF_AFTER,
    DeliveryStatus,
    OffReason,
    Webhook,
    host_of,
    pause_after,
)
from novitai.ids import Ids
from novitai.jobs.port import JobEngine
from novitai.jobs.waiting import keeping
from novitai.lifecycle.delivery_metrics import DeliveryMetrics, Outcome
from novitai.lifecycle.messages import as_try, body_of, open_secrets
from novitai.lifecycle.outbox import JOB
from novitai.lifecycle.recording import Recorder
from novitai.store import deliveries, instances, operations, webhook_lines, webhooks
from novitai.store.database import Database
from novitai.store.deliveries import Head
from novitai.store.errors import StoreError
from novitai.store.operations import Fenced
from novitai.store.vault import Vault
from novitai.store.webhook_lines import Line
from novitai.webhooks.hosts import Hosts
from novitai.webhooks.sending import Answer, Message, Sender

CONCURRENCY: Final = 128
"""Messages under way at the same time in one process; sending is waiting, mostly."""
LEASE_SECONDS: Final = 8.0
_RENEW_AFTER: Final = 2.5
_SEND_BEFORE: Final = 3_000
"""Milliseconds of the lease that may have gone by when the sending begins: what is sent later
could reach the receiver behind a later message that somebody else has sent meanwhile."""
_HURRY_AGAIN: Final = 10_000
"""Milliseconds for which a line that was hurried in vain is left to its schedule."""
_HURRY_PAGE: Final = 500
_REMEMBERED_LINES: Final = 10_000

_log = structlog.get_logger("novitai.webhooks")


@dataclass(frozen=True, slots=True)
class _Claimed:
    line: Line
    webhook: Webhook
    head: Head
    message: Message


@dataclass(frozen=True, slots=True)
class _Applied:
    """When the line is due again, and whether others wait for the receiver, which works."""

    due: int | None
    others_wait: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """What came of one look at a line: when to look again, and whether its host works."""

    due: int | None = None
    works: bool | None = None


class Deliverer:
    """Sends what the outbox wrote."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: Ids,
        jobs: JobEngine,
        recorder: Recorder,
        vault: Vault,
        sender: Sender,
        *,
        secrets: Sequence[str],
        hosts: Hosts | None = None,
    ) -> None:
        """Put it together.

        Args:
            database: Where the rows are.
            clock: Time.
            ids: Randomness.
            jobs: Brings due lines here.
            recorder: Tells the event log of receivers that are switched off.
            vault: Opens the secrets of webhooks.
            sender: Sends one message.
            secrets: The installation's own, newest first, for receivers that have none.
            hosts: What each host may take.
        """
        self._database = database
        self._clock = clock
        self._ids = ids
        self._jobs = jobs
        self._recorder = recorder
        self._vault = vault
        self._sender = sender
        self._secrets = secrets
        self._hosts = hosts or Hosts()
        self._hosts_of_lines: dict[str, str] = {}
        self.metrics = DeliveryMetrics()

    def register(self, *, concurrency: int = CONCURRENCY) -> None:
        """Have the job engine bring due lines here."""

        def due(connection: Connection, now: int, limit: int) -> list[str]:
            # Whoever waits for a place at a full host must not fill the page for the others.
            return webhook_lines.due(connection, now, limit, except_hosts=self._hosts.full)

        self._jobs.register(JOB, self.run, due=due, concurrency=concurrency)

    async def run(self, line_id: str) -> int | None:
        """Send the first message of a line if its host has room, and then those that waited.

        Returns:
            When to look at the line again, in Unix milliseconds; None if something else will.
        """
        host = await self._host_of(line_id)
        if host is None or not self._hosts.enter(host, line_id):
            return None
        due: int | None = None
        trouble: Exception | None = None
        current: str | None = line_id
        while current is not None:
            step = _Step()
            try:
                step = await self._send_first(current)
            except asyncio.CancelledError:
                self._hosts.leave(host, works=None)
                raise
            except Exception as error:  # kept until the place is given back; the engine counts it
                # The others of this host are found by the sweep.
                trouble = error
            if step.due is not None and step.due <= self._clock.now():
                self._hosts.wait(host, current)
            elif current == line_id:
                due = step.due
            current = self._hosts.leave(host, works=step.works)
            if trouble is not None:
                if current is not None:
                    self._hosts.leave(host, works=None)
                raise trouble
        return due

    async def _host_of(self, line_id: str) -> str | None:
        host = self._hosts_of_lines.get(line_id)
        if host is None:
            host = await self._database.read(partial(webhook_lines.host_of, line_id=line_id))
            if host is not None:
                if len(self._hosts_of_lines) >= _REMEMBERED_LINES:
                    self._hosts_of_lines.clear()
                self._hosts_of_lines[line_id] = host
        return host

    async def _send_first(self, line_id: str) -> _Step:
        claimed = await self._database.write(partial(self._claim, line_id=line_id))
        if claimed is None:
            return _Step()
        self._hosts_of_lines[line_id] = host_of(claimed.webhook.url)
        try:
            if (
                self._clock.now()
                > claimed.line.lease_until - int(LEASE_SECONDS * 1000) + _SEND_BEFORE
            ):
                return _Step(await self._release(claimed.line, 0))
            async with keeping(self._renew(claimed.line)):
                answer = await self._sender.send(claimed.message)
            applied = await self._database.write(
                partial(self._apply, claimed=claimed, answer=answer)
            )
        except Fenced:
            self.metrics.fenced += 1
            _log.info("fenced", line=line_id, token=claimed.line.token)
            return _Step()
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._release(claimed.line, 0))
            raise
        except Exception:  # the lease is given back, then it is raised on
            with contextlib.suppress(StoreError):
                await self._release(claimed.line, self._ids.jitter(5))
            raise
        await self._conclude(claimed, answer, applied)
        return _Step(applied.due, answer.delivered)

    def _claim(self, connection: Connection, line_id: str) -> _Claimed | None:
        now = self._clock.now()
        until = now + int(LEASE_SECONDS * 1000)
        line = webhook_lines.claim(connection, line_id, now=now, until=until)
        if line is None:
            return None
        webhook = webhooks.load(connection, line.webhook_id)
        if webhook is None:
            raise LookupError(f"{line_id} belongs to {line.webhook_id}, which has no row")
        if not webhook.enabled:
            deliveries.give_up_line(connection, line_id, now=now)
        head = deliveries.head(connection, line_id)
        if head is None:
            webhook_lines.hold(connection, line)
            webhook_lines.set_next(connection, line_id, None)
            return None
        message = Message(
            id=head.id,
            url=webhook.url,
            body=body_of(head.event_type, head.at, head.data),
            secrets=self._secrets_of(connection, webhook, now),
        )
        return _Claimed(line, webhook, head, message)

    def _secrets_of(self, connection: Connection, webhook: Webhook, now: int) -> Sequence[str]:
        if not webhook.standing:
            return self._secrets
        sealed = webhooks.load_sealed(connection, webhook.id)
        return open_secrets(self._vault, sealed, now)

    def _apply(self, connection: Connection, claimed: _Claimed, answer: Answer) -> _Applied:
        now = self._clock.now()
        line, head, webhook = claimed.line, claimed.head, claimed.webhook
        others_wait = False
        webhook_lines.hold(connection, line)
        deliveries.note_try(connection, head, as_try(answer))
        if answer.delivered:
            deliveries.end(connection, head.id, DeliveryStatus.DELIVERED, now=now)
            if webhook.failing_since is not None:
                webhooks.note_recovery(connection, webhook.id)
            others_wait = webhook_lines.any_to_hurry(
                connection, webhook.id, now=now, unless_since=now - _HURRY_AGAIN
            )
        else:
            self._postpone(connection, head, answer, now)
            webhooks.note_failure(connection, webhook.id, now=now)
        due = deliveries.next_due(connection, line.id)
        webhook_lines.set_next(connection, line.id, due)
        return _Applied(due, others_wait)

    def _postpone(self, connection: Connection, head: Head, answer: Answer, now: int) -> None:
        if answer.at < head.due_at and not answer.gone:
            # It was tried early, on the chance that the receiver is back: the schedule stands.
            return
        tries = head.tries + 1
        pause = None if answer.gone else pause_after(tries)
        if pause is None:
            deliveries.end(connection, head.id, DeliveryStatus.DEAD, now=now)
            return
        asked = min(answer.retry_after or 0.0, LONGEST_RETRY_AFTER)
        pause = max(self._ids.jitter(pause), asked)
        deliveries.postpone(connection, head.id, tries=tries, due_at=now + int(pause * 1000))

    async def _conclude(self, claimed: _Claimed, answer: Answer, applied: _Applied) -> None:
        """Do what follows from an answer beyond its own line."""
        webhook = claimed.webhook
        self._count(claimed, answer)
        if answer.delivered:
            if applied.others_wait:
                await self.hurry(webhook.id, spare_recent=True)
            return
        failing_since = webhook.failing_since
        if answer.gone:
            await self._switch_off(claimed, OffReason.GONE)
        elif failing_since is not None and self._clock.now() - failing_since >= SWITCHED_OFF_AFTER:
            await self._switch_off(claimed, OffReason.FAILING)

    def _count(self, claimed: _Claimed, answer: Answer) -> None:
        if answer.delivered:
            outcome = Outcome.DELIVERED
        elif answer.gone:
            outcome = Outcome.GONE
        elif answer.status is None:
            outcome = Outcome.UNREACHABLE
        else:
            outcome = Outcome.REFUSED
        self.metrics.count(outcome)
        _log.log(
            20 if answer.delivered else 30,
            "webhook",
            delivery=claimed.head.id,
            webhook=claimed.webhook.id,
            type=claimed.head.event_type,
            outcome=outcome.value,
            status=answer.status,
            error=answer.error,
            duration_ms=answer.duration_ms,
        )

    async def hurry(self, webhook_id: str, *, spare_recent: bool = False) -> None:
        """Make what waits for a receiver due at once, a page at a time.

        Args:
            webhook_id: The receiver, which works again or is off.
            spare_recent: Leave the lines alone that were hurried in vain just now: a message that
                a working receiver refuses would be tried again with every success.
        """

        def page(connection: Connection) -> int:
            now = self._clock.now()
            unless_since = now - _HURRY_AGAIN if spare_recent else None
            ids = webhook_lines.hurry(
                connection, webhook_id, now=now, unless_since=unless_since, limit=_HURRY_PAGE
            )
            for line_id in ids:
                self._jobs.nudge(connection, JOB, line_id)
            return len(ids)

        while await self._database.write(page) == _HURRY_PAGE:
            continue

    async def _switch_off(self, claimed: _Claimed, reason: OffReason) -> None:
        webhook, instance_id = claimed.webhook, claimed.line.instance_id

        def write(connection: Connection) -> bool:
            instance = instances.lock(connection, instance_id)
            if instance is None or not webhooks.switch_off(
                connection, webhook.id, reason, now=self._clock.now()
            ):
                return False
            self._recorder.append(
                connection,
                instance,
                operations.running(connection, instance_id),
                EventType.WEBHOOK_SWITCHED_OFF,
                also={
                    "webhookId": webhook.id,
                    "url": masked_url(webhook.url),
                    "reason": reason.value,
                },
            )
            return True

        if await self._database.write(write):
            _log.warning("webhook_switched_off", webhook=webhook.id, reason=reason.value)
            await self.hurry(webhook.id)

    async def _renew(self, line: Line) -> None:
        """Keep the lease while a receiver takes long."""
        held = True
        while held:
            await self._clock.sleep(_RENEW_AFTER)
            until = self._clock.now() + int(LEASE_SECONDS * 1000)
            held = await self._database.write(partial(webhook_lines.extend, line=line, until=until))

    async def _release(self, line: Line, pause: float) -> int:
        at = self._clock.now() + int(pause * 1000)
        await self._database.write(partial(webhook_lines.release, line=line, next_try_at=at))
        return at
