# SPDX-License-Identifier: Apache-2.0
"""`/api/webhooks`: standing webhooks, their secrets, test messages and replay."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from novitai.api.http.answers import answer, reply
from novitai.api.routes.deliveries import NO_WEBHOOK, SWITCHED_OFF, show_try
from novitai.api.routing.common_errors import BAD_QUERY
from novitai.api.routing.lists import listed
from novitai.api.routing.queries import PageQuery
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.webhooks import (
    ChangeWebhookRequest,
    CreateWebhookRequest,
    ListWebhooksResponse,
    ReplayRequest,
    ReplayResponse,
    RevealedWebhook,
    WebhookEventType,
    WebhookTestResponse,
    WebhookView,
)
from novitai.api.schemas.wire import NoFields
from novitai.domain.api_key import Scope
from novitai.domain.webhook import Webhook
from novitai.domain.webhook_url import PRIVATE_WEBHOOK, PRIVATE_WEBHOOKS_HINT
from novitai.errors import Conflict, FieldError, ValidationFailed
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.webhooks.endpoints import Revealed, Tested, Webhooks, too_many_webhooks
from novitai.urls import masked_login

_PATH: Final = "/api/webhooks/{webhookId:id}"
_BAD_URL: Final = ValidationFailed(
    "Validation failed",
    code="INVALID_WEBHOOK_URL",
    details=[
        FieldError(
            "url",
            f"{PRIVATE_WEBHOOK}{PRIVATE_WEBHOOKS_HINT}",
            has_value=False,
        )
    ],
)
_BAD_SINCE: Final = ValidationFailed(
    "Validation failed",
    details=[FieldError("since", "Since must be in the past", "2999-01-01T00:00:00Z")],
)
_SHOWN_ALREADY: Final = Conflict(
    "This request was already answered; the secret in that answer is not shown again",
    code="IDEMPOTENCY_NOT_REPLAYABLE",
    details={"id": "whk_1"},
)


class WebhookRoutes:
    """Handlers of the webhook routes."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [*self._keeping(), *self._acting()]

    def _keeping(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/webhooks",
                id="createWebhook",
                handler=self.create,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Create a standing webhook",
                answers={201: RevealedWebhook},
                sends={"Location": "The path of the webhook"},
                errors=[_BAD_URL, too_many_webhooks(), _SHOWN_ALREADY],
            ),
            Route(
                method="GET",
                path="/api/webhooks",
                id="listWebhooks",
                handler=self.page,
                scope=Scope.READ,
                tag="Webhooks",
                summary="List standing webhooks",
                answers={200: ListWebhooksResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path=_PATH,
                id="getWebhook",
                handler=self.one,
                scope=Scope.READ,
                tag="Webhooks",
                summary="Read a webhook",
                answers={200: WebhookView},
                errors=[NO_WEBHOOK],
            ),
            Route(
                method="PATCH",
                path=_PATH,
                id="updateWebhook",
                handler=self.change,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Change a webhook",
                answers={200: WebhookView},
                errors=[_BAD_URL, NO_WEBHOOK],
            ),
            Route(
                method="DELETE",
                path=_PATH,
                id="deleteWebhook",
                handler=self.delete,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Delete a webhook",
                answers={200: WebhookView},
                errors=[NO_WEBHOOK],
            ),
        ]

    def _acting(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path=f"{_PATH}/rotate",
                id="rotateWebhookSecret",
                handler=self.rotate,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Rotate a webhook's secret",
                answers={200: RevealedWebhook},
                errors=[NO_WEBHOOK, _SHOWN_ALREADY],
            ),
            Route(
                method="POST",
                path=f"{_PATH}/test",
                id="testWebhook",
                handler=self.test,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Send a test message",
                answers={200: WebhookTestResponse},
                errors=[NO_WEBHOOK],
            ),
            Route(
                method="POST",
                path=f"{_PATH}/replay",
                id="replayEvents",
                handler=self.replay,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Replay events to a webhook",
                answers={202: ReplayResponse},
                errors=[_BAD_SINCE, NO_WEBHOOK, SWITCHED_OFF],
            ),
        ]

    async def create(self, call: RouteCall, body: CreateWebhookRequest) -> Response:
        """Create a webhook that gets the events of every instance.

        Its secret is shown only in this response.
        """
        return await call.run_once(self._webhooks.create(body.wanted()), _created)

    async def page(self, call: RouteCall, query: PageQuery) -> Response:
        """List standing webhooks, newest first."""
        page = await self._webhooks.page(limit=query.most, cursor=query.cursor)
        shown = [_show(one) for one in page.webhooks]
        return listed(call, ListWebhooksResponse(webhooks=shown, next_cursor=page.next_cursor))

    async def one(self, call: RouteCall) -> Response:
        """Read a standing webhook."""
        return answer(_show(await self._webhooks.get(call.named("webhookId"))))

    async def change(self, call: RouteCall, body: ChangeWebhookRequest) -> Response:
        """Change the fields that are sent.

        Disabling a webhook gives up its pending messages; `replay` sends them again. After a change
        of URL, pending messages are sent to the new URL at once.
        """
        change = self._webhooks.change(call.named("webhookId"), body.wanted())
        return answer(_show((await call.apply(change)).after))

    async def delete(self, call: RouteCall, body: NoFields) -> Response:
        """Delete a webhook. Its pending messages are given up; its deliveries are kept."""
        command = self._webhooks.delete(call.named("webhookId"))
        return await call.run_once(command, lambda webhook: reply(_show(webhook)))

    async def rotate(self, call: RouteCall, body: NoFields) -> Response:
        """Rotate a webhook's secret; the old secret also signs for 24 h.

        The new secret is shown only in this response.
        """
        return await call.run_once(self._webhooks.rotate(call.named("webhookId")), _rotated)

    async def test(self, call: RouteCall, body: NoFields) -> Response:
        """Send one message of type `webhook.test` now and return the result."""
        return await call.run_once(self._webhooks.test(call.named("webhookId")), _tested)

    async def replay(self, call: RouteCall, body: ReplayRequest) -> Response:
        """Send a webhook, in order, all events since a time that match its `eventTypes`.

        Messages that were sent before keep their IDs. Events that the webhook missed, because it
        was disabled or did not exist yet, are sent too.
        """
        webhook_id = call.named("webhookId")

        def replayed(count: int) -> Reply:
            return reply(ReplayResponse(webhook_id=webhook_id, messages=count), 202)

        return await call.run_once(self._webhooks.replay(webhook_id, body.since), replayed)


