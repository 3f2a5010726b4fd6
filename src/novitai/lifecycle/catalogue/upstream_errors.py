# SPDX-License-Identifier: Apache-2.0
"""What a client is told when Novita did not give what its request needed."""

from __future__ import annotations

import math

from novitai.errors import CircuitBreakerOpen, UpstreamTimeout, UpstreamUnavailable
from novitai.upstream import errors as upstream


def to_api_error(error: upstream.UpstreamError) -> UpstreamUnavailable:
    """Turn an upstream error into 502, 503 or 504.

    A refusal of our key is our own misconfiguration, so it is 502, never the client's 401.
    """
    if isinstance(error, upstream.BreakerOpen):
        return CircuitBreakerOpen(
            "Novita keeps failing, so it is not called for a while",
            retry_after=max(1, math.ceil(error.retry_after)),
        )
    if isinstance(error, upstream.Timeout):
        return UpstreamTimeout("Novita did not answer in time")
    if isinstance(error, upstream.KeyRefused):
        # Every try fails until somebody changes the setting.
        return UpstreamUnavailable(
            "Novita does not accept the key that this server uses", retryable=False
        )
    if isinstance(error, upstream.RateLimited):
        return UpstreamUnavailable(
            "Novita asks for fewer calls", retry_after=max(1, math.ceil(error.retry_after or 1))
        )
    return UpstreamUnavailable(f"Novita answered with an error: {error}")


to_client = to_api_error  # the name that api/ and lifecycle/commands use
