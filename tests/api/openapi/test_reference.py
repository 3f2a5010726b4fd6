# SPDX-License-Identifier: Apache-2.0
"""Send each request of the API reference as it is written there.

The host, the key and the instance ID are replaced by real ones. The responses must have the
documented status and every documented field, with the same types and units.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.live import ADMIN_KEY, LiveServer, live

REFERENCE: Final = Path(__file__).parents[3] / "docs/reference/api-reference.md"
EXAMPLE_ID: Final = "inst_1697843200_abc123"
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_LITERAL: Final = frozenset({"$.status", "$.message", "$.code"})
"""Fields whose text is the same in every response."""


@dataclass(frozen=True)
class Example:
    """A request in the API reference and the response that follows it."""

    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    answer: Any

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def examples() -> list[Example]:
    """Read every curl command and the JSON block that follows it."""
    blocks = _BLOCK.findall(REFERENCE.read_text())
    found = []
    for (language, text), (_, answer) in itertools.pairwise(blocks):
        if language == "bash":
            found.append(_read(text, json.loads(answer)))
    return found


def _read(text: str, answer: Any) -> Example:
    words = shlex.split(text.replace("\\\n", " "))
    assert words[0] == "curl"
    method, body, headers, path = "GET", None, {}, ""
    rest = iter(words[1:])
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(rest)
        else:
            path = word.removeprefix("https://api.novitai.com")
    return Example(method, path, headers, body, answer)


def documented(title: str) -> Any:
    """Read the first JSON block under a heading."""
    _, _, rest = REFERENCE.read_text().partition(f"### {title}\n")
    match = re.search(r"^```json\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return json.loads(match[1])


@pytest.fixture(scope="module")
def server(
    _sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """Start a server."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "novitai.db").write_bytes(_sqlite_template.read_bytes())
    with live(f"sqlite:///{folder}/novitai.db", folder, speed=240) as running:
        yield running


@pytest.fixture(scope="module")
def instance_id(server: LiveServer) -> str:
    """Create an instance with the API reference's request; return its ID when it is running."""
    made = send(server, examples()[0], "")
    assert made.status_code == 201, made.text
    found: str = made.json()["instanceId"]
    assert made.headers["Location"] == f"/api/instances/{found}"
    deadline = time.monotonic() + 60
    while server.http.get(f"/api/instances/{found}").json()["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def send(
    server: LiveServer, example: Example, instance_id: str, prefix: str = ""
) -> httpx2.Response:
    """Send a request of the API reference."""
    headers = {
        name: value.replace("YOUR_API_KEY", ADMIN_KEY) for name, value in example.headers.items()
    }
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        return client.request(
            example.method,
            prefix + example.path.replace(EXAMPLE_ID, instance_id),
            headers=headers,
            content=example.body,
        )


def same_kind(expected: Any, actual: Any, at: str = "$") -> None:
    """Assert that `actual` has all fields of `expected`, with the same types."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), at
        for name, value in expected.items():
            assert name in actual, f"{at}.{name} is missing"
            same_kind(value, actual[name], f"{at}.{name}")
            if f"{at}.{name}" in _LITERAL and EXAMPLE_ID not in value:
                assert actual[name] == value, f"{at}.{name}"
    elif isinstance(expected, list):
        assert isinstance(actual, list), at
        for one in actual if expected else ():
            same_kind(expected[0], one, f"{at}[]")
    elif isinstance(expected, int | float) and not isinstance(expected, bool):
        assert isinstance(actual, int | float), at
        assert not isinstance(actual, bool), at
    else:
        assert type(actual) is type(expected), at
        if isinstance(expected, str) and _TIME.fullmatch(expected):
            assert _TIME.fullmatch(actual), f"{at} is not an ISO-8601 time: {actual}"


def test_the_reference_is_read_whole() -> None:
    """Every curl command is parsed as a request with a response."""
    assert [example.name for example in examples()] == [
        "POST /api/instances",
        f"GET /api/instances/{EXAMPLE_ID}",
        "GET /api/instances",
        "GET /health",
        "GET /metrics",
        "POST /api/cache/clear",
        f"DELETE /api/cache/instance-details/{EXAMPLE_ID}",
    ]
    assert REFERENCE.read_text().count("curl ") == len(examples())


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_every_example_is_answered_as_documented(
    server: LiveServer, instance_id: str, example: Example, prefix: str
) -> None:
    """The response has the same status, fields and types, with and without `/v1`."""
    if example.method == "DELETE":
        server.http.get(f"/api/instances/{instance_id}")
    answer = send(server, example, instance_id, prefix)
    assert answer.status_code == (201 if example.name == "POST /api/instances" else 200), (
        answer.text
    )
    shown = answer.json()
    if "instances" in shown:
        # Instances that are not running yet lack some fields.
        shown["instances"] = [one for one in shown["instances"] if one["status"] == "running"]
        assert shown["instances"]
    same_kind(example.answer, shown)
    if example.method == "DELETE":
        message = example.answer["message"].replace(EXAMPLE_ID, instance_id)
        assert answer.json()["message"] == message


def test_the_instance_is_what_was_asked_for(server: LiveServer, instance_id: str) -> None:
    """The response contains the values of the API reference's request."""
    shown = server.http.get(f"/api/instances/{instance_id}").json()
    asked = json.loads(str(examples()[0].body))
    assert {name: shown[name] for name in asked} == asked
    assert shown["connectionDetails"]["ssh"].startswith("ssh://root@")
    assert shown["connectionDetails"]["jupyter"].startswith("http")
    assert {type(mapping["port"]) for mapping in shown["portMappings"]} == {int}


def test_the_error_of_the_reference_is_told_word_for_word(server: LiveServer) -> None:
    """Two invalid fields give the same code, message, order, wording and values."""
    expected = documented("Example Error Response")["error"]
    body = {**json.loads(str(examples()[0].body)), "name": "", "gpuNum": 0}
    answer = server.http.post("/api/instances", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.pop("details") == expected.pop("details")
    same_kind(expected, error)
    assert re.fullmatch(r"req_\d+_[a-z0-9]+", error["requestId"])


def test_units_are_those_of_the_examples(server: LiveServer) -> None:
    """`/health` has percent and megabytes, `/metrics` fractions and bytes; times are in ms."""
    server.http.get("/health")  # a request is counted after its response
    health = server.http.get("/health").json()
    metrics = server.http.get("/metrics").json()["data"]
    rss = health["system"]["memory"]["rss"]
    assert 10 < rss < 4096
    assert metrics["system"]["memory"]["rss"] == pytest.approx(rss * 1024 * 1024, rel=0.2)
    assert 0 <= metrics["system"]["cpu"]["usage"] <= 1
    assert 0 <= metrics["cache"]["hitRatio"] <= 1
    total = metrics["requests"]["total"]
    assert total["minDuration"] <= total["averageDuration"] <= total["maxDuration"]
    assert 0.05 < total["averageDuration"] < 10_000
    assert 0 <= metrics["system"]["uptime"] < 3600
    assert health["performance"]["requestsPerMinute"] >= 1


def test_every_error_code_of_the_table_exists() -> None:
    """The table's codes and statuses are those of the error classes."""
    from novitai import errors

    text = REFERENCE.read_text()
    rows = re.findall(r"^\| (\d{3}) \| ([A-Z_]+) \|", text, re.MULTILINE)
    assert len(rows) == 15
    ours = {
        (str(kind.status), kind.code)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ApiError)
    }
    by_field = {("400", code) for _, code in rows if code.startswith("INVALID_")}
    assert set(rows) <= ours | by_field | {("404", "INSTANCE_NOT_FOUND")}
