# SPDX-License-Identifier: Apache-2.0
"""Operate a server: back it up, restore it, ask the doctor, rotate its secret, upgrade it."""

from __future__ import annotations

import json
import signal
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.blackbox.harness import ADMIN_KEY, SECRET_KEY, Process, Sandbox, Server, until
from tests.old_release import run_release, unpacked


def findings(process: Process) -> dict[str, dict[str, str]]:
    """Return what `novitai doctor --json` found, by check."""
    found = {one["check"]: one for one in json.loads(process.out)["checks"]}
    assert {one["verdict"] for one in found.values()} <= {"ok", "warning", "wrong"}
    return found


def account(server: Server) -> dict[str, object]:
    """Read the state of the account."""
    response = server.http.get("/api/account")
    assert response.status_code == 200, response.text
    shown: dict[str, object] = response.json()
    return shown


def stop(process: Process) -> None:
    """End a server as an operator does."""
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.err


def test_a_restored_backup_asks_before_it_acts(sandbox: Sandbox) -> None:
    """A restored database buys, stops and deletes nothing until a person has confirmed it."""
    emulator = sandbox.emulator()
    server = sandbox.server()
    before = [server.create(name="kept"), server.create(name="stopped-later")]
    server.until_running(before, 60)
    made = sandbox.ended("backup", "copy.db", NOVITAI_SECRET_KEY=SECRET_KEY)
    assert made.code == 0, made.err
    assert "Keep the two in different places" in made.out
    assert "2 instances" in made.out
    key = sandbox.folder / "copy.db.secret.key"
    assert key.read_text().strip() == SECRET_KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    after = server.create(name="bought-after")
    server.until_running([after], 60)
    refused = sandbox.ended("restore", "copy.db")
    assert (refused.code, "in use by another process" in refused.err) == (75, True)
    stop(server.process)

    restored = sandbox.ended("restore", "copy.db")
    assert restored.code == 0, restored.err
    assert len(list(sandbox.data.glob("novitai.db.before-*"))) == 1
    server = sandbox.server()
    assert set(server.statuses()) == set(before)
    assert account(server)["held"] is True
    until(lambda: account(server)["orphans"] == 1, 30, "the later purchase is an orphan")
    assert server.http.post(f"/api/instances/{before[1]}/stop").status_code == 202
    asked = sandbox.ended("doctor", "--json")
    found = findings(asked)
    assert asked.code == 1
    assert "restored" in found["account"]["found"]
    assert "doctor --confirm" in found["account"]["advice"]
    assert found["orphans"]["verdict"] == "warning"
    assert found["orphans"]["found"].endswith("belong to no record: 1")
    assert "bear our marker" in found["differences"]["found"]
    assert "bought-after" in found["differences"]["found"]
    assert emulator.call("GET", "/counts")["counts"].get("POST /gpu/instance/stop", 0) == 0
    assert server.statuses()[before[1]] == "stopping"

    confirmed = sandbox.ended("doctor", "--confirm")
    assert confirmed.code == 0, confirmed.err
    assert "confirmed" in confirmed.out
    assert account(server)["held"] is False
    until(lambda: server.statuses()[before[1]] == "stopped", 60, "the stop is carried out")
    assert server.statuses()[before[0]] == "running"
    assert emulator.create_calls() == 3
    events = server.http.get("/api/events", params={"limit": 100}).json()["events"]
    actors = [one.get("actor") for one in events if one["type"] == "account.changed"]
    assert {"system": "operator"} in actors
    again = sandbox.ended("doctor", "--confirm")
    assert (again.code, "Nothing is held" in again.err) == (1, True)


def test_a_restored_backup_is_confirmed_without_a_server(sandbox: Sandbox) -> None:
    """Before the server starts, the doctor reads and confirms in the file itself."""
    sandbox.emulator()
    stop(sandbox.server().process)
    assert sandbox.ended("backup", "copy.db", "--without-key").code == 0
    assert not (sandbox.folder / "copy.db.secret.key").exists()
    assert sandbox.ended("restore", "copy.db").code == 0
    found = findings(sandbox.ended("doctor", "--json"))
    assert found["account"]["verdict"] == "wrong"
    assert found["process"]["verdict"] == "warning"
    assert sandbox.ended("doctor", "--confirm").code == 0
    assert findings(sandbox.ended("doctor", "--json"))["account"]["verdict"] == "ok"
    assert account(sandbox.server())["held"] is False


