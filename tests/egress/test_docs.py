# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/reference/webhooks.md work as the page describes."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from novitai.domain.webhook import FAILURES_APART, PAUSES, WEBHOOK_EVENTS
from novitai.egress.sending import DEADLINE
from novitai.egress.signing import headers
from novitai.ids import Ids
from novitai.lifecycle.webhooks.installation_secret import fresh_secret
from novitai.lifecycle.webhooks.metrics import DeliveryOutcome
from tests.services import unavailable

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "webhooks.md"
SECRET = fresh_secret(Ids())
BODY = '{"type":"instance.running","data":{"name":"Zürich ✓"}}'.encode()

PYTHON_MAIN = """
import base64, json, sys
cases = json.load(sys.stdin)
print(json.dumps([receive(headers, base64.b64decode(body)) for headers, body in cases]))
"""
NODE_MAIN = """
const cases = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const judge = ([headers, body]) => receive(headers, Buffer.from(body, "base64"));
console.log(JSON.stringify(cases.map(judge)));
"""
Case = tuple[Mapping[str, str], bytes]


def example(language: str) -> str:
    """Read the example in a language from the page."""
    match = re.search(
        rf"<!-- run: {language} -->\n```\w+\n(.*?)```", PAGE.read_text(), flags=re.DOTALL
    )
    assert match is not None
    return match[1]


def receive(language: str, *cases: Case) -> list[object]:
    """Run the example on messages in a subprocess."""
    if language == "python":
        command = [sys.executable, "-c", example(language) + PYTHON_MAIN]
    else:
        node = shutil.which("node")
        if node is None:
            unavailable("there is no Node here")
        command = [node, "-e", example(language) + NODE_MAIN]
    done = subprocess.run(
        command,
        input=json.dumps([[given, base64.b64encode(body).decode()] for given, body in cases]),
        env={"WEBHOOK_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert isinstance(answers, list)
    return answers


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_reader_can_verify(language: str) -> None:
    """The example accepts signed messages, and refuses changed, old and wrongly signed ones."""
    now = int(time.time() * 1000)
    good = headers("msg_1", BODY, now, [SECRET])
    rotating = headers("msg_1", BODY, now, [fresh_secret(Ids()), SECRET])
    assert receive(language, (good, BODY), (rotating, BODY)) == [json.loads(BODY)] * 2
    refused: tuple[Case, ...] = (
        (good, BODY.replace(b"running", b"stopped")),
        (headers("msg_1", BODY, now - 301_000, [SECRET]), BODY),
        (headers("msg_1", BODY, now, [fresh_secret(Ids())]), BODY),
        ({**good, "webhook-id": "msg_2"}, BODY),
        ({}, BODY),
    )
    assert receive(language, *refused) == [None] * len(refused)


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_reader_refuses_what_a_stranger_makes_up(language: str) -> None:
    """The example refuses any forged headers and bytes without an exception."""
    good = headers("msg_1", BODY, int(time.time() * 1000), [SECRET])
    signatures = (
        "x",
        "v1",
        "v1,",
        "v1,a",
        "v1,a,b",
        "v1,\u00e9",
        ",",
        " ",
        "v1,a v1,b",
        "v1a,AAAA",
    )
    times = ("soon", "inf", "-inf", "nan", "1e400", "0x1", "9" * 400, " ", "-1")
    refused: tuple[Case, ...] = (
        *(({**good, "webhook-signature": signature}, BODY) for signature in signatures),
        *(({**good, "webhook-timestamp": moment}, BODY) for moment in times),
        *((good, body) for body in (b"", b"\xff\xfe", BODY + b"\xff", b"{", b"\x00")),
    )
    assert receive(language, *refused) == [None] * len(refused)


def test_the_page_names_what_there_is() -> None:
    """The event types, outcomes and retry table are those of the code."""
    page = " ".join(PAGE.read_text().split())
    for event_type in WEBHOOK_EVENTS:
        assert f"`{event_type.value}`" in page
    for outcome in DeliveryOutcome:
        assert f"`{outcome.value}`" in page
    assert "5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h" in page
    assert f"within {DEADLINE:g} seconds" in page
    assert f"does not take the connection within {DEADLINE / 3:g} seconds" in page
    assert f"Failures more than {FAILURES_APART / 3_600_000:g} hours apart" in page
    assert list(PAUSES) == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
