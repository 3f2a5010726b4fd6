# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL URL has the same meaning for both drivers, or is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from asyncpg.connect_utils import _parse_connect_arguments
from psycopg.conninfo import make_conninfo

from novitai import postgresql_url
from novitai.postgresql_url import Target, resolve
from novitai.urls import UrlError


def resolved(url: str, **environment: str) -> Target:
    """Resolve a URL with only the given environment."""
    return resolve(url, environment)


@pytest.mark.parametrize(
    ("url", "hosts", "ports", "said"),
    [
        ("postgresql://u:PWa/b@host/d", ["host"], [5432], {"password": "PWa/b"}),
        ("postgresql://u:a?b#c@host/d", ["host"], [5432], {"password": "a?b#c"}),
        ("postgresql://u:a%2Fb%40@host/d", ["host"], [5432], {"password": "a/b@"}),
        ("postgres://u@h1:1,h2:2/d", ["h1", "h2"], [1, 2], {}),
        ("postgresql://u@h1,h2:2/d", ["h1", "h2"], [5432, 2], {}),
        ("postgresql://u@[::1]:6000/d", ["::1"], [6000], {}),
        ("postgresql://u@%2Frun%2Fpg/d", ["/run/pg"], [5432], {}),
        ("postgresql:///d?host=/run/pg&port=6&user=u", ["/run/pg"], [6], {"user": "u"}),
        ("postgresql://?host=a,b&port=7&user=u&dbname=d", ["a", "b"], [7, 7], {"dbname": "d"}),
        ("postgresql://u@host/d?options=-c+a%3Db", ["host"], [5432], {"options": "-c a=b"}),
        ("postgresql://u@host/d?application_name=a+b", ["host"], [5432], {}),
        ("postgresql://u@host/d?ssl=true", ["host"], [5432], {"sslmode": "require"}),
    ],
)
def test_what_a_url_says(
    url: str, hosts: list[str], ports: list[int], said: dict[str, str]
) -> None:
    """A URL gives hosts, ports, and parameters under libpq's names."""
    found = resolved(url)
    assert (list(found.hosts), list(found.ports)) == (hosts, ports)
    assert found.user == "u"
    assert said.items() <= found.parameters.items()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://h", "must begin with postgresql://"),
        ("postgresql:d", "must begin with a scheme"),
        ("postgresql://u@h/d?connect_timout=3", "did you mean connect_timeout?"),
        ("postgresql://u@h/d?pgbouncer=true", "a parameter pgbouncer that is not supported"),
        ("postgresql://u@h/d?channel_binding=require", "its channel_binding: disable, prefer"),
        ("postgresql://u@h/d?connect_timeout=0", "between 1 and 600 as its connect_timeout"),
        ("postgresql://u@h/d?connect_timeout=soon", "between 1 and 600 as its connect_timeout"),
        ("postgresql://u@h/d?sslmode=on", "as its sslmode"),
        ("postgresql://u@h/d?sslmode=require&sslrootcert=system", "sslmode=verify-full"),
        ("postgresql://u@h/d?sslnegotiation=direct", "sslmode=require or stronger"),
        ("postgresql://u@h/d?target_session_attrs=standby", "any, read-write, primary"),
        ("postgresql://u@h/d?client_encoding=latin1", "its client_encoding"),
        ("postgresql://u@h/d?keepalives_idle=x", "a whole number as its keepalives_idle"),
        ("postgresql://u@h:x/d", "cannot be parsed"),
        ("postgresql://u@h:70000/d", "between 1 and 65535"),
        ("postgresql://u@h/d?port=1,2", "as many ports as hosts"),
        ("postgresql://u:canary@x@h/d@e", "a misplaced @"),
        ("postgresql://u:12/canary@h/d", "a misplaced @"),
        ("postgresql://u:12?canary@h/d", "a parameter that is not supported"),
        ("postgresql://u@h/%ff", "not UTF-8"),
        ("postgresql://u:%00@h/d", "a zero byte"),
    ],
)
def test_what_cannot_be_honoured_is_refused(url: str, words: str) -> None:
    """A URL is refused when the setting is read, before connecting, without quoting a secret."""
    with pytest.raises(UrlError, match=words) as caught:
        postgresql_url.check(url)
    assert "canary" not in str(caught.value)


# Parameters from the URLs of hosting providers and from their manuals.
LAVISH = (
    "postgresql://u:p%2Fw@h1:1,h2:2/d?connect_timeout=7&channel_binding=prefer&sslmode=require"
    "&application_name=a%20b&options=-c%20statement_timeout%3D5s&target_session_attrs=primary"
    "&keepalives=1&keepalives_idle=1&keepalives_interval=2&keepalives_count=3&tcp_user_timeout=4"
    "&gssencmode=disable&load_balance_hosts=random&client_encoding=utf8"
    "&ssl_min_protocol_version=TLSv1.2"
)


def test_both_drivers_take_what_they_are_given() -> None:
    """No driver gets an unknown name: libpq would refuse it, asyncpg would send it on."""
    found = resolved(LAVISH)
    make_conninfo("", **found.for_psycopg())
    addresses, parameters = asyncpg_reads(found)
    assert addresses == [("h1", 1), ("h2", 2)]
    assert (parameters.user, parameters.password, parameters.database) == ("u", "p/w", "d")
    assert parameters.sslmode.name == "require"
    assert parameters.target_session_attrs.value == "primary"
    assert parameters.server_settings == {
        "application_name": "a b",
        "options": "-c statement_timeout=5s",
    }
    assert found.for_asyncpg("x")["timeout"] == found.connect_seconds == 7


