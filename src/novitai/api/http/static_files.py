# SPDX-License-Identifier: Apache-2.0
"""Files that were built in advance: read once, and sent compressed to those who accept it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from mimetypes import MimeTypes
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from novitai.api.http.accept import JSON, accepts_gzip
from novitai.api.http.answers import ReadyResponse

Headers = Iterable[tuple[bytes, bytes]]

FRESH: Final = (b"cache-control", b"no-store")
KEPT: Final = (b"cache-control", b"public, max-age=31536000, immutable")
"""For a file whose name changes with its content."""
_TYPES: Final = MimeTypes(filenames=())
_TYPES.add_type("font/woff2", ".woff2")
_TYPES.add_type("text/javascript", ".js")
_UNKNOWN_TYPE: Final = "application/octet-stream"
_TEXTS: Final = ("text/", "image/svg+xml", JSON)
_SMALL: Final = 1024
"""Bytes; compressing less saves no packet."""


class StaticFile:
    """A file in memory.

    Args:
        path: Where it is; its suffix decides the media type.
        headers: Headers of its responses, with names in lower case.
    """

    def __init__(self, path: Path, headers: Headers) -> None:
        media_type = _TYPES.guess_type(path.name)[0] or _UNKNOWN_TYPE
        self._is_text = media_type.startswith(_TEXTS)
        if self._is_text:
            media_type += "; charset=utf-8"
        self._content = path.read_bytes()
        self._compressed: bytes | None = None
        self._headers = (
            (b"content-type", media_type.encode()),
            *((b"vary", b"Accept-Encoding") for _ in range(self._is_text)),
            *headers,
        )

    async def response(self, request: Request) -> Response:
        """Return it as a response; the first compressed one compresses it in a thread."""
        if self._is_text and len(self._content) > _SMALL and accepts_gzip(request.headers):
            if self._compressed is None:
                self._compressed = await asyncio.to_thread(gzip.compress, self._content, mtime=0)
            return self._response(self._compressed, ((b"content-encoding", b"gzip"),))
        return self._response(self._content, ())

    def _response(self, body: bytes, more: Headers) -> Response:
        length = (b"content-length", b"%d" % len(body))
        response = ReadyResponse(b"", headers=(*self._headers, *more, length))
        response.body = body
        return response
