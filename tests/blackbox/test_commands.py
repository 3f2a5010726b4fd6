# SPDX-License-Identifier: Apache-2.0
"""`novitai keys` and `novitai webhooks` beside a running server, and keys that cannot be shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests.blackbox.harness import ADMIN_KEY, NOVITAI, Sandbox

KEY = re.compile(r"^nvt_\w+$", re.MULTILINE)


def test_commands_work_while_the_server_runs(sandbox: Sandbox) -> None:
    """Keys created and revoked by a command take effect in the server at once."""
    server = sandbox.ready(sandbox.run("serve", "--port", "0"))
    made = sandbox.ended("keys", "create", "--name", "beside", "--scope", "read")
    assert made.code == 0, made.err
    headers = {"Authorization": f"Bearer {made.out.strip()}"}
    assert server.http.get("/api/instances", headers=headers).status_code == 200
    listed = json.loads(sandbox.ended("keys", "list", "--json").out)
    assert [one["name"] for one in listed] == ["beside"]
    assert sandbox.ended("keys", "revoke", listed[0]["id"]).code == 0
    assert server.http.get("/api/instances", headers=headers).status_code == 401
    beside = sandbox.ended("webhooks", "secret").out
    server.process.kill()
    assert sandbox.ended("webhooks", "secret").out == beside


def test_a_key_is_made_with_limits(sandbox: Sandbox) -> None:
    """Each option is a limit, while a server runs and while none does; the list shows them."""
    options = {
        "--max-instances": "3",
        "--max-hourly-price": "2.5",
        "--max-run-minutes": "60",
        "--budget": "20",
        "--budget-period": "day",
    }
    create = ["keys", "create", "--name", "ci", "--scope", "write"]
    given = [word for option in options.items() for word in option]
    limits = {
        "maxInstances": 3,
        "maxHourlyPrice": 2.5,
        "maxRunMinutes": 60,
        "budget": {"amount": 20, "period": "day"},
    }
    assert sandbox.ended(*create, *given).code == 0
    server = sandbox.ready(sandbox.run("serve", "--port", "0"))
    assert sandbox.ended(*create, *given).code == 0
    assert sandbox.ended(*create, "--budget", "5").code == 0
    listed = json.loads(sandbox.ended("keys", "list", "--json").out)
    shown = [one["limits"] for one in listed if one["name"] == "ci"]
    assert shown == [{"budget": {"amount": 5, "period": "month"}}, limits, limits]
    told = "maxInstances=3,maxHourlyPrice=2.5,maxRunMinutes=60,budget=20/day"
    assert sandbox.ended("keys", "list").out.count(told) == 2
    no_period, of_admin = ["--budget-period", "day"], ["--scope", "admin", *given]
    for wrong, code in ((["--max-instances", "0"], 1), (of_admin, 1), (no_period, 2)):
        assert sandbox.ended(*create, *wrong).code == code
    server.process.kill()


def test_a_killed_server_leaves_no_obstacle(sandbox: Sandbox) -> None:
    """With the stale socket of a killed server, commands open the file, and a server starts."""
    server = sandbox.ready(sandbox.run("serve", "--port", "0"))
    server.process.kill()
    socket = sandbox.data / "novitai.db.sock"
    assert socket.is_socket()
    assert sandbox.ended("keys", "create", "--name", "between", "--scope", "read").code == 0
    sandbox.ready(sandbox.run("serve", "--port", "0"))
    assert "between" in sandbox.ended("keys", "list").out
    assert oct(socket.stat().st_mode & 0o777) == "0o600"


def full(_path: Path) -> IO[str]:
    """Open a device that has no space left."""
    return open("/dev/full", "w")  # noqa: PTH123 - a device, not a path; the test closes it


def broken(_path: Path) -> IO[str]:
    """Open a pipe whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def read_only(path: Path) -> IO[str]:
    """Open a descriptor that cannot be written."""
    path.touch()
    return path.open()


