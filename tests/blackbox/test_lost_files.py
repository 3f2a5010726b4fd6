# SPDX-License-Identifier: Apache-2.0
"""`novitai serve` when its disk fills up, or its files are deleted or replaced."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import Sandbox, Server, until

REQUEST = {"name": "k", "scopes": ["read"]}


def delete(path: Path) -> None:
    """Delete the database."""
    path.unlink()


def delete_log(path: Path) -> None:
    """Delete the database's write-ahead log."""
    path.with_name(path.name + "-wal").unlink()


def copy_over(path: Path) -> None:
    """Copy an older database over it."""
    shutil.copyfile(path.with_name("older.db"), path)


def put(server: Server, name: str) -> int:
    """Create a key; return the HTTP status."""
    return server.http.post("/api/keys", json={**REQUEST, "name": name}).status_code


@pytest.mark.parametrize("way", [delete, delete_log, copy_over])
def test_what_was_acknowledged_is_there_and_what_was_not_is_told(
    sandbox: Sandbox, way: Callable[[Path], None]
) -> None:
    """A lost file makes health fail and is logged; after a restore, acknowledged data is there."""
    path = sandbox.data / "novitai.db"
    sandbox.env["NOVITAI_SYNC_INTERVAL_SECONDS"] = "5"
    sandbox.ended("keys", "list")
    older, saved = path.with_name("older.db"), path.with_name("saved.db")
    shutil.copyfile(path, older)
    process = sandbox.run("serve", "--port", "0")
    server = sandbox.ready(process)
    assert put(server, "before") == 201
    log = path.with_name(path.name + "-wal")
    until(lambda: log.stat().st_size == 0, 30, "the log is written back")
    shutil.copyfile(path, saved)
    assert server.http.get("/health/ready").status_code == 200
    way(path)
    assert put(server, "after") == 500
    ready = server.http.get("/health/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "STORE_CORRUPT")
    assert server.http.get("/health").status_code == 503
    until(lambda: "store_lost" in process.err, 30, "the loss is logged")
    assert process.err.count("store_lost") == 1
    assert "Nothing is read or stored any more" in process.err
    process.kill()
    saved.replace(path)
    log.unlink(missing_ok=True)
    again = sandbox.ready(sandbox.run("serve", "--port", "0"))
    names = [one["name"] for one in again.http.get("/api/keys").json()["keys"]]
    assert names == ["before"]


def test_a_lost_server_still_ends_when_asked(sandbox: Sandbox) -> None:
    """A server that lost its database still ends in time on SIGTERM, without a traceback."""
    process = sandbox.run("serve", "--port", "0")
    server = sandbox.ready(process)
    (sandbox.data / "novitai.db").unlink()
    until(lambda: "store_lost" in process.err, 30, "the loss is noticed while nothing is asked")
    assert server.http.get("/health/ready").status_code == 503
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.err


@pytest.fixture
def small_disk(sandbox: Sandbox) -> Iterator[Path]:
    """A data folder on a disk of four megabytes."""
    sandbox.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", str(sandbox.data)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("making a small disk needs the right to mount one")
    try:
        yield sandbox.data
    finally:
        for process in sandbox.processes:
            process.kill()
        subprocess.run(["umount", str(sandbox.data)], check=True)


def test_a_full_disk_is_told_and_survived(sandbox: Sandbox, small_disk: Path) -> None:
    """On a full disk, writes are refused and health fails; with space again, both recover."""
    process = sandbox.run("serve", "--port", "0")
    server = sandbox.ready(process)
    assert put(server, "before") == 201
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(8_000_000))
    answers = [
        server.http.post("/api/keys", json={**REQUEST, "name": f"full-{number}"})
        for number in range(20)
    ]
    stored = [f"full-{n}" for n, answer in enumerate(answers) if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code != 201]
    assert refused
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORAGE_FULL")
        assert "Retry-After" in answer.headers
    ready = server.http.get("/health/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "STORAGE_FULL")
    assert server.http.get("/health").status_code == 503
    assert server.http.get("/api/keys").status_code == 200
    (small_disk / "filler").unlink()
    assert server.http.get("/health/ready").status_code == 200
    assert put(server, "after") == 201
    process.kill()
    again = sandbox.ready(sandbox.run("serve", "--port", "0"))
    names = {one["name"] for one in again.http.get("/api/keys").json()["keys"]}
    assert names == {"before", *stored, "after"}


def test_a_full_disk_refuses_a_start_in_words(sandbox: Sandbox, small_disk: Path) -> None:
    """On a full disk, commands exit with code 74 and a message, at any first write."""
    assert sandbox.ended("keys", "list").code == 0
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(8_000_000))
    for command in (["serve", "--port", "0"], ["keys", "create", "--name", "k", "--scope", "read"]):
        process = sandbox.ended(*command)
        assert process.code == 74, process.err
        assert "no space is left" in process.err


def test_a_read_only_disk_refuses_a_start_in_words(sandbox: Sandbox, small_disk: Path) -> None:
    """The message names the folder and the setting."""
    assert sandbox.ended("keys", "list").code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (["serve", "--port", "0"], ["keys", "list"], ["migrate"]):
        process = sandbox.ended(*command)
        assert process.code in {0, 74}, process.err
        if process.code:
            assert str(small_disk) in process.err
            assert "writable for this user, or set NOVITAI_DATA_DIR" in process.err
