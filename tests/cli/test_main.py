# SPDX-License-Identifier: Apache-2.0
"""The command as a whole: its help, its errors, its exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from novitai.cli import main as command
from novitai.cli import running
from novitai.errors import FieldError, NotFound, NovitaiError, SettingsError, ValidationFailed
from novitai.errors import StartupError as Startup

FIELDS = ValidationFailed(
    "Validation failed",
    details=[FieldError("name", "Name is required"), FieldError("scopes", "Scopes is required")],
)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SettingsError("NOVITAI_X: wrong"), 2, "novitai: NOVITAI_X: wrong\n"),
        (Startup("the disk is full", exit_code=74), 74, "novitai: the disk is full\n"),
        (NotFound("no such key"), 1, "novitai: no such key\n"),
        (FIELDS, 1, "novitai: name: Name is required\nscopes: Scopes is required\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(
    error: NovitaiError | KeyboardInterrupt,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each `NovitaiError` of a command is one message on stderr; Ctrl-C prints nothing."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(command, "app", fail)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


def test_a_defect_is_not_dressed_up_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other exceptions are not caught."""

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "app", fail)
    with pytest.raises(ZeroDivisionError):
        command.main()


def test_help_loads_neither_the_server_nor_the_store() -> None:
    """Only the commands that need slow modules import them."""
    heavy = "starlette sqlalchemy alembic uvicorn httpx2 pydantic structlog cryptography orjson"
    code = (
        "import sys, novitai.cli.main; "
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=240
    )
    assert loaded.stdout == "[]\n"


def test_the_commands_are_those_of_the_documentation() -> None:
    """Every documented command and group is in the help."""
    listed = subprocess.run(
        [sys.executable, "-m", "novitai", "--help"],
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    names = "serve api worker emulator demo keys config migrate webhooks --version"
    for name in names.split():
        assert name in listed.stdout


def test_serving_is_for_this_machine_alone_unless_told_otherwise() -> None:
    """By default the server listens on the loopback address only."""
    for serving in (running.serve, running.api):
        assert serving.__defaults__ == ("127.0.0.1", 8080)
