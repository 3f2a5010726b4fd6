# SPDX-License-Identifier: Apache-2.0
"""A start that fails gives a message and an exit code, and no traceback.

The `sandbox` fixture fails a test in which a process wrote a traceback or a secret.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
from contextlib import closing

import pytest

from tests.blackbox.harness import PATIENCE, START_WITHIN, Sandbox


def test_a_second_process_on_one_file_is_refused(sandbox: Sandbox) -> None:
    """The message names the process that has the file."""
    server = sandbox.ready(sandbox.run("serve", "--port", "0"))
    second = sandbox.ended("serve", "--port", "0")
    assert second.code == 75
    assert re.search(r"in use by another process \(pid \d+, novitai serve", second.err)
    assert second.out == ""
    (sandbox.data / "novitai.db.lock").unlink()
    third = sandbox.ended("serve", "--port", "0")
    assert third.code == 75
    assert "in use by another process (pid " in third.err
    assert server.http.get("/health/live").status_code == 200


def test_a_taken_port_is_named(sandbox: Sandbox) -> None:
    """The message has the port and the option; the database is not opened."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = sandbox.ended("serve", "--port", str(port))
    assert process.code == 1
    assert f"port {port} on 127.0.0.1 is in use" in process.err
    assert "--port" in process.err
    assert not (sandbox.data / "novitai.db").exists()


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("NOVITAI_SYNC_INTERVALL_SECONDS", "1", "NOVITAI_SYNC_INTERVAL_SECONDS"),
        ("NOVITAI_RATE_LIMIT_PER_MINUTE", "many", "NOVITAI_RATE_LIMIT_PER_MINUTE: "),
    ],
)
def test_a_wrong_setting_is_named(sandbox: Sandbox, setting: str, value: str, told: str) -> None:
    """The message suggests the nearest name for a misspelt one, and names a wrong value."""
    process = sandbox.ended("serve", "--port", "0", **{setting: value})
    assert process.code == 2
    assert setting in process.err
    assert told in process.err


@pytest.mark.parametrize("command", ["api", "worker"])
def test_separate_halves_need_postgresql(sandbox: Sandbox, command: str) -> None:
    """Without PostgreSQL, `api` and `worker` are refused, and the message names the setting."""
    process = sandbox.ended(command)
    assert process.code == 2
    assert "NOVITAI_DATABASE_URL" in process.err


def test_a_damaged_database_is_not_touched(sandbox: Sandbox) -> None:
    """A file that is not a database is left unchanged."""
    sandbox.data.mkdir()
    file = sandbox.data / "novitai.db"
    file.write_bytes(b"this is no database, whatever its name says" * 100)
    process = sandbox.ended("serve", "--port", "0")
    assert process.code == 74
    assert str(file) in process.err
    assert file.read_bytes().startswith(b"this is no database")


