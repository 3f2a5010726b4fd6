# SPDX-License-Identifier: Apache-2.0
"""docs/reference/emulator.md is complete, and its examples work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from novitai.emulator.api import PATHS
from novitai.emulator.control.app import ENDPOINTS
from novitai.emulator.control.endpoint import PREFIX
from tests.emulator.client import Client

PAGE = (Path(__file__).parents[2] / "docs/reference/emulator.md").read_text(encoding="utf-8")

SECTIONS = [
    (match[1], match[2], re.findall(r"```json\n(.*?)```", match[3], re.DOTALL))
    for match in re.finditer(
        rf"^### `([A-Z]+) {PREFIX}(\S*)`\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
]


def test_every_endpoint_has_its_section() -> None:
    """Endpoints and sections correspond one to one."""
    there = sorted((each.method, each.path) for each in ENDPOINTS)
    assert sorted((method, path) for method, path, _ in SECTIONS) == there


def test_every_path_of_the_api_is_named() -> None:
    """The table of emulated paths is complete."""
    for path in PATHS:
        whole, last = f"`{path}`" in PAGE, path.rsplit("/", 1)[-1]
        assert whole or path in PAGE or f"`{last}`" in PAGE, path


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (method, path, body)
        for method, path, examples in SECTIONS
        for body in (examples or ["null"])
    ],
)
async def test_the_examples_work(client: Client, method: str, path: str, body: str) -> None:
    """The emulator accepts each example, with a real ID in place of `{id}`."""
    if path.startswith("/products"):
        path = path.replace("{id}", "gpu-basic.8c32g")
    elif path.startswith("/faults"):
        fault = await client.fault(kind="list", totalDelta=1)
        path = path.replace("{id}", str(fault["id"]))
    else:
        path = path.replace("{id}", await client.running(billingMode="spot"))
    await client.control(method, path, json.loads(body))


async def test_every_field_of_the_control_side_is_explained(client: Client) -> None:
    """The page names every field that an endpoint accepts."""
    for each in ENDPOINTS:
        for name, field in each.takes.model_fields.items():
            if name != "root":
                assert (field.alias or name) in PAGE, (each.path, name)
    assert (await client.control("GET", "/settings")).keys() <= set(re.findall(r"\w+", PAGE))
