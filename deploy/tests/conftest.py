# SPDX-License-Identifier: Apache-2.0
"""The image and a server in it, for `make image`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from deploy.tests.image import Container, Image
from tests.blackbox.harness import ADMIN_KEY, UPSTREAM_KEY, until

_CONNECT: Final = "import socket; socket.create_connection(('127.0.0.1', 9090), 3)"


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Build the image."""
    built = Image()
    yield built
    built.close()


@pytest.fixture(scope="module")
def server(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Start the command of the image, with an emulator beside it in the same container."""
    container = Container(
        image,
        tmp_path_factory.mktemp("image") / "data",
        NOVITA_API_KEY=UPSTREAM_KEY,
        NOVITAI_ADMIN_API_KEY=ADMIN_KEY,
        NOVITAI_UPSTREAM_URL="http://127.0.0.1:9090",
        NOVITAI_SYNC_INTERVAL_SECONDS="0.2",
        NOVITAI_TRUSTED_PROXIES="10.88.0.1",
    )
    try:
        until(lambda: container.code is not None or container.health() == 0, 60, "it is healthy")
        emulator = container.start("novitai", "emulator", "--speed", "60")
        until(lambda: container.run("python3", "-c", _CONNECT).returncode == 0, 60, "it emulates")
        yield container
        emulator.kill()
        emulator.wait(10)
    finally:
        container.close()