def test_a_newer_database_is_refused(sandbox: Sandbox) -> None:
    """A database of a later version is refused."""
    assert sandbox.ended("migrate").code == 0
    with closing(sqlite3.connect(sandbox.data / "novitai.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        told = '{"madeBy": "7.1.0", "worksWith": "9999"}'
        connection.execute("UPDATE installation SET value = ? WHERE name = 'schema'", (told,))
        connection.commit()
    process = sandbox.ended("serve", "--port", "0")
    assert process.code == 78
    assert "newer version" in process.err
    assert "Install novitai 7.1.0 or a newer one" in process.err


def test_a_folder_that_cannot_be_written_is_named(sandbox: Sandbox) -> None:
    """The message has the folder; a file in its place also stops root."""
    sandbox.data.write_text("no folder")
    process = sandbox.ended("serve", "--port", "0", NOVITAI_SECRET_KEY="")
    assert process.code == 74
    assert str(sandbox.data) in process.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(sandbox: Sandbox) -> None:
    """The message has the folder and the setting."""
    sandbox.data.mkdir(mode=0o500)
    process = sandbox.ended("serve", "--port", "0")
    assert process.code == 74
    assert str(sandbox.data) in process.err


def test_the_first_key_is_shown_once_and_works(sandbox: Sandbox) -> None:
    """If no key exists, the first start makes and shows one; the second does not show it."""
    process = sandbox.run("serve", "--port", "0", NOVITAI_ADMIN_API_KEY="")
    server = sandbox.ready(process)
    key = re.search(r"^nvt_\w+$", process.err, re.MULTILINE)
    assert key is not None, process.err
    answer = server.http.get("/api/keys", headers={"Authorization": f"Bearer {key[0]}"})
    assert [one["name"] for one in answer.json()["keys"]] == ["first key"]
    process.kill()
    again = sandbox.run("serve", "--port", "0", NOVITAI_ADMIN_API_KEY="")
    sandbox.ready(again)
    assert "nvt_" not in again.err


def test_a_lost_secret_key_is_not_replaced(sandbox: Sandbox) -> None:
    """A lost secret key stops the start, because a new one cannot read the database's secrets."""
    sandbox.env["NOVITAI_SECRET_KEY"] = ""
    key = sandbox.ended("keys", "create", "--name", "before", "--scope", "read").out.strip()
    secret = sandbox.data / "secret.key"
    kept = secret.read_bytes()
    secret.unlink()
    for command in (["serve", "--port", "0"], ["keys", "list"], ["webhooks", "secret"]):
        process = sandbox.ended(*command)
        assert process.code == 78, process.err
        assert f"{secret}: the secret key is missing" in process.err
        assert not secret.exists()
    secret.write_bytes(kept)
    server = sandbox.ready(sandbox.run("serve", "--port", "0"))
    answer = server.http.get("/api/instances", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200


def test_a_refused_start_leaves_no_secret_key(sandbox: Sandbox) -> None:
    """A refused start makes no secret key, because the right one may be restored later."""
    sandbox.data.mkdir()
    (sandbox.data / "novitai.db").write_bytes(b"this is no database, whatever its name says" * 100)
    process = sandbox.ended("serve", "--port", "0", NOVITAI_SECRET_KEY="")
    assert process.code == 74, process.err
    assert not (sandbox.data / "secret.key").exists()


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://novita.example", True),
        ("http://127.0.0.2:9", False),
        ("https://novita.example", False),
    ],
)
def test_a_key_that_travels_in_the_clear_is_warned_of(
    sandbox: Sandbox, url: str, warned: bool
) -> None:
    """Plain HTTP to another machine is allowed with a warning; to this machine without one."""
    process = sandbox.run("serve", "--port", "0", NOVITAI_UPSTREAM_URL=url)
    sandbox.ready(process)
    assert ("NOVITAI_UPSTREAM_URL is plain HTTP" in process.err) is warned


def test_what_kubernetes_injects_is_no_obstacle(sandbox: Sandbox) -> None:
    """Variables that Kubernetes sets for services, and those of clients, do not stop a start."""
    process = sandbox.ended(
        "config",
        NOVITAI_API_PORT_8080_TCP="tcp://10.0.0.1:8080",
        NOVITAI_WORKER_SERVICE_HOST="10.0.0.2",
        NOVITAI_API_KEY="a client's",
        NOVITAI_URL="http://novitai",
    )
    assert process.code == 0, process.err


@pytest.mark.parametrize("command", ["api", "worker", "serve"])
def test_a_start_that_waits_for_a_server_can_be_stopped(sandbox: Sandbox, command: str) -> None:
    """If the database does not answer, SIGTERM ends the start with code 0 and one line."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://novitai@127.0.0.1:{silent.getsockname()[1]}/novitai"
        port = [] if command == "worker" else ["--port", "0"]
        process = sandbox.run(command, *port, NOVITAI_DATABASE_URL=url)
        silent.settimeout(START_WITHIN * PATIENCE)
        connection, _ = silent.accept()
        with connection:
            process.send(signal.SIGTERM)
            assert process.wait() == 0
    assert process.err == "novitai: asked to stop before it had started\n"
