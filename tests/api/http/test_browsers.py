# SPDX-License-Identifier: Apache-2.0
"""Which requests of browsers are accepted, and the cookie of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from novitai.api.http.browsers import Browsers
from novitai.api.http.context import RequestContext
from novitai.errors import CrossSiteRequest, HostNotAllowed

PUBLIC = "https://novitai.example.com"


def scope_of(headers: Mapping[str, str] | Sequence[tuple[str, str]]) -> dict[str, object]:
    """An ASGI scope with these headers."""
    given = headers.items() if isinstance(headers, Mapping) else headers
    return {"headers": [(name.lower().encode(), value.encode()) for name, value in given]}


def context(*, secure: bool = False) -> RequestContext:
    """The context of a request."""
    return RequestContext("req_1", None, "127.0.0.1", "", 0, 0.0, secure=secure)


@pytest.mark.parametrize(
    ("host", "public_url", "allowed"),
    [
        ("localhost", None, True),
        ("localhost:8080", None, True),
        ("LOCALHOST:8080", None, True),
        ("127.0.0.1:8080", None, True),
        ("127.8.9.1", None, True),
        ("[::1]:8080", None, True),
        ("[::1]", PUBLIC, True),
        ("novitai.example.com", PUBLIC, True),
        ("NOVITAI.example.com:443", PUBLIC, True),
        ("novitai.example.com:8080", PUBLIC, True),
        ("10.0.0.5:8080", "http://10.0.0.5:8080", True),
        ("novitai.example.com", None, False),
        ("evil.example.com", PUBLIC, False),
        ("novitai.example.com.evil.example", PUBLIC, False),
        ("evil.novitai.example.com", PUBLIC, False),
        ("localhost.evil.example", None, False),
        ("evil.localhost", None, False),
        ("localhost.", None, False),
        ("10.0.0.5:8080", None, False),
        ("0.0.0.0:8080", None, False),
        ("[::]:8080", None, False),
        ("[2001:db8::1]", None, False),
        ("localhost@evil.example", None, False),
        ("localhost:80:80", None, False),
        ("localhost:", None, False),
        ("", None, False),
    ],
)
def test_which_hosts_are_allowed(host: str, public_url: str | None, allowed: bool) -> None:
    """`Host` is a loopback address or that of the public URL, and nothing like it."""
    browsers = Browsers("abc123", public_url)
    if allowed:
        browsers.check_host(scope_of({"Host": host}))
        return
    with pytest.raises(HostNotAllowed) as refused:
        browsers.check_host(scope_of({"Host": host}))
    assert f"'{host}'" in refused.value.message
    assert "NOVITAI_PUBLIC_URL" in refused.value.message


def test_several_hosts_or_none_are_refused() -> None:
    """Without exactly one `Host`, the name that the browser used is not known."""
    browsers = Browsers("abc123", None)
    for headers in ([], [("Host", "localhost"), ("Host", "localhost")]):
        with pytest.raises(HostNotAllowed):
            browsers.check_host(scope_of(headers))


def test_a_long_host_is_not_repeated_whole() -> None:
    """The message shows the beginning of a name."""
    with pytest.raises(HostNotAllowed) as refused:
        Browsers("abc123", None).check_host(scope_of({"Host": "x" * 5000}))
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8080"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": ""}, False),
        ({"Origin": "http://localhost:8080"}, True),
        ({"Origin": "HTTP://LOCALHOST:8080"}, True),
        ({"Origin": PUBLIC}, True),
        ({"Origin": f"{PUBLIC}:443"}, True),
        ({"Origin": "http://localhost:3000"}, False),
        ({"Origin": "http://localhost"}, False),
        ({"Origin": "https://localhost:8080"}, False),
        ({"Origin": "http://127.0.0.1:8080"}, False),
        ({"Origin": "http://novitai.example.com"}, False),
        ({"Origin": "https://novitai.example.com:8443"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://localhost:8080.evil.example"}, False),
        ({"Origin": "http://localhost:8080@evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Referer": "http://localhost:8080/"}, False),
        ({}, False),
    ],
)
def test_which_requests_are_own(headers: Mapping[str, str], own: bool) -> None:
    """A request is own by `Sec-Fetch-Site`, or without it by an `Origin` equal to ours."""
    scope = scope_of({"Host": "localhost:8080", **headers})
    browsers = Browsers("abc123", PUBLIC)
    if own:
        browsers.check_own(scope, context())
        browsers.check_log_in(scope, context())
        return
    with pytest.raises(CrossSiteRequest):
        browsers.check_own(scope, context())


def test_contradicting_headers_are_refused() -> None:
    """Each header counts only if it is there once."""
    browsers = Browsers("abc123", None)
    for name, value in (
        ("Sec-Fetch-Site", "same-origin"),
        ("Origin", "http://localhost:8080"),
    ):
        with pytest.raises(CrossSiteRequest):
            browsers.check_own(
                scope_of([("Host", "localhost:8080"), (name, value), (name, value)]), context()
            )


def test_a_program_may_log_in_without_these_headers() -> None:
    """A log-in needs the proof only if a browser sent it, by which these headers come."""
    browsers = Browsers("abc123", None)
    browsers.check_log_in(scope_of({"Host": "localhost:8080"}), context())
    for headers in ({"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        with pytest.raises(CrossSiteRequest):
            browsers.check_log_in(scope_of({"Host": "localhost:8080", **headers}), context())
    with pytest.raises(HostNotAllowed):
        browsers.check_log_in(scope_of({"Host": "evil.example"}), context())


@pytest.mark.parametrize(
    ("host", "public_url", "secure", "kept_secure"),
    [
        ("localhost:8080", None, False, False),
        ("127.0.0.1:8080", PUBLIC, False, False),
        ("10.0.0.5:8080", "http://10.0.0.5:8080", False, False),
        ("localhost:8443", None, True, True),
        ("novitai.example.com", PUBLIC, True, True),
        ("novitai.example.com", PUBLIC, False, True),
        ("novitai.example.com:443", PUBLIC, False, True),
        ("novitai.example.com:8080", PUBLIC, False, False),
        ("localhost:8080", "https://localhost:8443", False, False),
        ("localhost", "https://localhost:8443", False, True),
    ],
)
def test_the_cookie(host: str, public_url: str | None, secure: bool, kept_secure: bool) -> None:
    """Over HTTPS, also if an untrusted proxy ends it, it is `__Host-` and Secure; else plain."""
    browsers = Browsers("abc123", public_url)
    scope, called = scope_of({"Host": host}), context(secure=secure)
    name = "__Host-novitai-abc123" if kept_secure else "novitai-abc123"
    end = "; Secure" if kept_secure else ""
    attributes = f"Path=/; HttpOnly; SameSite=Strict{end}"
    assert browsers.cookie("s3cret", scope, called) == (
        f"{name}=s3cret; Max-Age=604800; {attributes}"
    )
    assert browsers.no_cookie(scope, called) == f"{name}=; Max-Age=0; {attributes}"
    other = "novitai-abc123" if kept_secure else "__Host-novitai-abc123"
    for sent, found in (
        (f"{name}=s3cret", "s3cret"),
        (f"a=b; {name}=s3cret; c", "s3cret"),
        (f"{name}=s3cret; {name}=other", ""),
        (f"{other}=s3cret", None),
        ("novitai-def456=s3cret", None),
        ("", None),
    ):
        assert browsers.session(scope_of({"Host": host, "Cookie": sent}), called) == found


def test_where_the_dashboard_is() -> None:
    """Its address is the public URL or else that of the request, if browsers may use it."""
    local = scope_of({"Host": "localhost:8080"})
    assert Browsers("abc123", PUBLIC).url(scope_of({"Host": "evil"}), context()) == PUBLIC
    assert Browsers("abc123", None).url(local, context()) == "http://localhost:8080"
    assert Browsers("abc123", None).url(local, context(secure=True)) == "https://localhost:8080"
    with pytest.raises(HostNotAllowed):
        Browsers("abc123", None).url(scope_of({"Host": "novitai"}), context())
