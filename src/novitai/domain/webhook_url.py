# SPDX-License-Identifier: Apache-2.0
"""Which URLs a webhook may have, judged without resolving a name."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from novitai.domain.addresses import Host, read_host
from novitai.domain.outside import first_unseen

MAX_URL: Final = 2048
PRIVATE_WEBHOOK: Final = "Webhook URL must not point to a private or loopback address"
PRIVATE_WEBHOOKS_HINT: Final = (
    "; to allow private receivers, set NOVITAI_WEBHOOK_ALLOW_PRIVATE=true on the server"
)
"""Appended to `PRIVATE_WEBHOOK`; names the setting that allows such receivers."""

_ENCODED: Final = re.compile(r'[\s\\<>"^`{|}\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")


def webhook_url(url: str, *, allow_private: bool) -> str:
    """Accept a webhook URL. Its host name is not resolved.

    Raises:
        ValueError: it is not an HTTP URL, points to a private or loopback address, or contains
            spaces, invisible characters or characters that must be encoded.
    """
    # `urlsplit` silently drops some of these; HTTP clients treat the others differently.
    if len(url) > MAX_URL or _ENCODED.search(url):
        raise ValueError(
            "Webhook URL must not contain spaces or characters that have to be encoded"
        )
    try:
        host = _http_host(url)
    except ValueError:
        raise ValueError("Webhook URL must be a valid HTTP or HTTPS URL") from None
    if host.private and not allow_private:
        raise ValueError(f"{PRIVATE_WEBHOOK}{PRIVATE_WEBHOOKS_HINT}")
    if (unseen := first_unseen(url)) is not None:
        raise ValueError(
            f"Webhook URL must not contain the invisible character U+{ord(unseen):04X}; "
            "leave it out or percent-encode it"
        )
    return url


def _http_host(url: str) -> Host:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("not an HTTP URL")
    match = _AUTHORITY.fullmatch(parts.netloc.rpartition("@")[2])
    if match is None or not 0 < int(match["port"] or 80) < 65_536:
        raise ValueError("no host, or an invalid port")
    return read_host(match["host"])
