# SPDX-License-Identifier: Apache-2.0
"""Deliver messages: claim a line, send its first message, apply the result.

Only one message of a line is sent at a time, which keeps their order. The concurrency per host is
limited, so that a dead receiver does not delay the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.crash_points import CrashPoint, reach
from novitai.domain.actor import WEBHOOKS
from novitai.domain.event import EventType
from novitai.domain.webhook import (
    FAILURES_APART,
    LONGEST_RETRY_AFTER,
    SWITCHED_OFF_AFTER,
    DeliveryStatus,
    OffReason,
    Webhook,
    host_of,
    pause_after,
)
from novitai.egress.hosts import Hosts
from novitai.egress.sending import Message, ReceiverAnswer, Sender
from novitai.ids import Ids
from novitai.jobs.port import JobEngine
from novitai.jobs.waiting import keeping
from novitai.lifecycle.events.outbox import JOB
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.renewal import renew_every
from novitai.lifecycle.webhooks.metrics import DeliveryMetrics, DeliveryOutcome
from novitai.lifecycle.webhooks.payload import as_try, body_of, open_secrets
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import deliveries, instances, operations, webhook_lines, webhooks
from novitai.store.queries.deliveries import Head
from novitai.store.queries.leases import Fenced
from novitai.store.queries.webhook_lines import Line
from novitai.store.vault import Vault
from novitai.urls import masked_login

CONCURRENCY: Final = 128
"""Concurrent deliveries in one process. It is high because a delivery mostly waits."""
LEASE_SECONDS: Final = 3.0
"""The lease of a line, so the delay of its messages if the process that claimed it dies."""
_RENEW_AFTER: Final = 1.0
_RENEW_AGAIN_AFTER: Final = 0.3
_SEND_BEFORE: Final = 1_000
"""Milliseconds after the claim within which sending must begin. A message sent later could arrive
after the next message, sent by a worker that has claimed the line in the meantime."""
_EXPEDITE_AGAIN: Final = 10_000
"""Milliseconds for which a line is not made due early again."""
_EXPEDITE_PAGE: Final = 500
_REMEMBERED_LINES: Final = 10_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Claimed:
    line: Line
    webhook: Webhook
    head: Head
    message: Message


@dataclass(frozen=True, slots=True)
class _Applied:
    """The consequences of an answer.

    Attributes:
        due: When the line is due again, in Unix milliseconds.
        others_wait: Whether other lines wait for the receiver, which has just succeeded.
        failing_since: Since when the receiver has been failing.
    """

    due: int | None
    others_wait: bool
    failing_since: int | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """The result of one run of a line: when it is due again, and whether its host works."""

    due: int | None = None
    works: bool | None = None


class Deliverer:
    """Sends the messages that the outbox wrote."""

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
        """Set the dependencies.

        Args:
            database: Stores lines and messages.
            clock: Reads the time and sleeps.
            ids: Makes jitter.
            jobs: Calls `run` with due lines.
            recorder: Appends an event when a receiver is switched off.
            vault: Decrypts the secrets of webhooks.
            sender: Sends one message.
            secrets: The installation's secrets, newest first, for receivers without their own.
            hosts: Limits the concurrency per host and receiver.
        """
        self._database = database
        self._clock = clock
        self._ids = ids
        self._jobs = jobs
        self._recorder = recorder.by(WEBHOOKS)
        self._vault = vault
        self._sender = sender
        self._secrets = secrets
        self._hosts = hosts or Hosts()
        self._ends: dict[str, tuple[str, str]] = {}
        self.metrics = DeliveryMetrics()

    def register(self, *, concurrency: int = CONCURRENCY) -> None:
        """Register with the job engine, so that `run` gets due lines."""

        def due(connection: Connection, now: int, limit: int) -> list[str]:
            # Lines that wait for a place must not fill the page and keep out the others.
            return webhook_lines.due(
                connection,
                now,
                limit,
                except_hosts=self._hosts.full,
                except_webhooks=self._hosts.busy,
            )

        self._jobs.register(JOB, self.run, due=due, concurrency=concurrency)

    async def run(self, line_id: str) -> int | None:
        """Send the first message of a line, or queue the line if its host or receiver is busy.

        Returns:
            When the line is due again, in Unix milliseconds; None if it is woken in another way.
        """
        ends = await self._ends_of(line_id)
        if ends is None or not self._hosts.enter(*ends, line_id):
            return None
        step = _Step()
        try:
            step = await self._send_first(line_id)
        finally:
            for waiting in self._hosts.leave(*ends, works=step.works):
                self._jobs.offer(JOB, waiting)
        return step.due

    async def _ends_of(self, line_id: str) -> tuple[str, str] | None:
        """Return the host and the receiver of a line. The cached host may be outdated."""
        ends = self._ends.get(line_id)
        if ends is None:
            ends = await self._database.read(partial(webhook_lines.ends_of, line_id=line_id))
            if ends is not None:
                if len(self._ends) >= _REMEMBERED_LINES:
                    self._ends.clear()
                self._ends[line_id] = ends
        return ends

    async def _send_first(self, line_id: str) -> _Step:
        claimed = await self._database.write(partial(self._claim, line_id=line_id))
        if not isinstance(claimed, _Claimed):
            return _Step(claimed)
        self._ends[line_id] = host_of(claimed.webhook.url), claimed.webhook.id
        reach(CrashPoint.DELIVERY_CLAIMED, claimed.head.event_type)
        try:
            if (
                self._clock.now()
                > claimed.line.lease_until - int(LEASE_SECONDS * 1000) + _SEND_BEFORE
            ):
                return _Step(await self._release(claimed.line, 0))
            async with keeping(self._renewing(claimed.line)):
                reach(CrashPoint.DELIVERY_SENDING, claimed.head.event_type)
                answer = await self._sender.send(claimed.message)
            reach(CrashPoint.DELIVERY_SENT, claimed.head.event_type)
            applied = await self._database.write(
                partial(self._apply, claimed=claimed, answer=answer)
            )
            reach(CrashPoint.DELIVERY_APPLIED, claimed.head.event_type)
        except Fenced:
            self.metrics.fenced += 1
            _log.info("fenced", line=line_id, token=claimed.line.token)
            return _Step()
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._release(claimed.line, 0))
            raise
        except Exception:  # release the lease, then raise
            with contextlib.suppress(StoreError):
                await self._release(claimed.line, self._ids.jitter(5))
            raise
        await self._conclude(claimed, answer, applied)
        return _Step(applied.due, answer.delivered)

    def _claim(self, connection: Connection, line_id: str) -> _Claimed | int | None:
        """Claim a line and load its first message; if it is claimed, return when its lease ends."""
        now = self._clock.now()
        until = now + int(LEASE_SECONDS * 1000)
        line = webhook_lines.claim(connection, line_id, now=now, until=until)
        if line is None:
            return webhook_lines.held_until(connection, line_id, now=now)
        webhook = webhooks.load(connection, line.webhook_id)
        if webhook is None:
            raise LookupError(f"line {line_id} has webhook {line.webhook_id}, which has no row")
        secrets = self._secrets_of(connection, webhook, now)
        if not webhook.enabled or not secrets:  # no secrets: it has just been deleted
            deliveries.give_up_line(connection, line_id, now=now)
        head = deliveries.head(connection, line_id)
        if head is None:
            webhook_lines.hold(connection, line)
            webhook_lines.set_next(connection, line_id, None)
            return None
        message = Message(
            id=head.id,
            url=webhook.url,
            body=body_of(head.event_type, head.at, head.data, head.actor),
            secrets=secrets,
        )
        return _Claimed(line, webhook, head, message)

    def _secrets_of(self, connection: Connection, webhook: Webhook, now: int) -> Sequence[str]:
        if not webhook.standing:
            return self._secrets
        sealed = webhooks.load_sealed(connection, webhook.id)
        return open_secrets(self._vault, sealed, now)

    def _apply(self, connection: Connection, claimed: _Claimed, answer: ReceiverAnswer) -> _Applied:
        now = self._clock.now()
        line, head, webhook = claimed.line, claimed.head, claimed.webhook
        webhook_lines.hold(connection, line)
        deliveries.note_try(connection, head, as_try(answer))
        if answer.delivered:
            deliveries.end(connection, head.id, DeliveryStatus.DELIVERED, now=now)
            if webhook.failing_since is not None:
                webhooks.note_recovery(connection, webhook.id)
            due = deliveries.next_due(connection, line.id)
            if due is not None and not webhook_lines.is_held_back(connection, line.id, now=now):
                due = min(due, now)
            webhook_lines.set_next(connection, line.id, due)
            return _Applied(due, webhook_lines.any_to_expedite(connection, webhook.id, now=now))
        failing_since: int | None = None
        present = webhooks.load(connection, webhook.id)
        if present is not None and present.url == webhook.url:
            failing_since = webhooks.note_failure(
                connection, webhook.id, now=now, apart=FAILURES_APART
            )
            if deliveries.is_as_claimed(connection, head):
                self._postpone(connection, claimed, answer, now)
        # If the URL has changed or the message was begun again since, the failure is not counted.
        due = deliveries.next_due(connection, line.id)
        webhook_lines.set_next(connection, line.id, due)
        return _Applied(due, others_wait=False, failing_since=failing_since)

    def _postpone(
        self, connection: Connection, claimed: _Claimed, answer: ReceiverAnswer, now: int
    ) -> None:
        head, tries = claimed.head, claimed.head.tries
        due_at = head.due_at
        if answer.gone or answer.at >= due_at:
            tries += 1
            pause = None if answer.gone else pause_after(tries)
            if pause is None:
                deliveries.end(connection, head.id, DeliveryStatus.DEAD, now=now)
                return
            due_at = now + int(self._ids.jitter(pause) * 1000)
        # An early try (the line was hurried) does not count; the schedule stays.
        if answer.retry_after:
            asked = now + int(min(answer.retry_after, LONGEST_RETRY_AFTER) * 1000)
            due_at = max(due_at, asked)
            webhook_lines.hold_back(connection, claimed.line.id, until=asked)
        deliveries.postpone(connection, head.id, tries=tries, due_at=due_at)

    async def _conclude(self, claimed: _Claimed, answer: ReceiverAnswer, applied: _Applied) -> None:
        """Count the answer; make the other lines due, or switch the receiver off."""
        webhook = claimed.webhook
        self._count(claimed, answer)
        if answer.delivered:
            if applied.others_wait:
                await self.expedite(webhook.id, hold_back_recent=True)
            return
        since = applied.failing_since
        if answer.gone:
            await self._switch_off(claimed, OffReason.GONE)
        elif since is not None and self._clock.now() - since >= SWITCHED_OFF_AFTER:
            await self._switch_off(claimed, OffReason.FAILING)

    def _count(self, claimed: _Claimed, answer: ReceiverAnswer) -> None:
        if answer.delivered:
            outcome = DeliveryOutcome.DELIVERED
        elif answer.gone:
            outcome = DeliveryOutcome.GONE
        elif answer.status is None:
            outcome = DeliveryOutcome.UNREACHABLE
        else:
            outcome = DeliveryOutcome.REFUSED
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

    async def expedite(self, webhook_id: str, *, hold_back_recent: bool = False) -> None:
        """Make all lines of a receiver due at once, one page per transaction.

        Args:
            webhook_id: The receiver, which works again or is switched off.
            hold_back_recent: Skip lines that were made due recently or whose receiver sent
                `Retry-After`. Otherwise a message that the receiver refuses would be tried again
                after every success of another line.
        """

        def page(connection: Connection) -> int:
            now = self._clock.now()
            ids = webhook_lines.expedite(
                connection,
                webhook_id,
                now=now,
                then_held_back_until=now + _EXPEDITE_AGAIN if hold_back_recent else None,
                limit=_EXPEDITE_PAGE,
            )
            for line_id in ids:
                self._jobs.nudge(connection, JOB, line_id)
            return len(ids)

        while await self._database.write(page) == _EXPEDITE_PAGE:
            continue

    async def _switch_off(self, claimed: _Claimed, reason: OffReason) -> None:
        webhook, instance_id = claimed.webhook, claimed.line.instance_id

        facts = {
            "webhookId": webhook.id,
            "url": masked_login(webhook.url),
            "reason": reason.value,
        }

        def write(connection: Connection) -> bool:
            instance = None if instance_id is None else instances.lock(connection, instance_id)
            if not webhooks.switch_off(
                connection, webhook.id, reason, url=webhook.url, now=self._clock.now()
            ):
                return False
            if instance is None:
                self._recorder.append_account(connection, EventType.WEBHOOK_SWITCHED_OFF, facts)
                return True
            self._recorder.append(
                connection,
                instance,
                operations.running(connection, instance.id),
                EventType.WEBHOOK_SWITCHED_OFF,
                also=facts,
            )
            return True

        if await self._database.write(write):
            _log.warning("webhook_switched_off", webhook=webhook.id, reason=reason.value)
            await self.expedite(webhook.id)

    def _renewing(self, line: Line) -> Coroutine[None, None, None]:
        renew = partial(self._renew, line)
        return renew_every(_RENEW_AFTER, renew, self._clock, retry_after=_RENEW_AGAIN_AFTER)

    async def _renew(self, line: Line) -> bool:
        """Renew the lease while the receiver has not answered; return whether it is held."""
        until = self._clock.now() + int(LEASE_SECONDS * 1000)
        return await self._database.write(partial(webhook_lines.renew, line=line, until=until))

    async def _release(self, line: Line, pause: float) -> int:
        at = self._clock.now() + int(pause * 1000)
        await self._database.write(partial(webhook_lines.release, line=line, next_try_at=at))
        return at
