# SPDX-License-Identifier: Apache-2.0
"""Which server to call, and with which key: the one place that reads and writes the profiles."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from novitai.cli.client.failures import UsageFailed
from novitai.cli.client.wording import clean

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """A server, the key for it, and where they were found.

    Attributes:
        origin: For people: `profile prod`, `NOVITAI_URL`, `--url`.
        profile: The name of the profile, if its key or URL is used.
    """

    url: str
    key: str = field(repr=False)
    origin: str
    profile: str | None = None

    def __str__(self) -> str:
        return f"{self.url} ({self.origin})"


def find(url: str | None, profile: str | None) -> ServerAccess:
    """Find the server and the key: options first, then the environment, then the profile.

    Raises:
        UsageFailed: other users can read the file with the keys.
        novitai_client.ConfigurationError: nothing is known, or the file is broken.
    """
    from novitai_client.configuration import config_file, target

    env_url = None if profile else os.environ.get("NOVITAI_URL") or None
    env_key = None if profile else os.environ.get("NOVITAI_API_KEY") or None
    stored = not ((url or env_url) and env_key)
    if stored:
        require_private(config_file())
    found = target(url=url, profile=profile)
    name = profile_name(profile) if stored else None
    parts = [
        "--url" if url else "NOVITAI_URL" if env_url else "",
        f"profile {name}" if name else "",
    ]
    return ServerAccess(found.url, found.key, ", ".join(filter(None, parts)), name)


def profile_name(profile: str | None) -> str:
    """Return the name of the profile to use."""
    from novitai_client.configuration import DEFAULT_PROFILE

    return profile or os.environ.get("NOVITAI_PROFILE") or DEFAULT_PROFILE


def stored_url(profile: str) -> str | None:
    """Return the server of a profile; None if there is no such profile or it has none."""
    url = _section(_read(), profile).get("url")
    return url if isinstance(url, str) else None


def require_private(file: Path) -> None:
    """Refuse a file with keys that other users can read.

    Raises:
        UsageFailed: they can.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError):
        mode = file.stat().st_mode
        if mode & _OTHERS:
            raise UsageFailed(
                f"{file} holds API keys, and other users can open it "
                f"(mode {stat.S_IMODE(mode):04o})",
                f"chmod 600 '{file}'",
            )


def keep(profile: str, url: str, key: str) -> Path:
    """Write a profile; the rest of the file stays as it is. Return the path of the file.

    Raises:
        UsageFailed: the file is broken or cannot be written.
    """
    import tomlkit

    document = _read()
    profiles = document.get("profiles")
    if not isinstance(profiles, dict):
        document.pop("profiles", None)
        profiles = document["profiles"] = tomlkit.table(is_super_table=True)
    section = profiles.get(profile)
    if not isinstance(section, dict):
        section = profiles[profile] = tomlkit.table()
    section["url"], section["key"] = url, key
    return _write(document)


def forget(profile: str) -> bool:
    """Remove a profile; return whether there was one.

    Raises:
        UsageFailed: the file is broken or cannot be written.
    """
    document = _read()
    profiles = document.get("profiles")
    if not isinstance(profiles, dict) or profile not in profiles:
        return False
    del profiles[profile]
    _write(document)
    return True


def _section(document: TOMLDocument, profile: str) -> dict[str, object]:
    profiles = document.get("profiles")
    section = profiles.get(profile) if isinstance(profiles, dict) else None
    return section if isinstance(section, dict) else {}


def _read() -> TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from novitai_client.configuration import config_file

    file = config_file()
    try:
        return tomlkit.parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, ValueError, TOMLKitError) as error:
        raise UsageFailed(
            f"{file} cannot be read: {error}", "Mend the file, or move it away."
        ) from None


def _write(document: TOMLDocument) -> Path:
    """Replace the file at once, readable by its owner only; a link to it stays a link."""
    from novitai_client.configuration import config_file

    shown = config_file()
    file = shown.resolve()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file made by mkstemp has the mode 0600 from the start.
        number, name = tempfile.mkstemp(dir=file.parent, prefix=".config-")
        try:
            with os.fdopen(number, "w", encoding="utf-8") as stream:
                stream.write(document.as_string())
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(file)
        except BaseException:  # no file is left behind, even by an interrupt
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise UsageFailed(f"{shown} cannot be written: {error.strerror}") from None
    return shown


def names() -> list[str]:
    """Return the names of all profiles.

    Raises:
        UsageFailed: the file is broken.
    """
    profiles = _read().get("profiles")
    return [clean(name) for name in profiles] if isinstance(profiles, dict) else []
