# SPDX-License-Identifier: Apache-2.0
"""Writes the OpenAPI document into a file, without a server: `python -m tools.openapi FILE`.

`make ui` generates the types of the dashboard from it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import httpx2
from pydantic import SecretStr

from novitai.api.app import create_api
from novitai.app import Application
from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.settings import Settings


async def document() -> bytes:
    """Build the application on an empty store, and return the document that it sends."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_construct(
            **{
                **{
                    name: info.get_default(call_default_factory=True)
                    for name, info in Settings.model_fields.items()
                },
                "novita_api_key": SecretStr("sk_unused"),
                "data_dir": Path(folder),
                "database_url": SecretStr(f"sqlite:///{folder}/empty.db"),
                "secret_key": SecretStr("a secret that nothing is encrypted with"),
            }
        )
        application = await Application.open(settings, SystemClock(), Ids())
        try:
            transport = httpx2.ASGITransport(app=create_api(application.services()))
            async with httpx2.AsyncClient(transport=transport, base_url="http://novitai") as http:
                answer = await http.get("/openapi.json")
                return answer.raise_for_status().content
        finally:
            await application.stop()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(asyncio.run(document()))