def test_the_doctor_of_a_healthy_server(sandbox: Sandbox) -> None:
    """Every check is ok, in lines and as JSON; nothing that it prints is a secret."""
    sandbox.emulator()
    server = sandbox.server()
    server.until_running([server.create()], 60)
    told = sandbox.ended("doctor")
    assert told.code == 0, told.out
    names = [line[9:24].strip() for line in told.out.splitlines()]
    assert names == [
        "settings", "data folder", "disk", "database", "migrations", "secret key", "API keys",
        "webhook secret", "process", "queue", "account", "orphans", "Novita", "clock",
        "same account", "differences", "versions",
    ]  # fmt: skip
    others = [line for line in told.out.splitlines() if not line.startswith("ok ")]
    # The emulator's clock runs faster than the real one.
    assert [line[9:14] for line in others] in ([], ["clock"]), others
    client = sandbox.ended("doctor", NOVITAI_URL=server.url, NOVITAI_API_KEY=ADMIN_KEY)
    assert client.code == 0, client.out
    assert "ok       health" in client.out


def test_the_doctor_of_work_that_waits(sandbox: Sandbox) -> None:
    """A step that has been due for an hour is told, with the missing server."""
    emulator = sandbox.emulator()
    server = sandbox.server()
    emulator.fault(kind="call", path="/gpu/instance/create", status=503)
    server.create()
    stop(server.process)
    with closing(sqlite3.connect(sandbox.data / "novitai.db")) as connection:
        connection.execute("UPDATE operations SET next_step_at = next_step_at - 3600000")
        connection.commit()
    told = sandbox.ended("doctor", "--json")
    found = findings(told)
    assert told.code == 0
    assert (found["queue"]["verdict"], found["process"]["verdict"]) == ("warning", "warning")
    assert "has waited for " in found["queue"]["found"]
    assert found["queue"]["advice"] == "Start a worker."


@pytest.mark.parametrize(
    ("settings", "check", "words"),
    [
        ({"NOVITAI_RETENTION_DAY": "3"}, "settings", "did you mean NOVITAI_RETENTION_DAYS"),
        ({"NOVITA_API_KEY": ""}, "Novita", "NOVITA_API_KEY is not set"),
        ({"NOVITA_API_KEY": "sk-wrong"}, "Novita", "wrong or lacks rights"),
        ({"NOVITAI_UPSTREAM_URL": "http://127.0.0.1:9"}, "Novita", "be reached from here"),
        ({"NOVITAI_SECRET_KEY": "x" * 40}, "secret key", "NOVITAI_SECRET_KEY_PREVIOUS"),
        ({"NOVITAI_REDIS_URL": "redis://127.0.0.1:9"}, "Redis", "Each process limits by itself"),
        ({"NOVITAI_DATABASE_URL": "postgresql://a:b@127.0.0.1:9/c"}, "database", "cannot connect"),
    ],
)
def test_the_doctor_of_a_sick_server(
    sandbox: Sandbox, settings: dict[str, str], check: str, words: str
) -> None:
    """The finding and its advice name the cause, and the other checks go on."""
    process = sandbox.run("emulator", "--port", "0", "--api-key", sandbox.env["NOVITA_API_KEY"])
    sandbox.env["NOVITAI_UPSTREAM_URL"] = process.says(r"listening on (http://\S+)")[1]
    stop(sandbox.server().process)
    told = sandbox.ended("doctor", "--json", **settings)
    found = findings(told)[check]
    assert words in found["found"] + found.get("advice", "")
    assert found["verdict"] == ("warning" if check == "Redis" else "wrong")
    assert told.code == (0 if check == "Redis" else 1)


