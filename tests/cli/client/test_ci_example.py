# SPDX-License-Identifier: Apache-2.0
"""The job of docs/how-to/rent-from-ci.md rents, runs and releases, also if its command fails."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.blackbox.harness import NOVITAI
from tests.cli.client.program import WITHIN, Program
from tests.docs.pages import page


def job() -> str:
    """Return the shell script of the page."""
    text = page("how-to/rent-from-ci.md")
    found = re.search(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("code", [0, 7])
def test_the_job_releases_what_it_rents(program: Program, code: int) -> None:
    """The exit code is that of the remote command, and the instance is deleted in any case."""
    assert len(job().splitlines()) == 8
    ssh = program.folder / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "ran $*"\nexit {code}\n')
    ssh.chmod(0o755)
    name = f"ci-{code}"
    env = {
        **program.env,
        "PATH": f"{program.folder}:{NOVITAI.parent}:{program.env['PATH']}",
        "CI_JOB_ID": str(code),
    }
    ran = subprocess.run(
        ["sh", "-c", job()], env=env, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert ran.returncode == code, ran
    assert re.search(r"^ran -p \d+ -l root -- 127\.0\.0\.1 nvidia-smi$", ran.stdout, re.MULTILINE)
    listed = program.ok("ls", "-a", "--columns", "name,status", "--no-header")
    status = dict(line.split() for line in listed.splitlines() if line)[name]
    assert status in {"terminating", "terminated"}
