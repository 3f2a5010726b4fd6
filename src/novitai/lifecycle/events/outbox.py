# SPDX-License-Identifier: Apache-2.0
"""The outbox: writes the webhook deliveries of an event in the event's transaction.

One indexed query finds the receivers; nothing is sent from here.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.instance import Instance
from novitai.domain.webhook import WEBHOOK_EVENTS, Webhook, host_of, id_of_url
from novitai.ids import Ids
from novitai.jobs.port import JobEngine
from novitai.store.queries import deliveries, webhook_lines, webhooks

JOB: Final = "deliver_webhook"
_WEBHOOK_EVENTS: Final = frozenset(WEBHOOK_EVENTS)


class Outbox:
    """Writes a message to each receiver of an event."""

    def __init__(self, clock: Clock, ids: Ids, jobs: JobEngine) -> None:
        self._clock = clock
        self._ids = ids
        self._jobs = jobs

    def emit(
        self, connection: Connection, instance: Instance, event_id: str, event_type: EventType
    ) -> None:
        """Write a message to each receiver of this event type, after the event was written.

        The caller holds the instance's row lock, which also fixes the order of the messages.
        """
        if event_type not in _WEBHOOK_EVENTS:
            return
        own = None if instance.webhook_url is None else id_of_url(instance.webhook_url)
        receivers = webhooks.listening(connection, own)
        if own is not None and instance.webhook_url is not None:
            known = next((one for one in receivers if one.id == own), None)
            if known is None:
                receivers.append(self._introduce(connection, own, instance.webhook_url))
                receivers.sort(key=lambda receiver: receiver.id)
            elif not known.enabled:
                if event_type is not EventType.CREATED:
                    receivers.remove(known)
                else:
                    # A client that creates an instance with this URL says that it works again.
                    webhooks.switch_on(connection, own, now=self._clock.now())
        for receiver in receivers:
            if receiver.wants(event_type):
                self.put(connection, receiver, instance.id, event_id)

    def emit_account(self, connection: Connection, event_id: str, event_type: EventType) -> None:
        """Write a message to each standing receiver of this account event type.

        Each receiver has a separate line for such messages.
        """
        if event_type not in _WEBHOOK_EVENTS:
            return
        for receiver in webhooks.listening(connection, None):
            if receiver.wants(event_type):
                self.put(connection, receiver, None, event_id)

    def put(
        self, connection: Connection, receiver: Webhook, instance_id: str | None, event_id: str
    ) -> None:
        """Write the message of an event to one receiver, due now."""
        now = self._clock.now()
        line_id = webhook_lines.open_line(
            connection,
            fresh_id=self._ids.prefixed("line"),
            instance_id=instance_id,
            webhook_id=receiver.id,
            host=host_of(receiver.url),
            now=now,
        )
        deliveries.insert(
            connection,
            delivery_id=self._ids.prefixed("msg"),
            line_id=line_id,
            webhook_id=receiver.id,
            instance_id=instance_id,
            event_id=event_id,
            now=now,
        )
        self._jobs.nudge(connection, JOB, line_id)

    def _introduce(self, connection: Connection, receiver_id: str, url: str) -> Webhook:
        now = self._clock.now()
        receiver = Webhook(
            id=receiver_id,
            standing=False,
            url=url,
            event_types=(),
            enabled=True,
            created_at=now,
            updated_at=now,
        )
        webhooks.insert(connection, receiver, None)
        return receiver
