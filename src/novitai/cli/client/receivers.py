# SPDX-License-Identifier: Apache-2.0
"""`novitai webhooks list`, `create`, `delete`, `test`, `deliveries`: standing webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.client.failures import ExitCode
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.tables import ListColumn
from novitai.cli.client.wording import clean, local, second, word
from novitai.cli.output import say

if TYPE_CHECKING:
    from novitai_client.models.webhooks import Delivery, Webhook

app = typer.Typer()

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The ID of the webhook.")]


def _state(one: Webhook) -> str:
    if not one.enabled:
        return f"off ({one.disabled_reason})" if one.disabled_reason else "off"
    return "on" if one.failing_since is None else f"failing since {local(one.failing_since)}"


def _state_style(one: Webhook) -> str:
    return "" if one.enabled and one.failing_since is None else "red"


_WEBHOOKS: Final[Sequence[ListColumn[Webhook]]] = (
    ListColumn("id", lambda one: one.id, whole=True),
    ListColumn("url", lambda one: one.url),
    ListColumn("events", lambda one: ", ".join(one.event_types) or "all"),
    ListColumn("state", _state, style=_state_style),
    ListColumn("description", lambda one: one.description, extra=True),
    ListColumn("created", lambda one: local(one.created_at), extra=True),
)


def _outcome(one: Delivery) -> str:
    if not one.attempts:
        return "-"
    last = one.attempts[-1]
    return str(last.error or last.status_code)


def _status_style(one: Delivery) -> str:
    return {"delivered": "green", "dead": "red"}.get(one.status, "yellow")


_DELIVERIES: Final[Sequence[ListColumn[Delivery]]] = (
    ListColumn("at", lambda one: second(one.created_at), whole=True),
    ListColumn("type", lambda one: one.type),
    ListColumn("status", lambda one: one.status, style=_status_style, whole=True),
    ListColumn("attempts", lambda one: len(one.attempts), right=True),
    ListColumn("last", _outcome),
    ListColumn("url", lambda one: one.url),
    ListColumn("id", lambda one: one.id, extra=True, whole=True),
    ListColumn("instance", lambda one: one.instance_id, extra=True, whole=True),
    ListColumn("webhook", lambda one: one.webhook_id, extra=True, whole=True),
)


@command(app, "list", lists=True, schema="WebhookList", example="novitai webhooks list")
def list_webhooks(invocation: Invocation) -> None:
    """List standing webhooks: the address, the events, and whether it works."""
    rows = invocation.client.webhooks.list()
    invocation.show_list(_WEBHOOKS, rows, "webhooks", empty="there are no standing webhooks")


@command(
    app,
    "create",
    schema="RevealedWebhook",
    example="novitai webhooks create https://example.com/hook --event instance.failed",
)
def create_webhook(
    invocation: Invocation,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Gets the messages.")],
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="An event type; repeatable. By default, all."),
    ] = None,
    description: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A text for people.")
    ] = None,
) -> None:
    """Create a standing webhook, and print the secret that verifies its messages.

    The secret is shown only now.
    """
    made = invocation.client.webhooks.create(
        url=address,
        event_types=word(event),
        description=description,
    )
    if invocation.as_json:
        invocation.result(made, "")
        return
    invocation.name_server()
    invocation.note(f"created {made.id} for {made.url}; its secret is shown only once:")
    say(clean(made.secret))


@command(
    app, "delete", asks=True, schema="Webhook", example="novitai webhooks delete WEBHOOK --yes"
)
def delete_webhook(invocation: Invocation, webhook_id: WebhookId) -> None:
    """Delete a standing webhook. Messages that were not delivered yet are not sent."""
    invocation.confirm(f"Delete the webhook {clean(webhook_id)}?")
    deleted = invocation.client.webhooks.delete(webhook_id)
    invocation.name_server()
    invocation.result(deleted, f"deleted {deleted.id} ({deleted.url})")


@command(app, "test", schema="WebhookTest", example="novitai webhooks test WEBHOOK")
def test_webhook(invocation: Invocation, webhook_id: WebhookId) -> int:
    """Send a test message now, once. Exit code 1 if it was not delivered."""
    sent = invocation.client.webhooks.test(webhook_id)
    attempt = sent.attempt
    outcome = "delivered" if sent.delivered else "not delivered"
    why = attempt.error or attempt.status_code
    invocation.name_server()
    invocation.result(
        sent,
        f"{outcome}: {why}, {attempt.duration_ms} ms",
    )
    return ExitCode.DONE if sent.delivered else ExitCode.FAILED


@command(
    app,
    "deliveries",
    lists=True,
    schema="DeliveryList",
    example="novitai webhooks deliveries --status dead",
)
def deliveries(
    invocation: Invocation,
    webhook_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only those of this webhook.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(metavar="pending|delivered|dead", help="Only deliveries in this state."),
    ] = None,
) -> None:
    """List the messages to webhooks, newest first, and what became of them."""
    client = invocation.client
    if webhook_id is None:
        rows = client.deliveries.list(status=word(status))
    else:
        rows = client.webhooks.deliveries(webhook_id, status=word(status))
    invocation.show_list(_DELIVERIES, rows, "deliveries", empty="there are no such deliveries")
