# SPDX-License-Identifier: Apache-2.0
"""Log lines: their format, and the masking of secrets."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from collections.abc import Iterator
from typing import cast

import orjson
import pytest
import structlog

from novitai.telemetry import logs

SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("uvicorn.access", "httpx", "httpx2")}
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def stream() -> io.StringIO:
    """The log as in production, in memory."""
    written = io.StringIO()
    logs.set_up(production=True, secrets=[SECRET, ""], stream=written)
    return written


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Parse the JSON lines of the log."""
    return [
        cast("dict[str, object]", orjson.loads(line)) for line in stream.getvalue().splitlines()
    ]


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    """A log line is JSON with its event, level, time and facts."""
    structlog.get_logger("novitai.test").info("it_happened", count=2, text="two\nlines")
    (line,) = lines(stream)
    assert line["event"] == "it_happened"
    assert line["count"] == 2
    assert line["level"] == "info"
    assert str(line["timestamp"]).endswith("Z")


def test_bound_facts_are_on_every_line_of_the_block(stream: io.StringIO) -> None:
    """Lines within the block have the request ID, those of libraries too; later lines do not."""
    log = structlog.get_logger("novitai.test")
    with logs.bind(request_id="req_1"):
        log.info("inside")
        logging.getLogger("library").warning("inside %s", "too")
    log.info("outside")
    inside, too, outside = lines(stream)
    assert inside["request_id"] == too["request_id"] == "req_1"
    assert too["event"] == "inside too"
    assert "request_id" not in outside


@pytest.mark.parametrize(
    "facts",
    [
        {"password": "hunter2!"},
        {"api_key": "hunter2!"},
        {"Authorization": "hunter2!"},
        {"envs": {"A": "hunter2!"}},
        {"inner": {"webhook_secret": "hunter2!"}},
        {"inner": [{"token": "hunter2!"}]},
        {"text": "sent Bearer hunter2! to it"},
        {"url": "https://user:hunter2!@example.com/"},
        {"url": "postgresql://user:a/hunter2!@example.com/d"},
        {"text": "lost redis://:a#hunter2!@example.com:1/0, again"},
        {"text": "called https://example.com/?token=hunter2!"},
        {"text": "nvt_hunter2hunter2"},
        {"text": "whsec_hunter2"},
        {"text": f"it was {SECRET}"},
    ],
)
def test_secrets_are_masked(stream: io.StringIO, facts: dict[str, object]) -> None:
    """Secrets are masked by the name of the fact, by form and by value, in any position."""
    structlog.get_logger("novitai.test").warning("oops", **facts)
    assert "hunter2" not in stream.getvalue()
    assert SECRET not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_what_is_no_secret_stays(stream: io.StringIO) -> None:
    """Key IDs, URLs without a password and ordinary words are not masked."""
    facts = {"key_id": "key_1", "url": "https://example.com/a@b", "environment": "production"}
    structlog.get_logger("novitai.test").info("fine", **facts)
    (line,) = lines(stream)
    assert facts.items() <= line.items()


def fail() -> None:
    """Raise an error like a database's, with the SQL after the first line."""
    raise ValueError(f"no such table\n[SQL: SELECT digest] {SECRET}")


@pytest.mark.parametrize("foreign", [False, True])
def test_an_error_is_explained_without_sql_or_source(stream: io.StringIO, foreign: bool) -> None:
    """The line has type, first line and frames, but no SQL, source lines or variables."""
    logger = logging.getLogger("library") if foreign else structlog.get_logger("novitai.test")
    try:
        fail()
    except ValueError:
        logger.exception("broke")
    (line,) = lines(stream)
    assert line["error"] == "builtins.ValueError"
    assert line["error_message"] == "no such table"
    assert "in fail" in str(line["error_at"])
    for leak in ("SELECT", SECRET, "raise ValueError", "Traceback"):
        assert leak not in stream.getvalue()


def test_libraries_do_not_log_each_request(stream: io.StringIO) -> None:
    """Access logs of libraries are off, because their lines hold whole URLs."""
    logging.getLogger("uvicorn.access").info("GET /x?key=1")
    logging.getLogger("httpx2").info("GET https://x/?key=1")
    assert stream.getvalue() == ""


def test_a_terminal_gets_lines_for_a_reader() -> None:
    """Outside production a line is text, with secrets masked too."""
    written = io.StringIO()
    logs.set_up(production=False, secrets=[SECRET], stream=written)
    structlog.get_logger("novitai.test").info("it_happened", text=SECRET)
    assert "it_happened" in written.getvalue()
    assert SECRET not in written.getvalue()
    assert not written.getvalue().startswith("{")


@pytest.mark.parametrize("name", ["password", "PASSWORD", "token", "api_key", "secret"])
def test_what_a_driver_says_of_its_connection_is_masked(stream: io.StringIO, name: str) -> None:
    """In a connection string within an error message, only the password is masked."""
    structlog.get_logger().warning(
        "lost", error_message=f"cannot connect with host=db {name}=hunter2! port=5432"
    )
    (line,) = lines(stream)
    assert "hunter2" not in str(line)
    assert "host=db" in str(line["error_message"])
    assert "port=5432" in str(line["error_message"])


async def test_the_line_of_a_request_is_like_any_other(stream: io.StringIO) -> None:
    """It is masked, has the facts that are bound, and its level and time."""
    with logs.bind(request_id=f"my-{SECRET}"):
        logs.write("request", {"status": 200, "client": "127.0.0.1", "route": f"/{SECRET}"})
        await asyncio.sleep(0)
        structlog.get_logger().info("request", status=200, client="127.0.0.1", route=f"/{SECRET}")
    written, logged = lines(stream)
    assert SECRET not in stream.getvalue()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(written.pop("timestamp")))
    logged.pop("timestamp")
    assert list(written.items()) == list(logged.items())
    assert written["level"] == "info"


async def test_lines_of_one_turn_are_written_together(stream: io.StringIO) -> None:
    """A secret in one of them, by its form, its value or its name, is masked in that one alone."""
    for number in range(4):
        facts = {"status": number, "client": "10.0.0.1"}
        if number == 1:
            facts["route"] = "/nvt_abcdefghijkl"
        if number == 2:
            facts["route"] = f"/{SECRET}"
        if number == 3:
            facts["api_key"] = "plain"
        logs.write("request", facts)
    assert not stream.getvalue()
    await asyncio.sleep(0)
    first, formed, known, named = lines(stream)
    assert (first["client"], first["status"]) == ("10.0.0.1", 0)
    assert (formed["route"], known["route"], named["api_key"]) == ("/***", "/***", "***")


def test_a_line_without_an_event_loop_keeps_no_later_one_waiting(stream: io.StringIO) -> None:
    """It is an error of the caller, and the lines of the loop that runs next are written."""
    with pytest.raises(RuntimeError):
        logs.write("request", {"status": 1})

    async def work() -> None:
        logs.write("request", {"status": 2})
        await asyncio.sleep(0)

    asyncio.run(work())
    assert [line["status"] for line in lines(stream)] == [2]


@pytest.mark.parametrize(
    "secret", ['quoted"secret', "back\\slash", "line\nbreak", "ünïcode-secret"]
)
async def test_a_secret_that_json_writes_otherwise_is_masked(secret: str) -> None:
    """It is looked for before the line becomes JSON."""
    written = io.StringIO()
    logs.set_up(production=True, secrets=[secret], stream=written)
    logs.write("request", {"route": f"/{secret}"})
    await asyncio.sleep(0)
    assert lines(written)[0]["route"] == "/***"