@pytest.mark.parametrize("running", [False, True], ids=["alone", "beside a server"])
@pytest.mark.parametrize("output", [full, broken, read_only])
def test_a_key_that_cannot_be_shown_is_revoked(
    sandbox: Sandbox, output: Callable[[Path], IO[str]], running: bool
) -> None:
    """If the key cannot be written, the command fails with a message and revokes the key."""
    if running:
        sandbox.ready(sandbox.run("serve", "--port", "0"))
    with output(sandbox.folder / "out") as target:
        ended = subprocess.run(
            [NOVITAI, "keys", "create", "--name", "lost", "--scope", "admin"],
            stdout=target,
            stderr=subprocess.PIPE,
            text=True,
            env=sandbox.env,
            cwd=sandbox.folder,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 74, ended.stderr
    assert "the key could not be shown, so it was revoked (key_" in ended.stderr
    assert "Traceback" not in ended.stderr
    listed = json.loads(sandbox.ended("keys", "list", "--json").out)
    assert [(one["name"], "revokedAt" in one) for one in listed] == [("lost", True)]


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_crash(sandbox: Sandbox, closed: int) -> None:
    """With standard output closed the key is revoked; with standard error closed it is shown."""
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" keys create --name k --scope read {closed}>&-', NOVITAI],
        capture_output=True,
        text=True,
        env=sandbox.env,
        cwd=sandbox.folder,
        check=False,
        timeout=60,
    )
    assert (ended.returncode == 0) is (closed == 2), ended.stderr
    assert bool(KEY.search(ended.stdout)) is (closed == 2)
    assert "Traceback" not in ended.stderr
    listed = json.loads(sandbox.ended("keys", "list", "--json").out)
    assert ["revokedAt" in one for one in listed] == [closed == 1]


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_a_name_in_another_script_is_no_trouble_in_any_locale(
    sandbox: Sandbox, locale: dict[str, str]
) -> None:
    """The name is stored unchanged; characters that the locale lacks are printed as escapes."""
    made = sandbox.ended("keys", "create", "--name", "Вася", "--scope", "read", **locale)
    assert made.code == 0, made.err
    assert KEY.search(made.out)
    listed = sandbox.ended("keys", "list", **locale)
    assert listed.code == 0, listed.err
    assert "Вася" in listed.out or r"\u0412\u0430\u0441\u044f" in listed.out
    assert "Вася" in sandbox.ended("keys", "list", PYTHONUTF8="1").out


@pytest.mark.postgresql
def test_migrating_makes_the_first_key(sandbox: Sandbox, postgresql_url: str) -> None:
    """`migrate` makes the first key, shows it once, and no other is made."""
    sandbox.env.update(NOVITAI_DATABASE_URL=postgresql_url, NOVITAI_ADMIN_API_KEY="")
    migrated = sandbox.ended("migrate")
    assert migrated.code == 0, migrated.err
    key = KEY.search(migrated.err)
    assert key is not None, migrated.err
    assert KEY.search(migrated.out) is None
    assert KEY.search(sandbox.ended("migrate").err) is None
    process = sandbox.run("api", "--port", "0")
    server = sandbox.ready(process)
    assert KEY.search(process.err) is None
    answer = server.http.get("/api/keys", headers={"Authorization": f"Bearer {key[0]}"})
    assert [one["name"] for one in answer.json()["keys"]] == ["first key"]


@pytest.mark.postgresql
def test_apis_that_start_at_once_show_one_first_key(sandbox: Sandbox, postgresql_url: str) -> None:
    """If `migrate` made no key, APIs that start together make and show only one."""
    sandbox.env.update(NOVITAI_DATABASE_URL=postgresql_url, NOVITAI_ADMIN_API_KEY="")
    assert sandbox.ended("migrate", NOVITAI_SECRET_KEY="").code == 0
    processes = [sandbox.run("api", "--port", "0") for _ in range(3)]
    servers = [sandbox.ready(process) for process in processes]
    shown = [key[0] for process in processes if (key := KEY.search(process.err))]
    assert len(shown) == 1
    for server in servers:
        answer = server.http.get("/api/keys", headers={"Authorization": f"Bearer {shown[0]}"})
        assert len(answer.json()["keys"]) == 1


def test_a_first_key_that_cannot_be_shown_is_revoked(sandbox: Sandbox) -> None:
    """A first key that cannot be shown is revoked; the server runs, and a command makes another."""
    sandbox.env["NOVITAI_ADMIN_API_KEY"] = ""
    with (
        (sandbox.folder / "out").open("w") as out,
        open("/dev/full", "w") as full_disk,  # noqa: PTH123 - a device, not a path
        subprocess.Popen(
            [NOVITAI, "serve", "--port", "0"],
            stdout=out,
            stderr=full_disk,
            env={name: value for name, value in sandbox.env.items() if value},
            cwd=sandbox.folder,
        ) as process,
    ):
        try:
            made = sandbox.ended("keys", "create", "--name", "mine", "--scope", "admin")
            assert made.code == 0, made.err
            listed = json.loads(sandbox.ended("keys", "list", "--json").out)
        finally:
            process.kill()
    states = {one["name"]: "revokedAt" in one for one in listed}
    assert states in ({"mine": False, "first key": True}, {"mine": False})
    assert ADMIN_KEY not in str(listed)
