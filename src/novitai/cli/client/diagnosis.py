# SPDX-License-Identifier: Apache-2.0
"""The checks of `novitai doctor` of the way to a server: why a command cannot reach it."""

from __future__ import annotations

import platform
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from novitai.cli.client import profiles
from novitai.cli.client.failures import CommandFailed, told
from novitai.cli.client.invocation import Invocation
from novitai.cli.client.profiles import ServerAccess, find
from novitai.cli.client.tables import ListColumn
from novitai.cli.client.wording import clean

if TYPE_CHECKING:
    from novitai_client.errors import NovitaiError

_SKEW_SECONDS: Final = 5.0
_LOCAL: Final = frozenset({"localhost", "::1"})


class CheckResult(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A check, its result, and what to do about it."""

    check: str
    verdict: CheckResult
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """Return it as an object of JSON."""
        told_ = {"check": self.check, "verdict": self.verdict.value, "found": self.found}
        return {**told_, "advice": self.advice} if self.advice else told_


def _style(one: Diagnosis) -> str:
    return {CheckResult.OK: "green", CheckResult.WARNING: "yellow", CheckResult.WRONG: "bold red"}[
        one.verdict
    ]


COLUMNS: Final[Sequence[ListColumn[Diagnosis]]] = (
    ListColumn("verdict", lambda one: f"{one.verdict.value:<7}", style=_style, whole=True),
    ListColumn("check", lambda one: f"{one.check:<14}", whole=True),
    ListColumn("found", lambda one: one.found + (f"  -> {one.advice}" if one.advice else "")),
)


def client_checks(invocation: Invocation, *, calls: bool) -> Iterator[Diagnosis]:
    """Check this machine's programs, and with `calls` the server that commands call."""
    yield _versions()
    if not calls:
        return
    yield _ssh_client()
    yield _configuration()
    server = _server(invocation)
    if isinstance(server, Diagnosis):
        yield server
        return
    yield Diagnosis("server", CheckResult.OK, str(server))
    yield from _reachable(invocation, server)


def _versions() -> Diagnosis:
    found = (
        f"novitai {version('novitai')}, novitai-client {version('novitai-client')}, "
        f"Python {platform.python_version()}"
    )
    same = version("novitai") == version("novitai-client")
    advice = "" if same else "Install the same version of both."
    return Diagnosis("versions", CheckResult.OK if same else CheckResult.WARNING, found, advice)


def _ssh_client() -> Diagnosis:
    program = shutil.which("ssh")
    if program is None:
        return Diagnosis(
            "ssh client",
            CheckResult.WARNING,
            "there is none on the PATH",
            "`novitai ssh` needs OpenSSH: install openssh-client.",
        )
    try:
        ran = subprocess.run(  # noqa: S603 - a fixed argument of the program on the PATH
            [program, "-V"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Diagnosis(
            "ssh client", CheckResult.WARNING, f"{program}: {error}", "Install OpenSSH."
        )
    said = (ran.stderr or ran.stdout).strip()
    return Diagnosis("ssh client", CheckResult.OK, clean(said or program))


def _configuration() -> Diagnosis:
    from novitai_client.configuration import config_file

    file = config_file()
    try:
        if not file.exists():
            return Diagnosis(
                "configuration",
                CheckResult.OK,
                f"{file} does not exist",
                "`novitai login URL` makes it, unless NOVITAI_URL and NOVITAI_API_KEY are set.",
            )
        profiles.require_private(file)
        names = ", ".join(profiles.names()) or "none"
    except OSError as error:
        return Diagnosis("configuration", CheckResult.WRONG, f"{file}: {error.strerror}", "")
    except CommandFailed as error:
        return Diagnosis("configuration", CheckResult.WRONG, error.message, error.advice)
    return Diagnosis("configuration", CheckResult.OK, f"{file}, only yours; profiles: {names}")


def _server(invocation: Invocation) -> ServerAccess | Diagnosis:
    from novitai_client.errors import NovitaiError

    try:
        return find(invocation.url, invocation.profile)
    except CommandFailed as error:
        return Diagnosis("server", CheckResult.WRONG, error.message, error.advice)
    except NovitaiError as error:
        return Diagnosis("server", CheckResult.WRONG, str(error), told(error).advice)


def _reachable(invocation: Invocation, server: ServerAccess) -> Iterator[Diagnosis]:
    from novitai_client import Novitai
    from novitai_client.errors import NovitaiError

    client: Novitai = invocation.client
    began = time.monotonic()
    try:
        answer = client.request("GET", "/health/live")
        took = time.monotonic() - began
    except NovitaiError as error:
        yield _unreachable(server, error)
        return
    if not isinstance(_status(answer.content), str):
        yield Diagnosis(
            "reachable",
            CheckResult.WRONG,
            "something answers there, and it is not novitai",
            f"Check the address: {server.url}",
        )
        return
    yield Diagnosis("reachable", CheckResult.OK, f"it answers in {took * 1000:.0f} ms")
    yield _tls(server)
    yield _clock(answer.headers.get("Date"))
    yield from _key(client)
    yield _server_version(client)
    yield from _health(client)


def _status(content: bytes) -> object:
    import json

    try:
        shown = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return shown.get("status") if isinstance(shown, dict) else None


def _unreachable(server: ServerAccess, error: NovitaiError) -> Diagnosis:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Diagnosis(
                "TLS",
                CheckResult.WRONG,
                clean(cause.verify_message or cause),
                "Have the certificate renewed, or trust its issuer with SSL_CERT_FILE.",
            )
        cause = cause.__cause__ or cause.__context__
    host = urlsplit(server.url).hostname
    return Diagnosis(
        "reachable",
        CheckResult.WRONG,
        clean(error),
        f"Does the server run, and can {host} be reached from here (network, VPN, proxy)?",
    )


def _tls(server: ServerAccess) -> Diagnosis:
    parts = urlsplit(server.url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return Diagnosis("TLS", CheckResult.OK, "the certificate is valid")
    if host in _LOCAL or host.startswith("127."):
        return Diagnosis("TLS", CheckResult.OK, "not used on this machine")
    return Diagnosis(
        "TLS",
        CheckResult.WARNING,
        "the key is sent unencrypted",
        "Put a proxy with TLS in front of the server, and use its https:// address.",
    )


def _clock(date: str | None) -> Diagnosis:
    try:
        theirs = None if date is None else parsedate_to_datetime(date)
    except ValueError:
        theirs = None
    if theirs is None:
        return Diagnosis("clock", CheckResult.WARNING, "the server sends no date", "")
    skew = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds()
    # A date has whole seconds.
    if -_SKEW_SECONDS <= skew <= _SKEW_SECONDS + 1:
        return Diagnosis("clock", CheckResult.OK, "it agrees with the server's")
    way = "ahead of" if skew > 0 else "behind"
    return Diagnosis(
        "clock",
        CheckResult.WARNING,
        f"this machine is {abs(skew):.0f} s {way} the server",
        "Switch on time synchronization (NTP) on both.",
    )


def _key(client: Any) -> Iterator[Diagnosis]:
    from novitai_client.errors import NovitaiError

    try:
        key = client.keys.current()
    except NovitaiError as error:
        yield Diagnosis("key", CheckResult.WRONG, str(error), told(error).advice)
        return
    yield Diagnosis("key", CheckResult.OK, f"{key.name} ({key.id})")
    scopes = ", ".join(key.scopes)
    if set(key.scopes) <= {"read"}:
        yield Diagnosis(
            "scopes",
            CheckResult.WARNING,
            f"{scopes}: it can look, and change nothing",
            "Ask for a key with the scope `write` to create and stop instances.",
        )
    else:
        yield Diagnosis("scopes", CheckResult.OK, scopes)
    if key.expires_at is not None:
        left = (key.expires_at - datetime.now(UTC)).total_seconds()
        if left < 7 * 86400:
            yield Diagnosis(
                "expiry",
                CheckResult.WARNING,
                f"the key expires in {max(left, 0) / 86400:.1f} days",
                "Ask for another one, and keep it with `novitai login`.",
            )


def _server_version(client: Any) -> Diagnosis:
    from novitai_client.errors import NovitaiError

    try:
        document = client.request("GET", "/openapi.json").json()
        theirs = str(document["info"]["version"])
    except (NovitaiError, LookupError, TypeError):
        return Diagnosis("server version", CheckResult.WARNING, "it is not told", "")
    ours = version("novitai")
    if theirs == ours:
        return Diagnosis("server version", CheckResult.OK, f"{clean(theirs)}, as here")
    return Diagnosis(
        "server version",
        CheckResult.WARNING,
        f"the server has {clean(theirs)}, and this is {ours}",
        "Install the version of the server, if a command behaves oddly.",
    )


def _health(client: Any) -> Iterator[Diagnosis]:
    from novitai_client.errors import NovitaiError

    try:
        health = client.server.health()
    except NovitaiError as error:
        yield Diagnosis("health", CheckResult.WARNING, clean(error), told(error).advice)
        return
    if health.status == "healthy":
        yield Diagnosis("health", CheckResult.OK, "the server, its queue and Novita work")
        return
    services = health.services
    states = {
        "Novita": services.novita_api,
        "the job queue": services.job_queue,
        "the caches": services.cache,
    }
    down = [name for name, state in states.items() if state != "up"]
    yield Diagnosis(
        "health",
        CheckResult.WRONG,
        f"down: {', '.join(down) or 'the database'}",
        "Look at the log of the server.",
    )
