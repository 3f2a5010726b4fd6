# SPDX-License-Identifier: Apache-2.0
"""Output of commands works in any locale, and a failure to write is an error with a message."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

import pytest

from novitai.cli import first_key, output
from novitai.cli.first_key import show_first_key
from novitai.cli.output import OutputFailed
from novitai.ids import Ids
from novitai.lifecycle.api_keys import KeyRing
from novitai.store.engine.database import Database
from novitai.store.vault import Vault
from novitai.testing import ManualClock


class Full(io.TextIOBase):
    """A stream on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("write", "stream", "title"),
    [(output.say, "stdout", "standard output"), (output.note, "stderr", "standard error")],
)
def test_a_stream_that_takes_nothing_is_an_error_in_words(
    write: Callable[[str], None], stream: str, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails exits with code 74, the code for input/output errors."""
    monkeypatch.setattr(sys, stream, Full())
    with pytest.raises(OutputFailed, match=f"{title} cannot be written: No space left") as caught:
        write("x")
    assert caught.value.exit_code == 74


def test_a_closed_stream_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to a stream that was closed when the process started is an error."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(output, "_closed", set())
    output.prepare()
    with sys.stdout, pytest.raises(OutputFailed, match="standard output is closed"):
        output.say("x")


def test_a_complaint_that_nobody_can_hear_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an error message cannot be written, the command continues to its exit code."""
    monkeypatch.setattr(sys, "stderr", Full())
    output.complain("something is wrong")


def test_a_narrow_locale_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the locale lacks are written as escapes."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.prepare()
    output.say("Вася ok")
    assert raw.getvalue() == rb"\u0412\u0430\u0441\u044f ok" + os.linesep.encode()


async def test_a_first_key_that_cannot_be_shown_is_revoked(
    sqlite_database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start creates another key and shows it."""
    vault = Vault(b"0123456789abcdef0123456789abcdef")
    ring = KeyRing(database=sqlite_database, vault=vault, clock=clock, ids=Ids())
    monkeypatch.setattr(sys, "stderr", Full())
    await show_first_key(ring)
    assert [key.revoked_at is not None for key in (await ring.page()).keys] == [True]
    shown: list[str] = []
    monkeypatch.setattr(first_key, "note", shown.append)
    await show_first_key(ring)
    await show_first_key(ring)
    assert len(shown) == 1
    caller = await ring.authenticate(shown[0].splitlines()[-1])
    assert caller is not None
    await ring.flush()
