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

from tests.blackbox.harness import ADMIN_KEY, NOVITAI, House

KEY = re.compile(r"^nvt_\w+$", re.MULTILINE)


def test_commands_work_while_the_server_runs(house: House) -> None:
    """Keys created and revoked by a command take effect in the server at once."""
    server = house.ready(house.run("serve", "--port", "0"))
    made = house.ended("keys", "create", "--name", "beside", "--scope", "read")
    assert made.code == 0, made.err
    headers = {"Authorization": f"Bearer {made.out.strip()}"}
    assert server.http.get("/api/instances", headers=headers).status_code == 200
    listed = json.loads(house.ended("keys", "list", "--json").out)
    assert [one["name"] for one in listed] == ["beside"]
    assert house.ended("keys", "revoke", listed[0]["id"]).code == 0
    assert server.http.get("/api/instances", headers=headers).status_code == 401
    beside = house.ended("webhooks", "secret").out
    server.process.kill()
    assert house.ended("webhooks", "secret").out == beside


def test_a_killed_server_leaves_no_obstacle(house: House) -> None:
    """With the stale socket of a killed server, commands open the file, and a server starts."""
    server = house.ready(house.run("serve", "--port", "0"))
    server.process.kill()
    socket = house.data / "novitai.db.sock"
    assert socket.is_socket()
    assert house.ended("keys", "create", "--name", "between", "--scope", "read").code == 0
    house.ready(house.run("serve", "--port", "0"))
    assert "between" in house.ended("keys", "list").out
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
    house: House, output: Callable[[Path], IO[str]], running: bool
) -> None:
    """If the key cannot be written, the command fails with a message and revokes the key."""
    if running:
        house.ready(house.run("serve", "--port", "0"))
    with output(house.folder / "out") as target:
        ended = subprocess.run(
            [NOVITAI, "keys", "create", "--name", "lost", "--scope", "admin"],
            stdout=target,
            stderr=subprocess.PIPE,
            text=True,
            env=house.env,
            cwd=house.folder,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 74, ended.stderr
    assert "the key could not be shown, so it was revoked (key_" in ended.stderr
    assert "Traceback" not in ended.stderr
    listed = json.loads(house.ended("keys", "list", "--json").out)
    assert [(one["name"], "revokedAt" in one) for one in listed] == [("lost", True)]


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_crash(house: House, closed: int) -> None:
    """With standard output closed the key is revoked; with standard error closed it is shown."""
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" keys create --name k --scope read {closed}>&-', NOVITAI],
        capture_output=True,
        text=True,
        env=house.env,
        cwd=house.folder,
        check=False,
        timeout=60,
    )
    assert (ended.returncode == 0) is (closed == 2), ended.stderr
    assert bool(KEY.search(ended.stdout)) is (closed == 2)
    assert "Traceback" not in ended.stderr
    listed = json.loads(house.ended("keys", "list", "--json").out)
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
    house: House, locale: dict[str, str]
) -> None:
    """The name is stored unchanged; characters that the locale lacks are printed as escapes."""
    made = house.ended("keys", "create", "--name", "Вася", "--scope", "read", **locale)
    assert made.code == 0, made.err
    assert KEY.search(made.out)
    listed = house.ended("keys", "list", **locale)
    assert listed.code == 0, listed.err
    assert "Вася" in listed.out or r"\u0412\u0430\u0441\u044f" in listed.out
    assert "Вася" in house.ended("keys", "list", PYTHONUTF8="1").out


@pytest.mark.postgresql
def test_migrating_makes_the_first_key(house: House, postgresql_url: str) -> None:
    """`migrate` makes the first key, shows it once, and no other is made."""
    house.env.update(NOVITAI_DATABASE_URL=postgresql_url, NOVITAI_ADMIN_API_KEY="")
    migrated = house.ended("migrate")
    assert migrated.code == 0, migrated.err
    key = KEY.search(migrated.err)
    assert key is not None, migrated.err
    assert KEY.search(migrated.out) is None
    assert KEY.search(house.ended("migrate").err) is None
    process = house.run("api", "--port", "0")
    server = house.ready(process)
    assert KEY.search(process.err) is None
    answer = server.http.get("/api/keys", headers={"Authorization": f"Bearer {key[0]}"})
    assert [one["name"] for one in answer.json()["keys"]] == ["first key"]


@pytest.mark.postgresql
def test_apis_that_start_at_once_show_one_first_key(house: House, postgresql_url: str) -> None:
    """If `migrate` made no key, APIs that start together make and show only one."""
    house.env.update(NOVITAI_DATABASE_URL=postgresql_url, NOVITAI_ADMIN_API_KEY="")
    assert house.ended("migrate", NOVITAI_SECRET_KEY="").code == 0
    processes = [house.run("api", "--port", "0") for _ in range(3)]
    servers = [house.ready(process) for process in processes]
    shown = [key[0] for process in processes if (key := KEY.search(process.err))]
    assert len(shown) == 1
    for server in servers:
        answer = server.http.get("/api/keys", headers={"Authorization": f"Bearer {shown[0]}"})
        assert len(answer.json()["keys"]) == 1


def test_a_first_key_that_cannot_be_shown_is_revoked(house: House) -> None:
    """A first key that cannot be shown is revoked; the server runs, and a command makes another."""
    house.env["NOVITAI_ADMIN_API_KEY"] = ""
    with (
        (house.folder / "out").open("w") as out,
        open("/dev/full", "w") as full_disk,  # noqa: PTH123 - a device, not a path
        subprocess.Popen(
            [NOVITAI, "serve", "--port", "0"],
            stdout=out,
            stderr=full_disk,
            env={name: value for name, value in house.env.items() if value},
            cwd=house.folder,
        ) as process,
    ):
        try:
            made = house.ended("keys", "create", "--name", "mine", "--scope", "admin")
            assert made.code == 0, made.err
            listed = json.loads(house.ended("keys", "list", "--json").out)
        finally:
            process.kill()
    states = {one["name"]: "revokedAt" in one for one in listed}
    assert states in ({"mine": False, "first key": True}, {"mine": False})
    assert ADMIN_KEY not in str(listed)
