# SPDX-License-Identifier: Apache-2.0
"""Which server to call, and with which API key."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from novitai_client.errors import ConfigurationError

DEFAULT_PROFILE: Final = "default"


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the API key for it."""

    url: str
    key: str = field(repr=False)


def config_file() -> Path:
    """Return the path of the file with the profiles, in the platform's folder for settings.

    Raises:
        ConfigurationError: that folder lies in the home folder, and this user has none.
    """
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or "~/AppData/Roaming"
    else:
        usual = "~/Library/Application Support" if sys.platform == "darwin" else "~/.config"
        base = os.environ.get("XDG_CONFIG_HOME") or usual
    try:
        return Path(base).expanduser() / "novitai" / "config.toml"
    except RuntimeError:
        raise ConfigurationError(
            "profiles are kept in the home folder, and this user has none: set NOVITAI_URL and "
            "NOVITAI_API_KEY"
        ) from None


def target(url: str | None = None, key: str | None = None, profile: str | None = None) -> Target:
    """Find the server and the key: arguments first, then the environment, then the profile.

    A profile that is given as an argument goes before the environment. The key of a profile is
    never sent to a server that the profile does not name.

    Raises:
        ConfigurationError: the server or the key is missing or malformed, or the profile does not
            exist.
    """
    env = os.environ if profile is None else {}
    wanted_url = url or env.get("NOVITAI_URL") or None
    wanted_key = key or env.get("NOVITAI_API_KEY") or None
    if not (wanted_url and wanted_key):
        named = profile or os.environ.get("NOVITAI_PROFILE") or None
        stored = _profile(named or DEFAULT_PROFILE, required=named is not None)
        stored_url = stored.get("url")
        if wanted_key is None and wanted_url and stored_url:
            _require_same(wanted_url, stored_url, named or DEFAULT_PROFILE)
        wanted_url = wanted_url or stored_url
        wanted_key = wanted_key or stored.get("key")
    if not wanted_url:
        raise ConfigurationError(
            "no server is known: set NOVITAI_URL, keep a profile (`novitai login`), or pass url="
        )
    if not wanted_key:
        raise ConfigurationError(
            "no API key is known: set NOVITAI_API_KEY, keep a profile (`novitai login`), or pass "
            "key="
        )
    if not all("!" <= character <= "~" for character in wanted_key.strip()):
        raise ConfigurationError("the API key has characters that a key never has")
    return Target(_checked(wanted_url), wanted_key.strip())


def _profile(name: str, *, required: bool) -> Mapping[str, str]:
    file = config_file()
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {type(error).__name__}") from None
    profiles = content.get("profiles", {})
    found = profiles.get(name) if isinstance(profiles, dict) else None
    if found is None and required:
        raise ConfigurationError(f"{file} has no profile {name!r}")
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _require_same(url: str, stored: str, profile: str) -> None:
    if _checked(url) != _checked(stored):
        raise ConfigurationError(
            f"the profile {profile!r} is for another server than {_checked(url)}, so its key is "
            "not sent there: pass key=, or set NOVITAI_API_KEY"
        )


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError("the server must be a URL such as https://novitai.example.com")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("the URL of the server must have no user, query or fragment")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
