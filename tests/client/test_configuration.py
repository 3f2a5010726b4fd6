# SPDX-License-Identifier: Apache-2.0
"""Which server is called, and with which key."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

import novitai_client
from novitai_client import ConfigurationError, Novitai
from novitai_client.configuration import target
from tests.docs.pages import ROOT

SOURCE = Path(novitai_client.__file__).parent
HERE, THERE = "http://here.test:8080", "https://there.test/novitai"


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two profiles, and no variable in the environment."""
    for name in ("NOVITAI_URL", "NOVITAI_API_KEY", "NOVITAI_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")  # the folder differs elsewhere
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "novitai"
    folder.mkdir()
    (folder / "config.toml").write_text(
        f'[profiles.default]\nurl = "{HERE}"\nkey = "nvt_default"\n'
        f'[profiles.other]\nurl = "{THERE}/"\nkey = "nvt_other"\n'
    )


def found(**given: str) -> tuple[str, str]:
    """Return the URL and the key that are used."""
    server = target(**given)
    return server.url, server.key


def test_arguments_go_before_the_environment_and_that_before_the_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The order is argument, environment, profile."""
    assert found() == (HERE, "nvt_default")
    assert found(profile="other") == (THERE, "nvt_other")
    monkeypatch.setenv("NOVITAI_PROFILE", "other")
    assert found() == (THERE, "nvt_other")
    monkeypatch.setenv("NOVITAI_URL", "http://env.test")
    monkeypatch.setenv("NOVITAI_API_KEY", "nvt_env\n")
    assert found() == ("http://env.test", "nvt_env")
    assert found(profile="default") == (HERE, "nvt_default")
    assert found(url=HERE, key="nvt_x") == (HERE, "nvt_x")


def test_the_key_of_a_profile_goes_to_its_server_only() -> None:
    """A URL from elsewhere does not get it."""
    with pytest.raises(ConfigurationError, match="another server") as caught:
        found(url="https://elsewhere.test")
    assert "nvt_" not in str(caught.value)
    assert found(url=f"{HERE}/") == (HERE, "nvt_default")


@pytest.mark.parametrize(
    "url", ["ftp://x", "novitai.test", "http://user:pw@x", "http://x?q=1", "http://", "http://x:0x"]
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """The error does not repeat it, because it may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        found(url=url, key="nvt_x")
    assert "pw" not in str(caught.value)


def test_an_unknown_profile_and_a_missing_key_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error says what to do, and no key is shown."""
    with pytest.raises(ConfigurationError, match="no profile 'prod'"):
        found(profile="prod")
    with pytest.raises(ConfigurationError, match="characters"):
        found(url=HERE, key="nvt_\u00e9\nX: y")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="NOVITAI_URL"):
        Novitai()
    with pytest.raises(ConfigurationError, match="NOVITAI_API_KEY"):
        Novitai(HERE)
    assert "nvt_x" not in repr(target(HERE, "nvt_x"))


def test_the_client_needs_httpx2_and_pydantic_alone() -> None:
    """Nothing else is declared or imported, and nothing of the server."""
    project = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
    named = {one.partition(">=")[0] for one in project["dependencies"]}
    assert named == {"httpx2", "pydantic"}
    imported = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level
                imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names == {*named, "novitai_client"}
    assert (SOURCE / "py.typed").exists()
    assert project["version"] == novitai_client.sending.VERSION
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == server["requires-python"]


def test_a_user_without_a_home_folder_has_no_profiles(homeless: None) -> None:
    """The URL and the key suffice; without them the error says so."""
    assert found(url=HERE, key="nvt_own") == (HERE, "nvt_own")
    with pytest.raises(ConfigurationError, match="set NOVITAI_URL and NOVITAI_API_KEY"):
        found()
