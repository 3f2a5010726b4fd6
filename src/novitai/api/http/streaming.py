# SPDX-License-Identifier: Apache-2.0
"""Responses that are sent in parts, as long as the client stays connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import Response


class StreamingAnswer(Response):
    """A response without an end of its own.

    Args:
        parts: The parts of the body.
        media_type: The media type of the body.
        headers: Further headers.
        ended: Ends the response when it is set, even while the client does not read.
        close: Called once the response has ended.
    """

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        media_type: str,
        headers: Mapping[str, str],
        *,
        ended: asyncio.Event,
        close: Callable[[], None],
    ) -> None:
        self.parts = parts
        self.ended = ended
        self.close = close
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({**headers, "Content-Type": media_type})
        del self.headers["content-length"]
