# SPDX-License-Identifier: Apache-2.0
"""Parses a PostgreSQL URL into the arguments of both drivers.

psycopg (through libpq) and asyncpg parse URLs differently: a parameter that one of them uses, the
other sends to the server, which rejects it. So neither driver gets the URL. Parameters have libpq's
names (https://www.postgresql.org/docs/current/libpq-connect.html); one that cannot be applied to
both drivers is refused.
"""

from __future__ import annotations

import configparser
import difflib
import getpass
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlencode

from novitai import urls
from novitai.urls import UrlError

_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

# The accepted parameters, and libpq's environment variable for each. asyncpg reads fewer of them.
_ENVIRONMENT: Final = MappingProxyType(
    {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
        "passfile": "PGPASSFILE",
        "service": "PGSERVICE",
        "application_name": "PGAPPNAME",
        "options": "PGOPTIONS",
        "connect_timeout": "PGCONNECT_TIMEOUT",
        "channel_binding": "PGCHANNELBINDING",
        "client_encoding": None,
        "target_session_attrs": "PGTARGETSESSIONATTRS",
        "load_balance_hosts": "PGLOADBALANCEHOSTS",
        "sslmode": "PGSSLMODE",
        "sslnegotiation": "PGSSLNEGOTIATION",
        "sslcert": "PGSSLCERT",
        "sslkey": "PGSSLKEY",
        "sslpassword": None,
        "sslrootcert": "PGSSLROOTCERT",
        "sslcrl": "PGSSLCRL",
        "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
        "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
        "gssencmode": "PGGSSENCMODE",
        "gsslib": "PGGSSLIB",
        "krbsrvname": "PGKRBSRVNAME",
        "keepalives": None,
        "keepalives_idle": None,
        "keepalives_interval": None,
        "keepalives_count": None,
        "tcp_user_timeout": None,
    }
)
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        # asyncpg does not support channel binding, so `require` cannot be applied to both.
        "channel_binding": ("disable", "prefer"),
        "client_encoding": ("utf8", "utf-8", "UTF8", "UTF-8"),
        "gssencmode": ("disable", "prefer"),
        "gsslib": ("gssapi", "sspi"),
        "keepalives": ("0", "1"),
        "load_balance_hosts": ("disable", "random"),
        "sslmode": _SSL_MODES,
        "sslnegotiation": ("postgres", "direct"),
        "ssl_min_protocol_version": _TLS_VERSIONS,
        "ssl_max_protocol_version": _TLS_VERSIONS,
        # The other values may select a server that is read-only.
        "target_session_attrs": ("any", "read-write", "primary"),
    }
)
_NUMBERS: Final = frozenset(
    {"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)
# asyncpg takes these only from a URL; they have the same meaning as in libpq.
_TLS: Final = (
    "sslmode",
    "sslnegotiation",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
_LONGEST_CONNECT_SECONDS: Final = 600
# An unreachable server is detected after 30 s.
_DEFAULTS: Final = MappingProxyType(
    {
        "connect_timeout": "10",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "4",
        "tcp_user_timeout": "30000",
    }
)
# The directories of the server's socket in libpq and Debian.
_SOCKET_FOLDERS: Final = ("/run/postgresql", "/var/run/postgresql", "/tmp")  # noqa: S108 - no file is made there
_PORT: Final = "5432"
_APPLICATION: Final = "novitai"
_SYSTEM: Final = "system"


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """All connection parameters; a driver reads nothing more from outside, except a passfile.

    `parameters` has libpq's names; `hosts` and `ports` have the same length.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    parameters: Mapping[str, str]

    @property
    def user(self) -> str:
        """The role to connect as."""
        return self.parameters["user"]

    @property
    def database(self) -> str:
        """The database's name."""
        return self.parameters["dbname"]

    @property
    def connect_seconds(self) -> float:
        """Seconds that connecting to one host may take."""
        return float(self.parameters["connect_timeout"])

    def secrets(self) -> list[str]:
        """Return the passwords, which must not be shown."""
        said = (self.parameters.get(name) for name in ("password", "sslpassword"))
        return [secret for secret in said if secret]

    def describe(self) -> str:
        """Describe the database without secrets."""
        places = ",".join(
            f"{f'[{host}]' if ':' in host else host}:{port}"
            for host, port in zip(self.hosts, self.ports, strict=True)
        )
        return f"PostgreSQL at {places}, database {self.database} as {self.user}"

    def for_psycopg(self) -> dict[str, Any]:
        """Return the keyword arguments of `psycopg.connect`."""
        return {
            "fallback_application_name": _APPLICATION,
            **self.parameters,
            "host": ",".join(self.hosts),
            "port": ",".join(map(str, self.ports)),
            "client_encoding": "UTF8",
        }

    def for_asyncpg(self, application_name: str) -> dict[str, object]:
        """Return the keyword arguments of `asyncpg.connect`.

        Args:
            application_name: Used if the URL has no `application_name`.
        """
        said = self.parameters
        settings = {"application_name": said.get("application_name", application_name)}
        if said.get("options"):
            settings["options"] = said["options"]
        arguments: dict[str, object] = {
            "host": list(self.hosts),
            "port": list(self.ports),
            "user": self.user,
            "database": self.database,
            "timeout": self.connect_seconds,
            "server_settings": settings,
        }
        for name in ("password", "passfile", "target_session_attrs", "gsslib", "krbsrvname"):
            if said.get(name):
                arguments[name] = said[name]
        tls = {name: said[name] for name in _TLS if said.get(name)}
        if tls.get("sslrootcert") == _SYSTEM:
            arguments["ssl"] = _system_tls(tls)
            arguments["direct_tls"] = tls.get("sslnegotiation") == "direct"
        elif tls:
            arguments["dsn"] = f"postgresql://?{urlencode(tls)}"
        return arguments


def check(url: str) -> None:
    """Check that both drivers can use a URL, without the environment.

    Raises:
        UrlError: the URL is invalid.
    """
    _read(url)


def resolve(url: str, environment: Mapping[str, str] | None = None) -> Target:
    """Complete a URL as libpq does: from its service, then the environment, then the defaults.

    Raises:
        UrlError: the URL is invalid.
    """
    environment = os.environ if environment is None else environment
    said = _read(url)
    service = said.pop("service", "") or environment.get("PGSERVICE", "")
    if service:
        said = {**_of_service(service, environment), **said}
    for name, variable in _ENVIRONMENT.items():
        if variable and name != "service" and name not in said and environment.get(variable):
            said[name] = environment[variable]
    said = {**_DEFAULTS, **said}
    _check_values(said)
    hosts, ports = _places(said.pop("host", ""), said.pop("port", ""))
    said["user"] = said.get("user") or _login()
    said["dbname"] = said.get("dbname") or said["user"]
    if len(hosts) > 1:
        # With several hosts, any of them may become the primary.
        said.setdefault("target_session_attrs", "read-write")
    if said.get("sslrootcert") == _SYSTEM:
        said.setdefault("sslmode", "verify-full")
    return Target(hosts, ports, MappingProxyType(said))


def _read(url: str) -> dict[str, str]:
    """Parse and decode the parameters in the URL itself."""
    parts = urls.split(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise UrlError("must begin with postgresql:// or postgres://")
    hosts, ports = _hosts_and_ports(parts.place)
    said = {
        "host": ",".join(_decoded(host) for host in hosts),
        "port": ports,
        "user": _decoded(parts.user or ""),
        "password": _decoded(parts.password or ""),
        "dbname": _decoded(parts.path.removeprefix("/")),
    }
    said = {name: value for name, value in said.items() if value}
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        # libpq accepts this for compatibility with JDBC URLs.
        if (name, value) == ("ssl", "true"):
            name, value = "sslmode", "require"
        if name not in _ENVIRONMENT:
            raise UrlError(_unknown(name, parts.query))
        # libpq reads + as a plus sign. But Python's urlencode writes a space as +, and `options`
        # usually contains spaces.
        said[name] = _decoded(value.replace("+", " ") if name == "options" else value)
    _check_values(said)
    if "service" not in said:
        _places(said.get("host", ""), said.get("port", ""))
    return said


def _hosts_and_ports(place: str) -> tuple[list[str], str]:
    hosts, ports = [], []
    for one in place.split(","):
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:\s]*))(?::([0-9]{0,5}))?", one)
        if match is None:
            raise UrlError(
                "cannot be parsed; write postgresql://USER:PASSWORD@HOST:5432/DATABASE, "
                "with special characters of the password percent-encoded"
            )
        hosts.append(match[1] or match[2] or "")
        ports.append(match[3] or "")
    return hosts, ",".join(ports) if any(ports) else ""


def _decoded(text: str) -> str:
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise UrlError("has percent-encoded characters that are not UTF-8") from None
    if "\0" in decoded:
        raise UrlError("contains a zero byte (%00)")
    return decoded


def _unknown(name: str, query: str) -> str:
    # If the query contains an @, it may be the rest of a password that contains a ?.
    shown = "" if "@" in query else urls.word(name)
    nearest = difflib.get_close_matches(name, _ENVIRONMENT, n=1) if shown else []
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"has a parameter{shown} that is not supported{hint}"


def _check_values(said: Mapping[str, str]) -> None:
    for name, choices in _CHOICES.items():
        if said.get(name) and said[name] not in choices:
            raise UrlError(f"must have one of these as its {name}: {', '.join(choices)}")
    for name in _NUMBERS:
        if said.get(name) and not re.fullmatch(r"[0-9]{1,9}", said[name]):
            raise UrlError(f"must have a whole number as its {name}")
    seconds = said.get("connect_timeout", "1")
    if not re.fullmatch(r"[0-9]{1,3}", seconds) or not 0 < int(seconds) <= _LONGEST_CONNECT_SECONDS:
        raise UrlError(
            "must have a whole number of seconds between 1 and "
            f"{_LONGEST_CONNECT_SECONDS} as its connect_timeout"
        )
    if said.get("sslrootcert") == _SYSTEM and said.get("sslmode", "verify-full") != "verify-full":
        raise UrlError("must have sslmode=verify-full with sslrootcert=system")
    if said.get("sslnegotiation") == "direct" and said.get("sslmode") not in _SSL_MODES[3:]:
        raise UrlError("must have sslmode=require or stronger with sslnegotiation=direct")


def _places(host: str, port: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Pair hosts and ports: one port for all, or one for each."""
    hosts, said = host.split(","), port.split(",")
    ports = [one or _PORT for one in (said * len(hosts) if len(said) == 1 else said)]
    if any(not re.fullmatch(r"[0-9]{1,5}", one) or not 0 < int(one) < 65_536 for one in ports):
        raise UrlError("must have a number between 1 and 65535 as its port")
    if len(ports) != len(hosts):
        raise UrlError("must have one port, or as many ports as hosts")
    return (
        tuple(one or _local(number) for one, number in zip(hosts, ports, strict=True)),
        tuple(map(int, ports)),
    )


def _local(port: str) -> str:
    """Return the directory of the local server's socket, or `localhost` if there is no socket."""
    for folder in _SOCKET_FOLDERS:
        if Path(folder, f".s.PGSQL.{port}").exists():
            return folder
    return "localhost"


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user ID has no name, as in many containers
        raise UrlError("must name a user: the user ID of this process has no name") from None


def _of_service(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Read a service from the user's or the system's service file."""
    home = environment.get("HOME")
    system = environment.get("PGSYSCONFDIR", "/etc/postgresql-common")
    own = environment.get("PGSERVICEFILE") or (home and str(Path(home, ".pg_service.conf")))
    files = [*([own] if own else []), str(Path(system, "pg_service.conf"))]
    for file in files:
        parser = configparser.ConfigParser(
            interpolation=None, delimiters=("=",), comment_prefixes=("#",), strict=False
        )
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            raise UrlError(f"names a service, and {file} cannot be read") from None
        if parser.has_section(service):
            found = dict(parser.items(service))
            unknown = sorted(found.keys() - _ENVIRONMENT.keys() | found.keys() & {"service"})
            if unknown:
                raise UrlError(
                    f"names a service for which {file} has a parameter{urls.word(unknown[0])} "
                    "that is not supported"
                )
            return found
    raise UrlError(f"names a service that is in none of these files: {', '.join(files)}")


def _system_tls(tls: Mapping[str, str]) -> ssl.SSLContext:
    """Make a TLS context that trusts this machine's certificates and verifies the host name."""
    context = ssl.create_default_context()
    if tls.get("sslcert"):
        context.load_cert_chain(tls["sslcert"], tls.get("sslkey"), tls.get("sslpassword", ""))
    if tls.get("sslcrl"):
        context.load_verify_locations(cafile=tls["sslcrl"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    for name, attribute in (
        ("ssl_min_protocol_version", "minimum_version"),
        ("ssl_max_protocol_version", "maximum_version"),
    ):
        if tls.get(name):
            setattr(context, attribute, ssl.TLSVersion[tls[name].replace(".", "_")])
    return context