def test_the_doctor_of_a_damaged_file(sandbox: Sandbox) -> None:
    """A damaged database, a newer one, and files that others can read are told."""
    sandbox.emulator()
    sandbox.env["NOVITAI_SECRET_KEY"] = ""
    stop(sandbox.server().process)
    (sandbox.data / "secret.key").chmod(0o644)
    assert "chmod 600" in findings(sandbox.ended("doctor", "--json"))["data folder"]["advice"]
    (sandbox.data / "secret.key").unlink()
    assert "is missing" in findings(sandbox.ended("doctor", "--json"))["secret key"]["found"]
    file = sandbox.data / "novitai.db"
    file.write_bytes(b"no database" * 1000)
    told = sandbox.ended("doctor", "--json")
    assert told.code == 1
    assert "not an SQLite database" in findings(told)["database"]["found"]
    assert file.read_bytes() == b"no database" * 1000


def test_the_secret_key_of_a_file_is_rotated(sandbox: Sandbox) -> None:
    """The steps of the manual: a new secret.key, the old one as the previous one, then alone."""
    sandbox.emulator()
    sandbox.env["NOVITAI_SECRET_KEY"] = ""
    server = sandbox.server()
    server.until_running([server.create()], 60)
    texts = [
        sandbox.ended("keys", "create", "--name", name, "--scope", "read").out.strip()
        for name in ("used", "unused")
    ]
    signing = sandbox.ended("webhooks", "secret").out
    stop(server.process)
    file = sandbox.data / "secret.key"
    old = file.read_text().strip()
    file.write_text("a new secret key that is long enough\n")
    assert sandbox.ended("serve", "--port", "0").code == 78

    server = sandbox.ready(sandbox.run("serve", "--port", "0", NOVITAI_SECRET_KEY_PREVIOUS=old))
    until(lambda: "secret_key_rotated" in server.process.err, 30, "the values are resealed")
    used = {"Authorization": f"Bearer {texts[0]}"}
    assert server.http.get("/api/instances", headers=used).status_code == 200
    found = findings(sandbox.ended("doctor", "--json", NOVITAI_SECRET_KEY_PREVIOUS=old))
    assert found["secret key"]["verdict"] == "ok"
    assert found["API keys"]["verdict"] == "warning"
    assert "unused" in found["API keys"]["found"]
    stop(server.process)

    server = sandbox.server()
    assert server.http.get("/api/instances", headers=used).status_code == 200
    unused = {"Authorization": f"Bearer {texts[1]}"}
    assert server.http.get("/api/instances", headers=unused).status_code == 401
    assert sandbox.ended("webhooks", "secret").out == signing
    assert findings(sandbox.ended("doctor", "--json"))["API keys"]["verdict"] == "wrong"


@pytest.fixture
def old_release(tmp_path: Path) -> Path:
    """Unpack the wheel of the release before."""
    return unpacked(tmp_path)


def test_the_release_before_works_on_the_new_schema(sandbox: Sandbox, old_release: Path) -> None:
    """After an upgrade and a way back, both releases see the same records; nothing is lost."""
    sandbox.emulator()
    old = sandbox.ready(run_release(sandbox, old_release, "serve", "--port", "0"))
    first = old.create(name="first")
    old.until_running([first], 60)
    stop(old.process)
    told = sandbox.ended("migrate", "--check")
    assert "at 0019; to do:" in told.out
    assert "0020 " in told.out
    new = sandbox.server()
    second = new.create(name="second")
    new.until_running([first, second], 60)
    stop(new.process)
    old = sandbox.ready(run_release(sandbox, old_release, "serve", "--port", "0"))
    assert old.http.get("/openapi.json").json()["info"]["version"] == "0.1.0"
    third = old.create(name="third")
    old.until_running([first, second, third], 60)
    assert old.http.post(f"/api/instances/{second}/stop").status_code == 202
    until(lambda: old.statuses()[second] == "stopped", 60, "the old release stops it")
    stop(old.process)
    assert set(sandbox.server().statuses()) == {first, second, third}
