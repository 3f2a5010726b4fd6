# SPDX-License-Identifier: Apache-2.0
"""`novitai config`: the effective settings and their sources, without secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from novitai.cli.main import app, main

Show = Callable[..., str]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Show:
    """Run `config` in an empty directory and a clean environment."""
    for name in os.environ:
        if name.upper().startswith("NOVITA"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, dotenv: str = "", **environment: str) -> str:
        (tmp_path / ".env").write_text(dotenv)
        result = CliRunner().invoke(app, ["config", *arguments], env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_each_setting_has_its_value_and_its_source(show: Show) -> None:
    """The environment takes precedence over `.env`, and `.env` over the defaults."""
    said = show(
        dotenv="NOVITAI_RATE_LIMIT_BURST=7\nNOVITAI_RATE_LIMIT_PER_MINUTE=8\n",
        NOVITAI_RATE_LIMIT_PER_MINUTE="9",
    ).splitlines()
    assert "NOVITAI_RATE_LIMIT_PER_MINUTE=9  # environment" in said
    assert "NOVITAI_RATE_LIMIT_BURST=7  # .env" in said
    assert "NOVITAI_FAILED_INSTANCE_POLICY=stop  # default" in said
    assert "NOVITAI_WEBHOOK_ALLOW_PRIVATE=false  # default" in said


def test_an_empty_variable_is_none(show: Show) -> None:
    """An empty variable does not count as the source of the value."""
    assert "NOVITAI_REDIS_URL=  # default\n" in show(NOVITAI_REDIS_URL="")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("NOVITA_API_KEY", "sk-canary", "***"),
        ("NOVITAI_SECRET_KEY", "canary" * 8, "***"),
        ("NOVITAI_ADMIN_API_KEY", "canary" * 8, "***"),
        ("NOVITAI_WEBHOOK_SECRET", "whsec_canarycanarycanarycanarycanaryca", "***"),
        ("NOVITAI_DATABASE_URL", "postgresql://u:canary@h/d", "postgresql://u:***@h/d"),
        ("NOVITAI_DATABASE_URL", "postgresql://h/d?password=canary", "postgresql://h/d?***"),
        ("NOVITAI_DATABASE_URL", "sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("NOVITAI_REDIS_URL", "redis://:canary@h:6379/0", "redis://:***@h:6379/0"),
        ("NOVITAI_UPSTREAM_URL", "http://u:canary@h:1", "http://u:***@h:1"),
        ("NOVITAI_DATABASE_URL", "postgresql://u:can/ary@h/d", "postgresql://u:***@h/d"),
        ("NOVITAI_DATABASE_URL", "postgresql://u:x?canary#y@h/d", "postgresql://u:***@h/d"),
        ("NOVITAI_DATABASE_DIRECT_URL", "postgresql://u:a/canary@h", "postgresql://u:***@h"),
        ("NOVITAI_REDIS_URL", "redis://:a/canary#b@h:6379/0", "redis://:***@h:6379/0"),
        ("NOVITAI_UPSTREAM_PROXY", "http://u:a/canary@h:1", "http://u:***@h:1"),
        ("NOVITAI_UPSTREAM_PROXY", "http://u:canary@h:1", "http://u:***@h:1"),
        ("NOVITAI_UPSTREAM_PROXY", "socks5://u:canary@h:1", "socks5://u:***@h:1"),
    ],
)
def test_secrets_are_masked(show: Show, name: str, value: str, shown: str) -> None:
    """No secret is shown, neither as a value of its own nor inside a URL."""
    # A direct URL is refused beside an embedded database.
    said = show(**{"NOVITAI_DATABASE_URL": "postgresql://h/d", name: value})
    assert f"{name}={shown}  # environment\n" in said
    assert "canary" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOVITAI_REDIS_URL", "redis://:canary/x#y"),
        ("NOVITAI_REDIS_URL", "redis://:a@canary/b@h:1/0"),
        ("NOVITAI_DATABASE_URL", "postgresql://u:12/canary@h/d"),
        ("NOVITAI_DATABASE_URL", "postgresql://u:12?canary=1@h/d"),
        ("NOVITAI_DATABASE_URL", "postgresql://u:canary@h:x/d"),
        ("NOVITAI_DATABASE_DIRECT_URL", "redis://u:canary@h/d"),
        ("NOVITAI_UPSTREAM_URL", "http://u:canary@h:x"),
        ("NOVITAI_UPSTREAM_PROXY", "ftp://u:canary@h:1"),
        ("NOVITAI_PUBLIC_URL", "u:canary@h"),
    ],
)
def test_a_url_that_cannot_be_used_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    value: str,
) -> None:
    """The command exits with code 2 and names the setting, but shows no part of the URL."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["novitai", "config"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.err.startswith(f"novitai: {name}: ")
    assert "canary" not in said.out + said.err


def test_the_same_as_json(show: Show) -> None:
    """`--json` prints one object with the settings by name."""
    said = json.loads(show("--json", NOVITAI_TRUSTED_PROXIES="10.0.0.1,10.1.0.0/16"))
    assert said["NOVITAI_TRUSTED_PROXIES"] == {
        "value": "10.0.0.1/32,10.1.0.0/16",
        "source": "environment",
    }