def _created(made: Revealed) -> Reply:
    return _reveal(made, 201, {"Location": f"/api/webhooks/{made.webhook.id}"})


def _rotated(made: Revealed) -> Reply:
    return _reveal(made, 200, {})


def _reveal(made: Revealed, status: int, headers: dict[str, str]) -> Reply:
    shown = RevealedWebhook(**dict(_show(made.webhook)), secret=made.secret)
    headers = {**headers, "Cache-Control": "no-store"}
    return reply(shown, status, headers, secret_of=made.webhook.id)


def _tested(tested: Tested) -> Reply:
    return reply(
        WebhookTestResponse(
            message_id=tested.message_id,
            delivered=tested.delivered,
            attempt=show_try(tested.attempt),
        )
    )


def _show(webhook: Webhook) -> WebhookView:
    return WebhookView(
        id=webhook.id,
        url=masked_login(webhook.url),
        event_types=[WebhookEventType(one) for one in webhook.event_types],
        enabled=webhook.enabled,
        description=webhook.description,
        created_at=webhook.created_at,
        updated_at=webhook.updated_at,
        failing_since=webhook.failing_since,
        disabled_at=webhook.off_at,
        disabled_reason=webhook.off_reason,
        previous_secret_valid_until=webhook.previous_secret_until,
    )
