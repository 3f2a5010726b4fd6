# SPDX-License-Identifier: Apache-2.0
"""What a segment of a path may be, so that a fixed word is never taken for an instance's id.

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
"""What stands where an id could: `/api/instances/<word>`."""

INSTANCE: Final = "/api/instances/{instanceId:instance}"
CACHE_KEY: Final = "/api/cache/{cacheName:id}/{key:cachekey}"
UNMANAGED: Final = "/api/instances/unmanaged/{upstreamId:id}"
OPERATION: Final = "/api/operations/{operationId:id}"


class _Id(Convertor[str]):
    # NUL is in no id, and PostgreSQL does not even let it be asked for.
    regex = r"[^/\x00]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _InstanceId(_Id):
    regex = rf"(?!(?:{'|'.join(RESERVED)})(?:/|$)){_Id.regex}"


class _CacheKey(_Id):
    # Keys may have slashes in them; `stats` is a route of its own.
    regex = r"(?!stats$)[^\x00]+"


register_url_convertor("cachekey", _CacheKey())
register_url_convertor("id", _Id())
register_url_convertor("instance", _InstanceId())
