# SPDX-License-Identifier: Apache-2.0
"""The Python client of novitai: rent GPU instances, run, release.

`Novitai` blocks, `AsyncNovitai` is for asyncio; both have the same methods.
"""

from __future__ import annotations

from novitai_client import errors, models, requests, words
from novitai_client.client import AsyncNovitai, Novitai
from novitai_client.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    DeleteFailed,
    NovitaiError,
    StatusOutOfReach,
    UnexpectedResponse,
    WaitTimedOut,
    WebhookRefused,
)
from novitai_client.models.history import Event, Gap
from novitai_client.models.instances import Instance
from novitai_client.webhook import WebhookMessage, verify_webhook

__all__ = [
    "ApiError",
    "AsyncNovitai",
    "ConfigurationError",
    "ConnectionFailed",
    "DeleteFailed",
    "Event",
    "Gap",
    "Instance",
    "Novitai",
    "NovitaiError",
    "StatusOutOfReach",
    "UnexpectedResponse",
    "WaitTimedOut",
    "WebhookMessage",
    "WebhookRefused",
    "errors",
    "models",
    "requests",
    "verify_webhook",
    "words",
]
