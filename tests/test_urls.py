# SPDX-License-Identifier: Apache-2.0
"""Passwords in URLs are masked in every spelling, and redis-py gets a URL that it can parse."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai import urls
from novitai.urls import UrlError

T = TypeVar("T")

# Characters that occur in passwords, including those with a meaning in URLs.
passwords = st.text(alphabet="ab1/?#@:%[]&=+ !", min_size=1, max_size=12).map(
    lambda text: f"canary{text}canary"
)
schemes = st.sampled_from(["postgresql", "postgres", "redis", "rediss", "http", "socks5", "unix"])


@given(schemes, st.sampled_from(["", "u"]), passwords, st.booleans())
def test_no_piece_of_a_password_is_shown(
    scheme: str, user: str, password: str, encoded: bool
) -> None:
    """No part of any password is shown, percent-encoded or not."""
    written = quote(password, safe="") if encoded else password
    url = f"{scheme}://{user}:{written}@host:1/d"
    assert "canary" not in urls.masked(url)
    if "@" not in written:  # otherwise the text after the @ may be a host
        assert "canary" not in urls.masked(f"{scheme}://{user}:{written}")
    assert "host" in urls.masked(url)


@given(schemes, passwords)
def test_no_error_shows_a_piece_of_a_password(scheme: str, password: str) -> None:
    """A URL is either read with the intended password, or refused without quoting it."""
    read = said(lambda: urls.split(f"{scheme}://u:{password}@host:1/0"))
    if isinstance(read, str):
        assert "canary" not in read
    elif read.place == "host:1" and not read.query:
        assert read.password == password


@given(passwords)
def test_no_redis_error_shows_a_piece_of_a_password(password: str) -> None:
    """An error about a Redis URL does not show its password."""
    read = said(lambda: urls.masked(urls.read_redis(f"redis://:{password}@host:1/0")))
    assert "canary" not in read


def said(read: Callable[[], T]) -> T | str:
    """Return the result, or the message of the error."""
    try:
        return read()
    except UrlError as error:
        return str(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:PWa/b@host/d", "postgresql://u:***@host/d"),
        ("postgresql://u:a?b@host/d", "postgresql://u:***@host/d"),
        ("postgresql://u:12/34@host/d", "postgresql://u:***@host/d"),
        ("postgresql://u:p@s/s@host/d", "postgresql://u:***@host/d"),
        ("postgresql://u:PWa/b", "postgresql://u:***"),
        ("postgresql://u@host/d", "postgresql://u@host/d"),
        ("postgresql://h1:1,h2:2/d?password=x", "postgresql://h1:1,h2:2/d?***"),
        ("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d"),
        ("redis://:a/b#c@host:1/0", "redis://:***@host:1/0"),
        ("redis://host/0#x", "redis://host/0#***"),
        ("http://token@proxy:1", "http://***@proxy:1"),
        ("sqlite:////a/b:c@d.db", "sqlite:////a/b:c@d.db"),
        ("no URL at all", "***"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    """A masked URL shows enough to recognise the server, and no more."""
    assert urls.masked(url) == shown


def test_urls_within_a_text() -> None:
    """Each URL in a text is masked, and the rest of the text is unchanged."""
    text = "from redis://:a/b@h:1/0, to (http://127.0.0.1:8080) and https://example.com/a@b."
    assert urls.mask_within(text) == (
        "from redis://:***@h:1/0, to (http://127.0.0.1:8080) and https://example.com/a@b."
    )


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://:p/w#x@host:6379/1", "redis://:p%2Fw%23x@host:6379/1"),
        ("redis://:p%2Fw@host", "redis://:p%2Fw@host"),
        ("rediss://u:p@[::1]:6380?db=2&socket_timeout=0.5", None),
        ("unix://u:p@/run/redis.sock?db=1", None),
        ("redis://", None),
    ],
)
def test_a_redis_url_is_written_so_that_its_client_reads_it(url: str, read: str | None) -> None:
    """Special characters of the password are encoded once; the rest is unchanged."""
    from redis.asyncio.connection import parse_url

    assert urls.read_redis(url) == (read or url)
    assert urls.read_redis(urls.read_redis(url)) == (read or url)
    parse_url(urls.read_redis(url))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h", "must begin with redis://"),
        ("redis://u:canary", "a port between 1 and 65535"),
        ("redis://h:70000", "a port between 1 and 65535"),
        ("redis://h/zero", "the number of a database"),
        ("redis://h?pool=3", "a parameter pool that is not supported"),
        ("redis://h?db=x", "a number as its db"),
        ("redis://h?socket_keepalive=x", "true or false as its socket_keepalive"),
        ("unix://h", "must name a socket"),
        ("redis", "must begin with a scheme"),
    ],
)
def test_a_redis_url_that_cannot_be_used_is_refused(url: str, words: str) -> None:
    """The message says what is wrong, and quotes only names of parameters from the URL."""
    with pytest.raises(UrlError, match=words) as caught:
        urls.read_redis(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://h", "http://h:x", "http://", "http://h/?a=b", "http:h"])
def test_an_http_url_that_cannot_be_used_is_refused(url: str) -> None:
    """Scheme, host, port and query are checked."""
    with pytest.raises(UrlError):
        urls.read_http(url, schemes=frozenset({"http"}), example="http://x")


def test_the_secrets_of_a_url() -> None:
    """The secrets are the password, as written and decoded, and secret query parameters."""
    assert urls.secrets_of("postgresql://u:a%2Fb@h/d?sslpassword=c&sslmode=d") == {
        "a%2Fb",
        "a/b",
        "c",
    }
    assert urls.secrets_of("no URL") == set()
