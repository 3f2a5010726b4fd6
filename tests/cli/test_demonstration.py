# SPDX-License-Identifier: Apache-2.0
"""The parts of the demonstration; the black-box tests run it as a whole."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from novitai.cli.demo_receiver import Receiver
from novitai.cli.demonstration import DemoSettings
from novitai.cli.watching import Board, Lines
from novitai.clock import SystemClock
from novitai.egress.signing import headers
from novitai.ids import Ids
from novitai.lifecycle.webhooks.installation_secret import fresh_secret


def test_the_readers_settings_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither the environment nor `.env` can turn a demonstration into a purchase."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("NOVITAI_RATE_LIMIT_BURST=1\n")
    monkeypatch.setenv("NOVITA_API_KEY", "sk-real")
    monkeypatch.setenv("NOVITAI_UPSTREAM_URL", "https://real.example.com")
    monkeypatch.setenv("NOVITAI_DATABASE_URL", "postgresql://real.example.com/db")
    settings = DemoSettings(upstream_url="http://127.0.0.1:9090", data_dir=tmp_path)
    assert settings.upstream_url == "http://127.0.0.1:9090"
    assert settings.novita_api_key is None
    assert settings.embedded
    assert settings.rate_limit_burst == 20


def test_a_pipe_gets_a_line_for_each_new_state(capsys: pytest.CaptureFixture[str]) -> None:
    """A repeated state is not printed again."""
    screen = Lines()
    for status, upstream, elapsed in [
        ("creating", "", 0.0),
        ("creating", "", 0.1),
        ("creating", "pulling", 0.2),
        ("running", "running", 3.04),
    ]:
        screen.show(status, upstream, elapsed)
    assert capsys.readouterr().out.splitlines() == [
        "   0.0 s  creating",
        "   0.2 s  creating   (at Novita: pulling)",
        "   3.0 s  running    (at Novita: running)",
    ]


def test_a_terminal_gets_a_table_that_grows() -> None:
    """Each state has a row with the time at which it was first seen."""
    console = Console(file=io.StringIO(), force_terminal=True, width=60, no_color=True)
    with Live(console=console, auto_refresh=False) as live:
        board = Board(live)
        board.show("creating", "", 0.0)
        board.show("creating", "", 0.4)
        board.show("running", "running", 2.0)
    plain = Console(file=(drawn := io.StringIO()), width=60)
    plain.print(live.renderable)
    rows = [line.split() for line in drawn.getvalue().splitlines()[1:]]
    assert rows == [["0.0", "s", "creating"], ["2.0", "s", "running", "running"]]


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    """Without Unicode, the spinner has no Braille characters, which could not be written."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(file=stream, force_terminal=True, width=80)
    with Live(console=console, refresh_per_second=10) as live:
        Board(live).show("creating", "pulling", 0.1)
    stream.flush()
    assert b"pulling" in raw.getvalue()


async def post(url: str, body: bytes, signed: dict[str, str]) -> str:
    """Send a message; return the first line of the answer."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer.partition("\r\n")[0]


async def test_the_receiver_keeps_valid_messages_only() -> None:
    """A message with another secret is refused and does not count as received."""
    secret = fresh_secret(Ids())
    receiver = Receiver(secret)
    body = json.dumps({"type": "instance.running", "data": {}}).encode()
    now = SystemClock().now()
    async with receiver.listening("127.0.0.1"):
        forged = headers("msg_1", body, now, [fresh_secret(Ids())])
        assert "400" in await post(receiver.url, body, dict(forged))
        assert not await receiver.wait_for("instance.running", 0)
        assert "204" in await post(receiver.url, body, dict(headers("msg_2", body, now, [secret])))
        assert await receiver.wait_for("instance.running", 5)
    assert receiver.types == ["instance.running"]
