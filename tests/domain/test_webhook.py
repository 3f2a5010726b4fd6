# SPDX-License-Identifier: Apache-2.0
"""The names of hosts and receivers."""

from __future__ import annotations

import pytest
from sqlalchemy import String

from novitai.domain.webhook import host_of
from novitai.store.tables import webhook_lines

COLUMN = webhook_lines.c.host.type
STORED = COLUMN.length if isinstance(COLUMN, String) and COLUMN.length else 0


@pytest.mark.parametrize(
    ("host", "urls"),
    [
        (
            "127.0.0.1:80",
            ["http://127.0.0.1/", "http://0x7f.1/a", "http://2130706433:80", "HTTP://me:x@127.1/"],
        ),
        (
            "xn--bcher-kva.example:443",
            [
                "https://bücher.example/",
                "https://BÜCHER.example.:443/?a",
                "https://b\u00fccher。example",
            ],
        ),
        ("a.example:80", ["http://a" + "\ufe0f" * 400 + ".example/", "http://\uff41.example:080/"]),
        ("[::1]:443", ["https://[::1]/", "https://[0:0:0:0:0:0:0:1]:443/"]),
        ("a.example:8080", ["http://a.example:8080/", "https://A.example:8080/"]),
    ],
)
def test_the_spellings_of_one_host_are_one_host(host: str, urls: list[str]) -> None:
    """All spellings of a host give one name, of bounded length."""
    assert {host_of(url) for url in urls} == {host}


@pytest.mark.parametrize(
    "url",
    [
        "https://" + "a." * 126 + "a:65535/",
        "https://[fe80::1%25" + "a" * 400 + "]:65535/",
        "https://" + "a" * 2000,
        "https://[::1/",
        "https://a.example:99999999/",
        "not a url",
        "",
    ],
)
def test_every_url_has_a_name_that_can_be_stored(url: str) -> None:
    """Any stored URL has a name, so the events of its instance can be written."""
    assert 0 < len(host_of(url)) <= STORED
    assert host_of(url) == host_of(url)
