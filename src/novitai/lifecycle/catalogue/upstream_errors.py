# SPDX-License-Identifier: Apache-2.0
"""Convert errors of Novita's API to the errors a client gets."""

from __future__ import annotations

import math

from novitai.errors import CircuitBreakerOpen, UpstreamTimeout, UpstreamUnavailable
from novitai.upstream import errors as upstream


def to_api_error(error: upstream.UpstreamError) -> UpstreamUnavailable:
    """Convert an upstream error to 502, 503 or 504.

    If Novita refuses our key, the server is misconfigured: the client gets 502, never 401.
    """
    if isinstance(error, upstream.BreakerOpen):
        return CircuitBreakerOpen(
            "Novita keeps failing, so it is not called for a while",
            retry_after=max(1, math.ceil(error.retry_after)),
        )
    if isinstance(error, upstream.Timeout):
        return UpstreamTimeout("Novita did not answer in time")
    if isinstance(error, upstream.KeyRefused):
        # Every retry fails until the operator changes the setting.
        return UpstreamUnavailable(
            "Novita does not accept the key that this server uses", retryable=False
        )
    if isinstance(error, upstream.RateLimited):
        return UpstreamUnavailable(
            "Novita asks for fewer calls", retry_after=max(1, math.ceil(error.retry_after or 1))
        )
    return UpstreamUnavailable(f"Novita answered with an error: {error}")
