# SPDX-License-Identifier: Apache-2.0
"""Standing webhooks as clients meet them."""

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
    TOLD,
    OffReason,
    Try,
    Webhook,
    host_of,
)
from novitai.egress.sending import Message, Sender
from novitai.errors import Conflict, NotFound
from novitai.ids import Ids
from novitai.lifecycle.commands.idempotency import Command, Done, Transaction, outcome
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
"""The type of a test message, which is no event and no part of any order."""
_REPLAY_INSTANCES: Final = 20
"""So many are told again in one transaction, which keeps them locked."""


@dataclass(frozen=True, slots=True)
class Revealed:
    """A webhook and its secret, which is shown this once."""

    webhook: Webhook
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Changed:
    """A webhook before and after a change."""

    before: Webhook
    after: Webhook


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of a test message."""

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
    """How many messages a page of a replay made; `last` is its last instance if more may follow."""

    messages: int
    last: str | None


def too_many_webhooks() -> Conflict:
    """Say that there is no room for another standing webhook."""
    return Conflict(
        f"There are {MAX_STANDING} standing webhooks, which is the most; delete one first",
        code="TOO_MANY_WEBHOOKS",
        details={"limit": MAX_STANDING},
    )


class Webhooks:
    """Keeps standing webhooks, tests them, and tells them everything again."""

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
        """Make a standing webhook with a secret of its own.

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
        """Show a standing webhook.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """
        return await self._database.read(partial(standing, webhook_id=webhook_id))

    async def page(self, *, limit: int = MAX_PAGE, cursor: str | None = None) -> WebhookPage:
        """List standing webhooks, newest first.

        Raises:
            ValidationFailed: the cursor is not one of ours.
        """
        read = partial(webhooks.page, limit=limit + 1, after=read_place(cursor))
        found = await self._database.read(read)
        return WebhookPage(*cut(found, limit, lambda one: (one.created_at, one.id)))

    def change(self, webhook_id: str, change: WebhookChange) -> Command[Changed]:
        """Change what is given.

        One that is switched off gives up what waits for it, which `replay` brings back; one that
        moves to another URL is tried there at once.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """

        def act(connection: Connection) -> Changed:
            now = self._clock.now()
            before = standing(connection, webhook_id)
            webhooks.change(
                connection,
                webhook_id,
                now=now,
                url=change.url,
                event_types=change.event_types,
                description=change.description,
            )
            if change.enabled is True:
                webhooks.switch_on(connection, webhook_id, now=now)
            elif change.enabled is False:
                webhooks.switch_off(connection, webhook_id, OffReason.REQUESTED, now=now)
            return Changed(before, standing(connection, webhook_id))

        async def then(changed: Changed) -> None:
            before, after = changed.before, changed.after
            if after.url != before.url:
                await self._database.write(
                    partial(webhook_lines.move, webhook_id=webhook_id, host=host_of(after.url))
                )
            if after.url != before.url or (before.enabled and not after.enabled):
                await self._deliverer.hurry(webhook_id)

        return Command.of(act, then)

    def delete(self, webhook_id: str) -> Command[Webhook]:
        """Delete a standing webhook; what waits for it is given up, its record stays.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """

        def act(connection: Connection) -> Webhook:
            webhook = standing(connection, webhook_id)
            webhooks.delete(connection, webhook_id, now=self._clock.now())
            return webhook

        async def then(_deleted: Webhook) -> None:
            await self._deliverer.hurry(webhook_id)

        return Command.of(act, then)

    def rotate(self, webhook_id: str) -> Transaction[Revealed]:
        """Give a webhook a new secret; for 24 h the old one signs beside it.

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
        """Send a test message now, once, enabled or not, and say what came of it.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
        """

        async def send(_deadline: int | None) -> Done[Tested]:
            return Done(await self._send_test(webhook_id))

        return Command(send)

    async def _send_test(self, webhook_id: str) -> Tested:

        def load(connection: Connection) -> tuple[Webhook, Sequence[str]]:
            webhook = standing(connection, webhook_id)
            sealed = webhooks.load_sealed(connection, webhook_id)
            return webhook, open_secrets(self._vault, sealed, self._clock.now())

        # Of one moment: a webhook that is deleted in between has no secret any more.
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
        """Tell a webhook again everything since a time that it wants to be told, in order.

        What it was never told, because it was off or not there yet, is told too. A message that
        was sent before keeps its id. The result is the number of messages. Once some are written
        the rest follows, however long it takes.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
            Conflict: `INVALID_STATE`: it is switched off.
        """

        async def tell_again(deadline: int | None) -> Done[int]:
            told = await self._tell_page(webhook_id, since, "", deadline)
            count = told.messages
            while told.last is not None:
                # What was committed is done: nothing after it may say that nothing was.
                try:
                    told = await self._tell_page(webhook_id, since, told.last, None)
                except (NotFound, Conflict):
                    break  # switched off or deleted meanwhile: whatever waits is given up
                count += told.messages
            return Done(count)

        return Command(tell_again)

    async def _tell_page(
        self, webhook_id: str, since: int, after: str, deadline: int | None
    ) -> _Told:
        """Tell again what happened to some instances, to each of them in one transaction.

        The instances are locked: nothing can happen to them between what is told again.
        """

        def tell(connection: Connection) -> _Told:
            webhook = standing(connection, webhook_id)
            if not webhook.enabled:
                raise switched_off(webhook)
            types = webhook.event_types or TOLD
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
