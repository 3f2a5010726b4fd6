# SPDX-License-Identifier: Apache-2.0
"""Wait for data from Novita within the time limit of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from novitai.api.routing.router import RouteCall
from novitai.errors import CircuitBreakerOpen, UpstreamTimeout, UpstreamUnavailable
from novitai.lifecycle.catalogue.upstream_errors import to_api_error
from novitai.upstream.errors import UpstreamError

T = TypeVar("T")

_FOR_THE_ANSWER: Final = 2.0
"""Seconds of a request's time limit that are reserved for the response."""
AWAY: Final = (
    UpstreamUnavailable("Novita answered with an error"),
    CircuitBreakerOpen("Novita keeps failing", retry_after=30),
    UpstreamTimeout("Novita did not answer in time"),
)
"""The errors of a route that needs Novita."""


async def from_novita(call: RouteCall, asked: Awaitable[T]) -> T:
    """Await data from Novita within the time limit of the request.

    Raises:
        ApiError: Novita did not answer in time or failed, and nothing is cached.
    """
    try:
        async with asyncio.timeout(max(0.0, call.seconds_left - _FOR_THE_ANSWER)):
            return await asked
    except TimeoutError:
        raise UpstreamTimeout("Novita did not answer in time") from None
    except UpstreamError as error:
        raise to_api_error(error) from error
