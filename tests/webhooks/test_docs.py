# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/webhooks.md do what the page says of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from novitai.domain.webhook import PAUSES, TOLD
from novitai.ids import Ids
from novitai.lifecycle.delivery_metrics import Outcome
from novitai.lifecycle.webhook_secret import fresh_secret
from novitai.webhooks.signing import headers
from tests.conftest import unavailable

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
SECRET = fresh_secret(Ids())
BODY = '{"type":"instance.running","data":{"name":"Zürich ✓"}}'.encode()

PYTHON_MAIN = """
import json, sys
headers, body = json.load(sys.stdin)
print(json.dumps(receive(headers, body.encode())))
"""
NODE_MAIN = """
const [headers, body] = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(receive(headers, Buffer.from(body))));
"""


def example(language: str) -> str:
    """Take the example of a language from the page."""
    match = re.search(
        rf"<!-- run: {language} -->\n```\w+\n(.*?)```", PAGE.read_text(), flags=re.DOTALL
    )
    assert match is not None
    return match[1]


def receive(language: str, given: Mapping[str, str], body: bytes) -> object:
    """Have the example judge a message in a process of its own."""
    if language == "python":
        command = [sys.executable, "-c", example(language) + PYTHON_MAIN]
    else:
        node = shutil.which("node")
        if node is None:
            unavailable("there is no Node here")
        command = [node, "-e", example(language) + NODE_MAIN]
    done = subprocess.run(
        command,
        input=json.dumps([given, body.decode()]),
        env={"WEBHOOK_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_reader_can_verify(language: str) -> None:
    """What is signed by us is accepted; a changed byte, an old time, another secret are not."""
    now = int(time.time() * 1000)
    good = headers("msg_1", BODY, now, [SECRET])
    assert receive(language, good, BODY) == json.loads(BODY)
    rotating = headers("msg_1", BODY, now, [fresh_secret(Ids()), SECRET])
    assert receive(language, rotating, BODY) == json.loads(BODY)
    refused: tuple[tuple[Mapping[str, str], bytes], ...] = (
        (good, BODY.replace(b"running", b"stopped")),
        (headers("msg_1", BODY, now - 301_000, [SECRET]), BODY),
        (headers("msg_1", BODY, now, [fresh_secret(Ids())]), BODY),
        ({**good, "webhook-id": "msg_2"}, BODY),
        ({**good, "webhook-timestamp": "soon"}, BODY),
        ({}, BODY),
    )
    for given, body in refused:
        assert receive(language, given, body) is None


def test_the_page_names_what_there_is() -> None:
    """Types, outcomes and the retry table are those of the code."""
    page = " ".join(PAGE.read_text().split())
    for event_type in TOLD:
        assert f"`{event_type.value}`" in page
    for outcome in Outcome:
        assert f"`{outcome.value}`" in page
    assert "5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h" in page
    assert list(PAUSES) == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
