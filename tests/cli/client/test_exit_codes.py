# SPDX-License-Identifier: Apache-2.0
"""Each exit code, shown by the program itself against a live server."""

from __future__ import annotations

import json
import re
import signal
import socket

import pytest

from novitai.cli.client.failures import ExitCode
from tests.cli.client.program import PRODUCT, TEMPLATE, WITHIN, Program, next_line

CREATE = ("--product", PRODUCT, "--template", TEMPLATE)


def unused_url() -> str:
    """Return a URL at which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_done(program: Program) -> None:
    """0: the key in the settings reads itself."""
    ran = program.process("whoami", "--json")
    assert ran.code == ExitCode.DONE
    assert json.loads(ran.out) == {
        "id": "key_admin",
        "name": "NOVITAI_ADMIN_API_KEY",
        "scopes": ["admin"],
    }
    assert ran.err == ""


def test_failed(program: Program) -> None:
    """1: a finding of the doctor is wrong, and its line says what to do."""
    ran = program.process("doctor", "--within", "0.2", env={"NOVITAI_URL": unused_url()})
    assert ran.code == ExitCode.FAILED
    assert "wrong    reachable" in ran.out
    assert "Does the server run" in ran.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ls", "--nonsense"), "No such option"),
        (("ls", "--columns", "nme"), "The columns are: name, status"),
        (("delete", "some-name"), "`--yes` answers it"),
        (("create", "no spaces please", *CREATE), "name: "),
        (("keep", "some-name", "1x"), "not a length of time"),
    ],
)
def test_usage(program: Program, arguments: tuple[str, ...], told: str) -> None:
    """2: an option, a value, a question without a terminal, a request that the server refuses."""
    ran = program.run(*arguments)
    assert ran.code == ExitCode.USAGE
    assert told in ran.err
    assert ran.out == ""


def test_usage_of_the_program(program: Program) -> None:
    """2: without any configuration, the message says how to make one."""
    ran = program.process("ls", env={"NOVITAI_URL": "", "NOVITAI_API_KEY": ""})
    assert ran.code == ExitCode.USAGE
    assert "novitai login" in ran.err


def test_not_found(program: Program) -> None:
    """3: no instance has this name."""
    ran = program.process("get", "no-such-instance")
    assert ran.code == ExitCode.NOT_FOUND
    assert "'no-such-instance'" in ran.err
    assert program.server.url in ran.err


def test_not_allowed(program: Program) -> None:
    """4: the key is wrong, or its scope is too small."""
    wrong = program.process("ls", env={"NOVITAI_API_KEY": "nvt_wrong"})
    assert wrong.code == ExitCode.NOT_ALLOWED
    assert "novitai login" in wrong.err
    small = program.server.key("read")
    ran = program.process("create", "small", *CREATE, env={"NOVITAI_API_KEY": small})
    assert ran.code == ExitCode.NOT_ALLOWED
    assert "'write'" in ran.err
    assert "novitai whoami" in ran.err


def test_wrong_state(program: Program) -> None:
    """5: nothing would stop the instance, so nothing can be put off."""
    program.rent("wrong-state")
    ran = program.process("keep", "wrong-state", "1h")
    assert ran.code == ExitCode.WRONG_STATE
    assert "novitai limits NAME" in ran.err


def test_no_capacity(program: Program) -> None:
    """6: the product is sold out."""
    ran = program.process(
        "create", "sold-out", "--product", "RTX 6000 Ada 48GB", "--template", TEMPLATE
    )
    assert ran.code == ExitCode.NO_CAPACITY
    assert "novitai offers" in ran.err


def test_over_limit(program: Program) -> None:
    """7: a price limit or a budget does not allow it."""
    dear = program.process("create", "dear", *CREATE, "--max-price", "0.01", "--region", "any")
    assert dear.code == ExitCode.OVER_LIMIT
    assert "0.01" in dear.err
    program.ok("budgets", "set", "none-left", "0.01", "--tag", "team=poor", "--on-limit", "refuse")
    ran = program.process("create", "poor", *CREATE, "--tag", "team=poor")
    assert ran.code == ExitCode.OVER_LIMIT
    assert "novitai budgets list" in ran.err


def test_wait_over(program: Program) -> None:
    """8: the instance lives on; the message names it, its price, and the command to delete it."""
    instance_id = program.rent("wait-over")
    ran = program.process("wait", "wait-over", "--for", "stopped", "--timeout", "1s")
    assert ran.code == ExitCode.WAIT_OVER
    assert f"wait-over ({instance_id}) is running; it lives on at $0." in ran.err
    assert f"novitai delete {instance_id}" in ran.err


def test_out_of_reach(program: Program) -> None:
    """9: a deleted instance never runs again."""
    instance_id = program.create("out-of-reach")
    program.ok("delete", instance_id, "--yes")
    ran = program.process("wait", instance_id, "--for", "running")
    assert ran.code == ExitCode.OUT_OF_REACH
    assert f"novitai events {instance_id}" in ran.err
    assert "lives on" not in ran.err or "terminating" in ran.err


def test_out_of_reach_as_json(program: Program) -> None:
    """9 with `--json`: the object is printed too, with the ID of what may be billed."""
    instance_id = program.create("out-as-json")
    program.ok("delete", instance_id, "--yes")
    ran = program.run("wait", instance_id, "--json")
    assert ran.code == ExitCode.OUT_OF_REACH
    assert json.loads(ran.out)["id"] == instance_id


def test_a_create_of_unknown_outcome(program: Program) -> None:
    """75: the message has the key with which the same command does not buy twice."""
    env = {"NOVITAI_URL": unused_url()}
    ran = program.run("create", "unknown", *CREATE, "--within", "0.5", env=env)
    assert ran.code == ExitCode.UNAVAILABLE
    assert re.search(r"--idempotency-key [0-9a-f-]{36}` creates it at most once", ran.err)


def test_unavailable(program: Program) -> None:
    """75: the server cannot be reached, also not after retries, of which the user is told."""
    url = unused_url()
    ran = program.process("ls", "--within", "1.5", env={"NOVITAI_URL": url})
    assert ran.code == ExitCode.UNAVAILABLE
    assert f"no response from {url}" in ran.err
    assert "trying again for up to 1.5 s" in ran.err
    assert "novitai doctor" in ran.err


def test_interrupted(program: Program) -> None:
    """130: Ctrl-C ends a wait; the message names the instance and the command to delete it."""
    instance_id = program.rent("interrupted")
    with program.started("wait", "interrupted", "--for", "stopped") as process:
        while "running" not in next_line(process.stderr):
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WITHIN)
    assert process.returncode == ExitCode.INTERRUPTED
    assert f"novitai delete {instance_id}" in err.decode()
    assert b"Traceback" not in err
