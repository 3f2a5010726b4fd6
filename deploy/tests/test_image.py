# SPDX-License-Identifier: Apache-2.0
"""The image runs without rights, writes to /data alone, serves, is watched, and stops."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.tests.image import Container, Image
from tests.blackbox.harness import ADMIN_KEY, REQUEST, until
from tests.docs.pages import page

COMPILERS = re.compile(r"(.*-)?(cc|gcc|g\+\+|c\+\+|clang|tcc|as|ld|rustc|go)(-[\d.]+)?")
HERE = "http://127.0.0.1:8080"
OUTSIDE = "http://10.88.0.1:8080"
"""The server, as another machine sees it."""


@pytest.fixture
def http(server: Container) -> Iterator[httpx2.Client]:
    """Call the server through the network of its container."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with server.network():
        subprocess.run(["ip", "address", "replace", "10.88.0.1/32", "dev", "lo"], check=True)
        with httpx2.Client(headers=headers, trust_env=False, timeout=60) as client:
            yield client


def test_the_image_says_how_it_runs(image: Image) -> None:
    """The user, the volume, the port and the signal are those that the documentation states."""
    config = image.config
    assert config["User"] == "10001:10001"
    assert list(config["Volumes"]) == ["/data"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["novitai"]
    assert config["Cmd"] == ["serve", "--host", "0.0.0.0"]  # noqa: S104 - the network is its own


def test_no_compiler_is_in_the_image(image: Image) -> None:
    """No compiler, assembler or linker is in it, and no tool that installed the packages."""
    programs = {
        path.name
        for folder in ("usr/bin", "usr/local/bin", "usr/sbin", "opt/novitai/bin")
        for path in image.root.glob(f"{folder}/*")
    }
    assert "python3" in programs
    assert not {name for name in programs if COMPILERS.fullmatch(name)}
    assert not {"uv", "make"} & programs
    assert not (image.root / "build").exists()


def test_all_sources_are_compiled(image: Image) -> None:
    """Each module has its compiled file, because none can be written on a read-only root."""
    modules = list((image.root / "opt/novitai").glob("lib/*/site-packages/novitai/**/*.py"))
    assert len(modules) > 200
    assert not [one for one in modules if not list(one.parent.glob(f"__pycache__/{one.stem}.*"))]


def test_the_server_has_no_rights(server: Container) -> None:
    """Process 1 is novitai as the image's user, without any capability."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8").splitlines()
    )
    assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
    assert status["NSpid"].split()[-1] == "1"
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}


def test_the_dashboard_is_served(http: httpx2.Client) -> None:
    """The page and the files that it names arrive."""
    page = http.get(HERE)
    assert page.status_code == 200
    files = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text)
    assert files
    assert all(http.get(f"{HERE}{file}").status_code == 200 for file in files)


def test_other_machines_need_https(http: httpx2.Client) -> None:
    """A probe from another machine is answered, and a plain request only through the proxy."""
    assert http.get(f"{OUTSIDE}/health/live").status_code == 200
    assert http.get(f"{OUTSIDE}/api/instances").status_code != 200
    secure = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    assert http.get(f"{OUTSIDE}/api/instances", headers=secure).status_code == 200


def test_an_instance_is_created(http: httpx2.Client) -> None:
    """A create runs against the emulator that is in the image."""
    answers = []

    def accepted() -> bool:
        # Until the server has noticed that the emulator, which started later, answers.
        answers.append(http.post(f"{HERE}/api/instances", json=REQUEST))
        return answers[-1].status_code == 201

    until(accepted, 60, "the create is accepted", every=1)
    address = f"{HERE}/api/instances/{answers[-1].json()['instanceId']}"
    until(lambda: http.get(address).json()["status"] == "running", 60, "the instance runs")


def test_only_the_data_folder_can_be_written(server: Container) -> None:
    """Every file system of the container but /data and the kernel's own is read-only."""
    mounts = server.run("cat", "/proc/self/mounts").stdout.splitlines()
    writable = {line.split()[1] for line in mounts if line.split()[3].split(",")[0] == "rw"}
    assert {one for one in writable if not re.match(r"/(dev|proc)(/|$)", one)} == {"/data"}
    for place in ("/", "/tmp", "/opt/novitai", "/home", "/var/tmp"):  # noqa: S108 - not used
        assert server.run("touch", f"{place}/new").returncode != 0, place
    kept = {path.name for path in server.data.iterdir()}
    assert {"novitai.db", "novitai.db-wal", "novitai.db.sock", "secret.key"} <= kept
    assert all((path.stat().st_mode & 0o077) == 0 for path in server.data.glob("secret.key"))


def test_the_commands_of_the_guide_run_beside_the_server(server: Container) -> None:
    """Each command that the guide gives to `docker compose exec` works through the socket."""
    guide = page("how-to/run-in-a-container.md")
    commands = re.findall(r"^ *\$ docker compose \S+ \S+ exec novitai (.+)$", guide, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        done = server.run(*shlex.split(command))
        # A finding, such as a port that is in use, is no failure of the command.
        allowed = {0, 1} if command == "novitai doctor" else {0}
        assert done.returncode in allowed, f"{command}: {done.stderr}"


def test_a_user_without_a_home_folder(server: Container) -> None:
    """The user of the image has none, as a user that systemd makes: it is told, or not needed."""
    bare = ("env", "--unset=HOME", "--unset=NOVITAI_DATA_DIR")
    told = server.run(*bare, "novitai", "migrate", "--check")
    assert told.returncode == 2
    assert told.stderr.startswith("novitai: NOVITAI_DATA_DIR: must name a folder")
    url = "NOVITAI_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none"
    unreached = server.run(*bare, url, "novitai", "migrate", "--check")
    assert "127.0.0.1:1" in unreached.stderr
    assert "Traceback" not in unreached.stderr


def test_process_1_reaps_orphans(server: Container) -> None:
    """A process whose parent has ended is reaped when it ends."""
    assert server.run("sh", "-c", "sleep 0.2 & exec true").returncode == 0
    until(
        lambda: "sleep" not in server.run("sh", "-c", "cat /proc/[0-9]*/comm").stdout,
        10,
        "the orphan is reaped",
    )
    assert not server.zombies()


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_missing_secret_key_is_refused(server: Container, command: str) -> None:
    """On PostgreSQL, the commands of the image make no key of their own."""
    refused = server.run(
        *("novitai", command, "--port", "0"),
        NOVITAI_DATABASE_URL="postgresql://novitai@127.0.0.1/novitai",
    )
    assert refused.returncode == 2
    assert "NOVITAI_SECRET_KEY" in refused.stderr


def test_the_health_check_notices_a_server_that_hangs_or_has_ended(server: Container) -> None:
    """The command of HEALTHCHECK fails with 1 while nothing answers, and passes again after."""
    assert server.health() == 0
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert server.health() == 1
    finally:
        os.kill(server.pid, signal.SIGCONT)
    until(lambda: server.health() == 0, 10, "the server answers again")


def test_the_server_stops_and_refuses_data_without_its_key(image: Image, tmp_path: Path) -> None:
    """SIGTERM ends it with 0 within 10 s; its database is refused without its secret key."""
    data = tmp_path / "data"
    first = Container(image, data)
    try:
        until(lambda: first.code is not None or first.health() == 0, 60, "the server is healthy")
        assert first.stop(within=10) == 0, first.output
        (data / "secret.key").unlink()
        second = Container(image, data)
        try:
            until(lambda: second.code is not None, 30, "the second start is refused")
            assert second.code == 78, second.output
        finally:
            second.close()
    finally:
        first.close()
