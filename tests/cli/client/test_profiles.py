# SPDX-License-Identifier: Apache-2.0
"""Which server is called with which key, and how the file with the profiles is treated."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from novitai.cli.client import profiles
from novitai.cli.client.failures import UsageFailed
from novitai_client.configuration import config_file
from novitai_client.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with two profiles, and an environment without the names of clients."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("NOVITAI_URL", "NOVITAI_API_KEY", "NOVITAI_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "novitai/config.toml"
    file.parent.mkdir()
    file.write_text(
        '[profiles.default]\nurl = "http://default.test"\nkey = "nvt_default"\n'
        '[profiles.prod]\nurl = "https://prod.test"\nkey = "nvt_prod"\n'
    )
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("url", "profile", "env", "expected"),
    [
        (None, None, {}, ("http://default.test", "nvt_default", "profile default")),
        (None, "prod", {}, ("https://prod.test", "nvt_prod", "profile prod")),
        (
            None,
            None,
            {"NOVITAI_PROFILE": "prod"},
            ("https://prod.test", "nvt_prod", "profile prod"),
        ),
        (
            None,
            "prod",
            {"NOVITAI_URL": "http://env.test", "NOVITAI_API_KEY": "nvt_env"},
            ("https://prod.test", "nvt_prod", "profile prod"),
        ),
        (
            None,
            None,
            {"NOVITAI_URL": "http://env.test", "NOVITAI_API_KEY": "nvt_env"},
            ("http://env.test", "nvt_env", "NOVITAI_URL"),
        ),
        (
            "http://flag.test",
            None,
            {"NOVITAI_URL": "http://env.test", "NOVITAI_API_KEY": "nvt_env"},
            ("http://flag.test", "nvt_env", "--url"),
        ),
        (
            "http://default.test",
            None,
            {},
            ("http://default.test", "nvt_default", "--url, profile default"),
        ),
    ],
)
def test_options_go_before_the_environment_and_that_before_profiles(
    url: str | None,
    profile: str | None,
    env: dict[str, str],
    expected: tuple[str, str, str],
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The origin says where the server was found."""
    assert file.exists()
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = profiles.find(url, profile)
    assert (found.url, found.key, found.origin) == expected
    assert found.key not in repr(found)
    assert str(found) == f"{expected[0]} ({expected[2]})"


def test_a_key_goes_to_its_own_server_only(file: Path) -> None:
    """The key of a profile is not sent to another server."""
    assert file.exists()
    with pytest.raises(ConfigurationError, match="for another server"):
        profiles.find("http://evil.test", None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_open_is_refused(
    mode: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy is named; without need for the file, its mode does not matter."""
    file.chmod(mode)
    with pytest.raises(UsageFailed, match=f"mode {mode:04o}") as caught:
        profiles.find(None, None)
    assert caught.value.advice == f"chmod 600 '{file}'"
    monkeypatch.setenv("NOVITAI_URL", "http://env.test")
    monkeypatch.setenv("NOVITAI_API_KEY", "nvt_env")
    assert profiles.find(None, None).url == "http://env.test"


@pytest.mark.parametrize("content", ["profiles = 3", "[profiles", "[profiles.default]\nurl = 3"])
def test_a_broken_file_is_an_error_in_words(content: str, file: Path) -> None:
    """Values of another kind and broken TOML are configuration errors."""
    file.write_text(content)
    with pytest.raises((ConfigurationError, UsageFailed)):
        profiles.find(None, None)


def test_only_the_named_profile_is_written(file: Path) -> None:
    """Comments, other profiles and a link to the file are kept; the mode is always 0600."""
    real = file.with_name("real.toml")
    file.rename(real)
    real.write_text(f"# a comment\n{real.read_text()}")
    real.chmod(0o666)
    file.symlink_to(real)
    before = real.read_text()
    assert profiles.keep("new one", "http://new.test", "nvt_new") == file
    assert real.read_text().startswith(before)
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert file.is_symlink()
    assert profiles.find(None, "new one").key == "nvt_new"
    assert profiles.names() == ["default", "prod", "new one"]
    assert profiles.forget("new one")
    assert not profiles.forget("new one")
    assert real.read_text().strip() == before.strip()
    assert {one.name for one in file.parent.iterdir()} == {"real.toml", "config.toml"}


def test_a_new_file_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is made, and the file has mode 0600 also if the umask allows more."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "deep"))
    before = os.umask(0)
    try:
        file = profiles.keep("default", "http://new.test", "nvt_new")
    finally:
        os.umask(before)
    assert file == tmp_path / "deep/novitai/config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_folder_is_that_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client finds the file without platformdirs where platformdirs says."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    folder = platformdirs.user_config_path("novitai", appauthor=False, roaming=True)
    assert config_file() == folder / "config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert config_file() == Unix("novitai").user_config_path / "config.toml"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert config_file() == MacOS("novitai").user_config_path / "config.toml"
