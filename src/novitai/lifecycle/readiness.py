# SPDX-License-Identifier: Apache-2.0
"""Readiness: whether what an instance was asked to serve is really served."""

from __future__ import annotations

import asyncio
import contextlib
from ssl import SSLContext
from typing import Final

import httpx2

from novitai.domain.instance import Instance, LaunchSpec, Port, PortMapping, PortType

PROBE_SECONDS: Final = 3.0
_NOT_ALIVE: Final = frozenset({502, 503, 504})
"""What Novita's gateway answers while the service inside is not up (docs/upstream.md §5)."""


class Prober:
    """Asks the published ports of instances whether somebody is there."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport | None = None,
        *,
        tls: SSLContext | None = None,
    ) -> None:
        self._client = httpx2.AsyncClient(
            verify=tls or True,
            timeout=PROBE_SECONDS,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
            limits=httpx2.Limits(max_connections=50, max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def not_ready(self, instance: Instance, spec: LaunchSpec) -> tuple[Port, ...]:
        """List the ports that were asked for and do not answer yet; empty means ready.

        A port that is not mapped yet is not ready. Where no port was asked for, nothing has to
        answer.
        """
        published = {mapping.port: mapping for mapping in instance.observed.port_mappings}
        ports = spec.watched_ports()
        answers = await asyncio.gather(*(self._answers(published.get(p.port)) for p in ports))
        return tuple(port for port, alive in zip(ports, answers, strict=True) if not alive)

    async def _answers(self, mapping: PortMapping | None) -> bool:
        if mapping is None or not mapping.endpoint:
            return False
        if mapping.type == PortType.HTTP.value or "://" in mapping.endpoint:
            return await self._answers_http(mapping.endpoint)
        return await self._answers_tcp(mapping.endpoint)

    async def _answers_http(self, endpoint: str) -> bool:
        url = endpoint if "://" in endpoint else f"https://{endpoint}"
        try:
            async with self._client.stream("GET", url) as response:
                return response.status_code not in _NOT_ALIVE
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError):
            return False

    @staticmethod
    async def _answers_tcp(endpoint: str) -> bool:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            return False
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, ValueError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True
