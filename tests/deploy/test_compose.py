# SPDX-License-Identifier: Apache-2.0
"""The compose files are valid, harden every container, and use commands and settings that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from novitai.cli.main import app
from novitai.settings import Settings
from tests.docs.pages import ROOT
from tests.services import unavailable

DEPLOY = ROOT / "deploy"
ONE = DEPLOY / "compose.yml"
MANY = DEPLOY / "compose.postgresql.yml"
FILES = pytest.mark.parametrize("path", [ONE, MANY], ids=lambda path: path.name)
SECRETS = {"POSTGRES_PASSWORD": "a-password", "NOVITAI_SECRET_KEY": "k" * 32}
STOP_WITHIN = 10
"""Seconds from SIGTERM to the end of novitai, rounded up."""


def services(path: Path) -> dict[str, dict[str, Any]]:
    """Return the services of a compose file, with merged anchors."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    return found


def own(path: Path) -> dict[str, dict[str, Any]]:
    """Return the services that run novitai's image."""
    return {
        name: one for name, one in services(path).items() if one["image"] == "localhost/novitai"
    }


def environment_names() -> set[str]:
    """Return the names of all settings."""
    return {
        "NOVITA_API_KEY" if name == "novita_api_key" else f"NOVITAI_{name.upper()}"
        for name in Settings.model_fields
    }


def seconds(duration: str) -> int:
    """Read a duration of a compose file."""
    match = re.fullmatch(r"(\d+)s", duration)
    assert match is not None
    return int(match[1])


@FILES
def test_compose_takes_the_file(path: Path, tmp_path: Path) -> None:
    """`docker-compose config` passes with the secrets, and refuses the file without them."""
    program = shutil.which("docker-compose")
    if program is None:
        unavailable("docker-compose is not on the PATH (Debian's package: docker-compose)")
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    shutil.copy(DEPLOY / "env.example", tmp_path / ".env")
    env = {"PATH": os.environ["PATH"]}
    command = [program, "--file", str(copy), "config", "--quiet"]
    given = {**env, **SECRETS, "PUBLIC_HOST": "novitai.example.com"}
    checked = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    if path == MANY:
        without = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert without.returncode != 0
        assert "deploy/.env" in without.stderr


@FILES
def test_every_container_is_hardened(path: Path) -> None:
    """No root file system can be written, and no process gets more rights than it needs."""
    for name, one in services(path).items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["logging"]["options"]["max-size"], name
        assert set(one.get("cap_add", [])) <= {"NET_BIND_SERVICE"}, name
        assert one["restart"] == ("no" if name == "migrate" else "unless-stopped"), name


@FILES
def test_no_secret_is_in_the_file(path: Path) -> None:
    """Secrets come from deploy/.env, which git ignores."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?:PASSWORD|SECRET_KEY|API_KEY)\w*: (?!\$\{\w+:\?)", text)
    assert not re.search(r"://[^/\s]*:[^/\s]*@", text)
    assert all(one["env_file"] == ".env" for one in own(path).values())
    ignored = subprocess.run(
        ["git", "check-ignore", "deploy/.env"], cwd=ROOT, capture_output=True, check=False
    )
    assert ignored.returncode == 0


@FILES
def test_novitai_has_time_to_stop(path: Path) -> None:
    """The engine waits longer than novitai takes, and so does the proxy for its requests."""
    for name, one in own(path).items():
        assert seconds(one["stop_grace_period"]) > STOP_WITHIN, name
    if path == MANY:
        assert seconds(services(path)["proxy"]["stop_grace_period"]) > 30


@FILES
def test_every_command_and_setting_exists(path: Path) -> None:
    """Each command and option of novitai, and each of its variables, is one of the code."""
    group: Any = typer.main.get_command(app)
    for one in own(path).values():
        name, *options = one.get("command", ["serve"])
        known = {option for each in group.commands[name].params for option in each.opts}
        assert {option for option in options if option.startswith("--")} <= known
        named = {name for name in one.get("environment", {}) if name.startswith("NOVITA")}
        assert named <= environment_names()


def test_every_setting_of_the_example_exists() -> None:
    """Each variable of env.example is a setting of novitai or is read by a compose file."""
    text = (DEPLOY / "env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))
    read = set(re.findall(r"\$\{(\w+):\?", MANY.read_text(encoding="utf-8")))
    assert {name for name in named if name.startswith("NOVITA")} <= environment_names()
    assert named - environment_names() <= read
    assert read <= named


def test_one_process_listens_on_the_loopback_of_the_machine() -> None:
    """The port of the single process is not published to other machines."""
    assert services(ONE)["novitai"]["ports"] == ["127.0.0.1:8080:8080"]


def test_many_processes_are_as_documented() -> None:
    """There are 2 API processes and 3 workers, each checked, and only the proxy is published."""
    found = services(MANY)
    assert found["api"]["deploy"]["replicas"] == 2
    assert found["worker"]["deploy"]["replicas"] == 3
    assert [name for name, one in found.items() if "ports" in one] == ["proxy"]
    # The image of novitai has a health check of its own.
    assert {name for name, one in found.items() if "healthcheck" in one} == {
        *("proxy", "postgres", "redis", "migrate"),
    }
    assert found["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    for name in ("api", "worker"):
        migrated = found[name]["depends_on"]["migrate"]
        assert migrated == {"condition": "service_completed_successfully"}


def test_only_the_network_of_the_proxy_is_trusted() -> None:
    """NOVITAI_TRUSTED_PROXIES is the network that the proxy shares with novitai, and no other."""
    document = yaml.safe_load(MANY.read_text(encoding="utf-8"))
    front = document["networks"]["front"]
    assert front["internal"] is True
    trusted = document["services"]["api"]["environment"]["NOVITAI_TRUSTED_PROXIES"]
    assert [one["subnet"] for one in front["ipam"]["config"]] == [trusted]
    members = {name for name, one in document["services"].items() if "front" in one["networks"]}
    assert members == {"proxy", "api", "worker"}
    of_proxy, of_api = (set(document["services"][one]["networks"]) for one in ("proxy", "api"))
    assert of_proxy & of_api == {"front"}


def test_a_file_system_in_memory_is_its_users() -> None:
    """Docker forgets the mode of one when its container restarts, but not the owner."""
    for name, one in services(MANY).items():
        for place in one.get("tmpfs", []):
            path, _, options = place.partition(":")
            assert "mode=" not in options or "uid=" in options, f"{name}: {path}"