def asyncpg_reads(found: Target) -> Any:
    """Have asyncpg parse its arguments as it does when it connects."""
    names = ("passfile", "ssl", "direct_tls", "krbsrvname", "gsslib", "service", "servicefile")
    given = {**dict.fromkeys((*names, "dsn", "password")), **found.for_asyncpg("novitai worker")}
    del given["timeout"]
    given.setdefault("target_session_attrs", None)
    addresses, parameters, _ = _parse_connect_arguments(
        **given,
        command_timeout=None,
        statement_cache_size=0,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=0,
    )
    return addresses, parameters


def test_one_of_several_hosts_must_take_writes() -> None:
    """Several hosts are a primary and standbys, so the default is the host that takes writes."""
    assert resolved("postgresql://u@a,b/d").parameters["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in resolved("postgresql://u@a/d").parameters
    said = resolved("postgresql://u@a,b/d?target_session_attrs=any").parameters
    assert said["target_session_attrs"] == "any"


def test_the_machines_own_certificates() -> None:
    """With `sslrootcert=system`, both drivers verify the host name."""
    found = resolved("postgresql://u@h/d?sslrootcert=system")
    assert found.for_psycopg()["sslmode"] == "verify-full"
    _, parameters = asyncpg_reads(found)
    assert parameters.ssl.check_hostname
    assert parameters.sslmode.name == "require"


def test_the_environment_fills_in_what_the_url_leaves_open() -> None:
    """Both drivers take missing values from libpq's environment variables."""
    found = resolved("postgresql://", PGHOST="h", PGPORT="9", PGUSER="e", PGOPTIONS="-c a=b")
    assert (found.hosts, found.ports, found.user, found.database) == (("h",), (9,), "e", "e")
    assert found.for_asyncpg("x")["server_settings"] == {
        "application_name": "x",
        "options": "-c a=b",
    }
    assert resolved("postgresql://u@o/d", PGHOST="h", PGUSER="e").hosts == ("o",)


def test_a_service(tmp_path: Path) -> None:
    """A service supplies values that the URL lacks, with priority over the environment."""
    file = tmp_path / "services"
    file.write_text("# ours\n[mine]\nhost=h\nuser=s\ndbname=d\npassword=a%b=c\n[odd]\nhostaddr=1\n")
    environment = {"PGSERVICEFILE": str(file), "PGHOST": "e"}
    found = resolved("postgresql://u@/?service=mine", **environment)
    assert (found.hosts, found.user, found.database) == (("h",), "u", "d")
    assert found.parameters["password"] == "a%b=c"
    assert "service" not in found.for_psycopg()
    for name in ("odd", "none"):
        with pytest.raises(UrlError, match="names a service"):
            resolved(f"postgresql://?service={name}", **environment)


def test_a_service_file_of_the_working_folder_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without a home folder has no service file of their own."""
    (tmp_path / ".pg_service.conf").write_text("[mine]\nhost=h\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UrlError, match="names a service"):
        resolved("postgresql://?service=mine", HOME="", PGSYSCONFDIR=str(tmp_path / "none"))


def test_secrets_stay_out_of_words() -> None:
    """Neither the description nor `repr` contains a password."""
    found = resolved("postgresql://u:canary@h1:1,[::1]/d?sslpassword=canary2")
    assert found.describe() == "PostgreSQL at h1:1,[::1]:5432, database d as u"
    assert "canary" not in repr(found)
    assert sorted(found.secrets()) == ["canary", "canary2"]


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "more",
    [
        "?connect_timeout=10",
        "?channel_binding=prefer",
        "?sslmode=prefer&application_name=x%20y&options=-c%20work_mem%3D5MB",
        "?keepalives_idle=9&tcp_user_timeout=9000&gssencmode=disable&load_balance_hosts=random",
        "?target_session_attrs=read-write&client_encoding=utf8",
    ],
)
def test_both_drivers_connect(postgresql_url: str, more: str) -> None:
    """Both drivers accept the URL, and their sessions have the same settings."""
    found = resolve(postgresql_url + more)
    asked = "SELECT current_user, current_setting('work_mem'), current_setting('client_encoding')"

    async def through_asyncpg() -> tuple[object, ...]:
        connection = await asyncpg.connect(**found.for_asyncpg("x"))
        try:
            return tuple(await connection.fetchrow(asked))
        finally:
            await connection.close()

    with psycopg.connect(**found.for_psycopg()) as connection:
        row = connection.execute(asked).fetchone()
    assert asyncio.run(through_asyncpg()) == row


@pytest.mark.postgresql
def test_the_host_that_answers_is_found(postgresql_url: str) -> None:
    """If one of two hosts refuses connections, both drivers use the other."""
    found = resolve(postgresql_url)
    host, port = found.hosts[0], found.ports[0]
    found = resolve(f"postgresql://{found.user}@127.0.0.1:1,{host}:{port}/{found.database}")

    async def through_asyncpg() -> object:
        connection = await asyncpg.connect(**found.for_asyncpg("x"))
        try:
            return await connection.fetchval("SELECT 1")
        finally:
            await connection.close()

    with psycopg.connect(**found.for_psycopg()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert asyncio.run(through_asyncpg()) == 1
