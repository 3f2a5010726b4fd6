# SPDX-License-Identifier: Apache-2.0
"""Text and addresses from outside."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.outside import (
    MAX_SHOWN_ADDRESS,
    hide_shown,
    message,
    plain,
    read_address,
    read_url,
    without_secrets,
)

ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text(
    st.sampled_from("ab/:@?#=&;.-[]\\ %\n\r\x1b\u202e\ud83d")
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\r\nlines\there", "two  lines here"),
        ("\x1b[31mred\x07", "[31mred"),
        ("ab\u202ecd\u2066ef\u200f", "abcdef"),
        ("half \ud83d emoji", "half  emoji"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("para\u2029graph", "para graph"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("x" * 1_000_000, "x" * 50),
    ],
)
def test_text_is_one_line_that_can_be_shown(text: str, shown: str) -> None:
    """The text has no control or direction characters, and a bounded length."""
    assert plain(text, 50) == shown


@given(ANY_TEXT, st.integers(1, 40))
def test_no_text_is_too_odd_to_be_shown(text: str, limit: int) -> None:
    """Any text becomes short and printable."""
    for shown in (plain(text, limit), message(text, limit)):
        assert len(shown) <= limit
        shown.encode()
        assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("pull of https://bob:pw@hub.test/x failed", "pull of https://***@hub.test/x failed"),
        ("see https://tok@hub.test/", "see https://***@hub.test/"),
        ("ssh root:pw@1.2.3.4 refused", "ssh ***@1.2.3.4 refused"),
        ("get https://j.test/?a=1&access_token=t0k&b=2", None),
        ("get https://j.test/?token=t0k", "get https://j.test/?token=***"),
        ("repo/name:tag@sha256:0123 not found", "repo/name:tag@sha256:0123 not found"),
        ("name:tag@sha256:0123 not found", "name:tag@sha256:0123 not found"),
        ("mail bob@hub.test", "mail bob@hub.test"),
        ("a=1&b=2", "a=1&b=2"),
    ],
)
def test_a_message_hides_what_its_addresses_hold(said: str, shown: str | None) -> None:
    """User info and tokens are hidden; image names are not changed."""
    hidden = "get https://j.test/?a=1&access_token=***&b=2"
    assert message(said, 200) == (hidden if shown is None else shown)


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("https://x-8080.test", "https://x-8080.test", "https://x-8080.test"),
        ("http://127.0.0.1:9090/_proxy/a/80/1/", None, "http://127.0.0.1:9090/_proxy/a/80/1/"),
        ("HTTPS://Host.Test:8443/A", "https://host.test:8443/A", "https://host.test:8443/A"),
        (" https://h.test/lab?token=t ", "https://h.test/lab?token=t", "https://h.test/lab"),
        ("https://u:pw@h.test/", "https://u:pw@h.test/", "https://h.test/"),
        ("https://h.test/#t", "https://h.test/#t", "https://h.test/"),
        ("https://h.test/a;jsessionid=t", None, "https://h.test/a"),
        ("http://[::1]:80/x", "http://[::1]:80/x", "http://[::1]:80/x"),
        ("proxy.us-ca-6.test:62248", None, "proxy.us-ca-6.test:62248"),
        ("tcp://proxy.test:22", "proxy.test:22", "proxy.test:22"),
        ("u:pw@proxy.test:22", "u:pw@proxy.test:22", "proxy.test:22"),
        ("[2001:db8::1]:22", "[2001:db8::1]:22", "[2001:db8::1]:22"),
    ],
)
def test_an_address_is_a_url_or_host_and_port(text: str, address: str | None, shown: str) -> None:
    """The address is shown without user info, query and fragment."""
    found = read_address(text)
    assert found == (text if address is None else address)
    assert without_secrets(found) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ssh://root@h.test:22",
        "ftp://h.test/",
        "//h.test/",
        "h.test",
        "h.test:0",
        "h.test:65536",
        "h.test:http",
        "-oProxyCommand=id:22",
        "u@-oProxyCommand=id:22",
        "https://-oProxyCommand=id/",
        "https://h.test/a b",
        "https://h.test/\r\nSet-Cookie: a",
        "https://h.test/\x1b[31m",
        "https://h.test\\@evil.test/",
        "https://h.test:99999/",
        "https://h.test:0/",
        "https:///x",
        "https://[::1/",
        "https://h.test/<script>",
        'https://h.test/"x"',
        "https://h.test/\u202e",
        "a:b:c:22",
        "https://h.test/" + "x" * 5_000,
    ],
)
def test_anything_else_is_no_address(text: str) -> None:
    """Anything else gives an empty string."""
    assert read_address(text) == ""


@given(ANY_TEXT | st.builds("https://{}".format, ANY_TEXT) | st.builds("{}:80".format, ANY_TEXT))
def test_no_address_is_too_odd_to_be_read(text: str) -> None:
    """The result is visible ASCII; the shown part has the same host and port."""
    found = read_address(text)
    assert found.isascii()
    assert found == "" or (found.isprintable() and " " not in found)
    assert read_address(found) == found
    shown = without_secrets(found)
    assert not {"@", "?", "#", ";"} & set(shown)
    assert len(shown) <= MAX_SHOWN_ADDRESS
    assert read_address(shown) == shown


def test_only_a_page_in_a_browser_needs_a_url() -> None:
    """A host and port without a scheme are not a Jupyter address."""
    assert read_url("h.test:8888") == ""


def test_what_is_too_long_to_be_shown_is_left_out_of_what_is_shown() -> None:
    """Long addresses are omitted, because a cut one would lead elsewhere."""
    assert without_secrets(f"https://h.test/{'x' * 400}") == ""


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a secret-word b", "a *** b"),
        ("two\nlines too", "*** too"),
        ("." * 40 + "secret-word", "." * 40 + "***"),
        ("." * 56 + "secret-word", "." * 56 + "***"),
        ("." * 57 + "secret-word", "." * 57 + "sec"),
        ("ends in secr", "ends in secr"),
        ("", ""),
    ],
)
def test_a_secret_is_hidden_in_what_was_made_a_message(raw: str, shown: str) -> None:
    """Cleaned secrets are hidden too, and cut ones down to four characters."""
    secrets = ["secret-word", "two\nlines", "", "abc"]
    assert hide_shown(message(raw, 60), secrets, 60) == shown
