# SPDX-License-Identifier: Apache-2.0
"""Path converters that keep reserved words from matching as instance IDs.

`DELETE /api/instances/stop-all` is the wrong method on a known path, not an unknown instance.
"""

from __future__ import annotations

from typing import Final

from starlette.convertors import Convertor, register_url_convertor

RESERVED: Final = (
    "adopt",
    "delete",
    "restart",
    "start",
    "stop",
    "stop-all",
    "sync",
    "unmanaged",
)
"""Reserved words in the place of an instance ID: `/api/instances/<word>`."""

INSTANCE: Final = "/api/instances/{instanceId:instance}"
CACHE_KEY: Final = "/api/cache/{cacheName:id}/{key:cachekey}"
UNMANAGED: Final = "/api/instances/unmanaged/{upstreamId:id}"
OPERATION: Final = "/api/operations/{operationId:id}"


class _Id(Convertor[str]):
    # No ID contains NUL, and PostgreSQL rejects NUL in query parameters.
    regex = r"[^/\x00]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _InstanceId(_Id):
    regex = rf"(?!(?:{'|'.join(RESERVED)})(?:/|$)){_Id.regex}"


class _CacheKey(_Id):
    # Keys may contain slashes; `stats` is a separate route.
    regex = r"(?!stats$)[^\x00]+"


register_url_convertor("cachekey", _CacheKey())
register_url_convertor("id", _Id())
register_url_convertor("instance", _InstanceId())
