# SPDX-License-Identifier: Apache-2.0
"""Every command of the tutorial works and gives the output that the page shows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, page

WITHIN: Final = 480.0
"""Seconds for the whole page, on a busy machine."""
PORTS: Final = ("8080", "9090", "9000")
"""The ports of the page, which the test replaces by free ones."""
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A block of commands, and the output that the page shows after it."""

    commands: str
    shown: str


def steps(text: str) -> list[Step]:
    """Read the command blocks of a page in order, each with the output shown after it."""
    blocks = [(match[1], match[2]) for match in _BLOCK.finditer(text)]
    assert {language for language, _ in blocks} <= {"bash", "text"}
    after = [*blocks[1:], ("", "")]
    return [
        Step(commands, shown if following == "text" else "")
        for (language, commands), (following, shown) in zip(blocks, after, strict=True)
        if language == "bash"
    ]


def free_ports(count: int) -> list[str]:
    """Find ports that no process listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run(script: str, folder: Path) -> str:
    """Run a script in one shell session, and end all its processes."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
    }
    output = folder / "session.out"
    with output.open("w") as stream:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            shell.wait(WITHIN)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the tutorial does not end; so far:\n{output.read_text()}")
        finally:
            end_group(shell)
    return output.read_text()


def end_group(shell: subprocess.Popen[bytes]) -> None:
    """End the shell and every process of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)
    shell.wait(10)


def pattern(line: str) -> re.Pattern[str]:
    """Turn a line of the page into a pattern, in which `…` matches any text."""
    return re.compile(".+".join(re.escape(part) for part in line.strip().split("…")))


def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    """The whole session works: start, running instance, webhook, stop and deletion."""
    text = page("tutorial/first-instance.md")
    for port, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
        text = re.sub(rf"\b{port}\b", free, text)
    session = steps(text)
    assert len(session) > 10
    script = "\n".join(f'{one.commands}\necho "@@@ {n} $?"' for n, one in enumerate(session))
    said = run(script, tmp_path)
    rest = said
    for number, step in enumerate(session):
        output, mark, rest = rest.partition(f"@@@ {number} ")
        assert mark, f"not reached: {step.commands}\n{said}"
        status, _, rest = rest.partition("\n")
        assert status == "0", f"{step.commands} ended with {status}:\n{output}"
        lines = iter(output.splitlines())
        for wanted in filter(str.strip, step.shown.splitlines()):
            # In the order of the page, which may leave out lines.
            assert any(pattern(wanted).search(line) for line in lines), (
                f"{step.commands} does not show {wanted!r}:\n{output}"
            )
