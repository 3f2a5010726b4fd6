# SPDX-License-Identifier: Apache-2.0
"""Which URLs webhooks may go to, as far as that shows without resolving a name."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from novitai.domain.addresses import Host, read_host

MAX_URL: Final = 2048
PRIVATE_WEBHOOK: Final = "Webhook URL must not point to a private or loopback address"
PRIVATE_WEBHOOKS_HINT: Final = (
    "; to allow private receivers, set NOVITAI_WEBHOOK_ALLOW_PRIVATE=true on the server"
)
"""Names the setting that lifts a refusal."""

_ENCODED: Final = re.compile(r'[\s\\<>"^`{|}\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")


def webhook_url(url: str, *, allow_private: bool) -> str:
    """Accept a webhook URL as far as it can be judged without resolving its name.

    Raises:
        ValueError: it is no HTTP URL, or it points to a private or loopback address.
    """
    # `urlsplit` drops some of these silently, and clients differ over the others.
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
    return url


def _http_host(url: str) -> Host:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("not an HTTP URL")
    match = _AUTHORITY.fullmatch(parts.netloc.rpartition("@")[2])
    if match is None or not 0 < int(match["port"] or 80) < 65_536:
        raise ValueError("no host, or no port that can be")
    return read_host(match["host"])
