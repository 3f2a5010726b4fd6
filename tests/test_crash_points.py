# SPDX-License-Identifier: Apache-2.0
"""Crash points: off by default, refused by accident, and deadly where a test asks for one."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from novitai.crash_points import CrashAt, CrashPoint
from novitai.errors import SettingsError
from novitai.settings import load

_SCRIPT = """
from novitai.crash_points import *
arm(CrashAt.parse("step.decided/stop:2"))
for subject in ("stop", "create", "stop", "stop"):
    reach(CrashPoint.STEP_DECIDED, subject)
    print("after", subject, flush=True)
"""


def test_an_armed_point_kills_the_process() -> None:
    """The process gets SIGKILL when the point with the subject is reached for the n-th time."""
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split("\n") == ["after stop", "after create", ""]
    assert ended.stderr == "crash point reached: step.decided stop\n"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"CRASH_AT": "call.sent"}, "needs NOVITAI_TEST_ALLOW_CRASHES=true"),
        ({"CRASH_AT": "call.sent", "ALLOW_CRASHES": "false"}, "needs NOVITAI_TEST_ALLOW_CRASHES"),
        ({"CRASH_AT": "no.such", "ALLOW_CRASHES": "true"}, "is not a valid CrashPoint"),
        ({"CRASH_AT": "call.sent:0", "ALLOW_CRASHES": "true"}, "begins at 1"),
    ],
)
def test_no_crash_by_accident(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], complaint: str
) -> None:
    """A crash point is refused unless it exists and a second setting allows crashes."""
    for name, value in settings.items():
        monkeypatch.setenv(f"NOVITAI_TEST_{name}", value)
    with pytest.raises(SettingsError, match=complaint):
        load()


def test_production_has_no_crash_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """In production a crash point is refused, and elsewhere both settings together are taken."""
    monkeypatch.setenv("NOVITAI_TEST_CRASH_AT", "attempt.committed:2")
    monkeypatch.setenv("NOVITAI_TEST_ALLOW_CRASHES", "true")
    assert load().test_crash_at == "attempt.committed:2"
    monkeypatch.setenv("NOVITAI_ENVIRONMENT", "production")
    with pytest.raises(SettingsError, match="refused in production"):
        load()


def test_a_point_is_read() -> None:
    """The name, the subject and the number are read; without a number, the first time counts."""
    assert CrashAt.parse("call.sent") == CrashAt(CrashPoint.CALL_SENT)
    assert CrashAt.parse("call.sent/stop:3") == CrashAt(CrashPoint.CALL_SENT, "stop", 3)
