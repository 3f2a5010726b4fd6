# SPDX-License-Identifier: Apache-2.0
"""Manage standing webhooks: create, change, delete, rotate secrets, test and replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import orjson
from sqlalchemy import Connection

from novitai.clock import Clock, iso
from novitai.domain.requests import WebhookChange, WebhookRequest
from novitai.domain.webhook import (
    MAX_STANDING,
    SECRET_OVERLAP,
    WEBHOOK_EVENTS,
    OffReason,
    Try,
    Webhook,
    host_of,
)
from novitai.egress.sending import Message, Sender
from novitai.errors import Conflict, NotFound
from novitai.ids import Ids
from novitai.lifecycle.commands.idempotency import Command, Completed, Transaction, outcome
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.lifecycle.webhooks.deliveries import standing, switched_off
from novitai.lifecycle.webhooks.delivery_worker import Deliverer
from novitai.lifecycle.webhooks.installation_secret import fresh_secret
from novitai.lifecycle.webhooks.payload import SECRET_PURPOSE, as_try, open_secrets
from novitai.store.engine.database import Database
from novitai.store.queries import events, instances, webhook_lines, webhooks
from novitai.store.vault import Vault

TEST_TYPE: Final = "webhook.test"
"""The type of a test message. It is not an event, and is sent outside of every line."""
_REPLAY_INSTANCES: Final = 20
"""Instances replayed in one transaction, which locks them."""


@dataclass(frozen=True, slots=True)
class Revealed:
    """A webhook and its secret, which is never shown again."""

    webhook: Webhook
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookChanged:
    """A webhook before and after a change."""

    before: Webhook
    after: Webhook


@dataclass(frozen=True, slots=True)
class Tested:
    """The result of a test message."""

    message_id: str
    delivered: bool
    attempt: Try


@dataclass(frozen=True, slots=True)
class WebhookPage:
    """Standing webhooks, newest first; `next_cursor` is None on the last page."""

    webhooks: Sequence[Webhook]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class _Told:
    """The messages one page of a replay wrote. `last` is its last instance; None at the end."""

    messages: int
    last: str | None


def too_many_webhooks() -> Conflict:
    """Return the error for a standing webhook beyond the limit."""
    return Conflict(
        f"There are {MAX_STANDING} standing webhooks, which is the most; delete one first",
        code="TOO_MANY_WEBHOOKS",
        details={"limit": MAX_STANDING},
    )


class Webhooks:
    """Manages, tests and replays standing webhooks."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: Ids,
        vault: Vault,
        outbox: Outbox,
        deliverer: Deliverer,
        sender: Sender,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._vault = vault
        self._outbox = outbox
        self._deliverer = deliverer
        self._sender = sender

    def create(self, request: WebhookRequest) -> Transaction[Revealed]:
        """Create a standing webhook with its own secret.

        Raises:
            Conflict: `TOO_MANY_WEBHOOKS`.
        """
        now = self._clock.now()
        webhook = Webhook(
            id=self._ids.prefixed("whk"),
            standing=True,
            url=request.url,
            event_types=request.event_types,
            enabled=request.enabled,
            created_at=now,
            updated_at=now,
            description=request.description,
            off_at=None if request.enabled else now,
            off_reason=None if request.enabled else OffReason.REQUESTED,
        )
        secret = fresh_secret(self._ids)
        sealed = self._vault.seal(SECRET_PURPOSE, secret.encode())

        def act(connection: Connection) -> Revealed:
            if webhooks.count_standing(connection) >= MAX_STANDING:
                raise too_many_webhooks()
            webhooks.insert(connection, webhook, sealed)
            return Revealed(webhook, secret)

        return act

    async def get(self, webhook_id: str) -> Webhook:
        """Return a standing webhook.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """
        return await self._database.read(partial(standing, webhook_id=webhook_id))

    async def page(self, *, limit: int = MAX_PAGE, cursor: str | None = None) -> WebhookPage:
        """List standing webhooks, newest first.

        Raises:
            ValidationFailed: the cursor is invalid.
        """
        read = partial(webhooks.page, limit=limit + 1, after=read_place(cursor))
        found = await self._database.read(read)
        return WebhookPage(*cut(found, limit, lambda one: (one.created_at, one.id)))

    def change(self, webhook_id: str, change: WebhookChange) -> Command[WebhookChanged]:
        """Change the given fields.

        If the webhook is disabled, its pending messages become dead; `replay` can deliver them
        again. If its URL changes, pending messages are sent to the new URL at once.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """

        def act(connection: Connection) -> WebhookChanged:
            now = self._clock.now()
            before = standing(connection, webhook_id)
            webhooks.change(
                connection,
                webhook_id,
                now=now,
                url=change.url,
                event_types=change.event_types,
                description=change.description,
                remove_description=change.remove_description,
            )
            if change.enabled is True:
                webhooks.switch_on(connection, webhook_id, now=now)
            elif change.enabled is False:
                webhooks.switch_off(connection, webhook_id, OffReason.REQUESTED, now=now)
            return WebhookChanged(before, standing(connection, webhook_id))

        async def then(changed: WebhookChanged) -> None:
            before, after = changed.before, changed.after
            if after.url != before.url:
                await self._database.write(
                    partial(webhook_lines.move, webhook_id=webhook_id, host=host_of(after.url))
                )
            if after.url != before.url or (before.enabled and not after.enabled):
                await self._deliverer.expedite(webhook_id)

        return Command.of(act, then)

    def delete(self, webhook_id: str) -> Command[Webhook]:
        """Delete a standing webhook. Its pending messages become dead; its record stays.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """

        def act(connection: Connection) -> Webhook:
            webhook = standing(connection, webhook_id)
            webhooks.delete(connection, webhook_id, now=self._clock.now())
            return webhook

        async def then(_deleted: Webhook) -> None:
            await self._deliverer.expedite(webhook_id)

        return Command.of(act, then)

    def rotate(self, webhook_id: str) -> Transaction[Revealed]:
        """Give a webhook a new secret; the old one also signs for 24 hours.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """
        secret = fresh_secret(self._ids)
        sealed = self._vault.seal(SECRET_PURPOSE, secret.encode())

        def act(connection: Connection) -> Revealed:
            now = self._clock.now()
            standing(connection, webhook_id)
            webhooks.rotate(
                connection, webhook_id, sealed=sealed, now=now, overlap_until=now + SECRET_OVERLAP
            )
            return Revealed(standing(connection, webhook_id), secret)

        return act

    def test(self, webhook_id: str) -> Command[Tested]:
        """Send one test message now, even to a disabled webhook, and return the result.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """

        async def send(_deadline: int | None) -> Completed[Tested]:
            return Completed(await self._send_test(webhook_id))

        return Command(send)

    async def _send_test(self, webhook_id: str) -> Tested:

        def load(connection: Connection) -> tuple[Webhook, Sequence[str]]:
            webhook = standing(connection, webhook_id)
            sealed = webhooks.load_sealed(connection, webhook_id)
            return webhook, open_secrets(self._vault, sealed, self._clock.now())

        # A snapshot, because a webhook that is deleted between the two reads has no secrets.
        webhook, secrets = await self._database.read(load, snapshot=True)
        body = {
            "type": TEST_TYPE,
            "timestamp": iso(self._clock.now()),
            "data": {"webhookId": webhook_id},
        }
        message = Message(self._ids.prefixed("msg"), webhook.url, orjson.dumps(body), secrets)
        answer = await self._sender.send(message)
        return Tested(message.id, answer.delivered, as_try(answer))

    def replay(self, webhook_id: str, since: int) -> Command[int]:
        """Deliver all events since a time again, if the webhook receives their type, in order.

        This includes events from before it was created or while it was disabled. A message that was
        sent before keeps its ID. The result is the number of messages. Once the first page is
        written, the replay runs to its end.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
            Conflict: `INVALID_STATE`: it is switched off.
        """

        async def tell_again(deadline: int | None) -> Completed[int]:
            told = await self._tell_page(webhook_id, since, "", deadline)
            count = told.messages
            while told.last is not None:
                # A page is committed, so the call must not fail with "nothing was done" any more.
                try:
                    told = await self._tell_page(webhook_id, since, told.last, None)
                except (NotFound, Conflict):
                    break  # switched off or deleted in the meantime: pending messages become dead
                count += told.messages
            return Completed(count)

        return Command(tell_again)

    async def _tell_page(
        self, webhook_id: str, since: int, after: str, deadline: int | None
    ) -> _Told:
        """Write the messages of one page of instances in one transaction.

        The instances are locked, so that no new event can come between the replayed ones.
        """

        def tell(connection: Connection) -> _Told:
            webhook = standing(connection, webhook_id)
            if not webhook.enabled:
                raise switched_off(webhook)
            types = webhook.event_types or WEBHOOK_EVENTS
            ids = events.instances_since(
                connection, since=since, types=types, after=after, limit=_REPLAY_INSTANCES
            )
            instances.lock_many(connection, ids)
            count = 0
            if not after:
                for event_id in events.account_ids_since(connection, since=since, types=types):
                    self._outbox.put(connection, webhook, None, event_id)
                    count += 1
            for instance_id in ids:
                for event_id in events.ids_since(connection, instance_id, since=since, types=types):
                    self._outbox.put(connection, webhook, instance_id, event_id)
                    count += 1
            return _Told(count, ids[-1] if len(ids) == _REPLAY_INSTANCES else None)

        return await outcome(self._database.write(tell, deadline=deadline))
