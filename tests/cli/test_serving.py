# SPDX-License-Identifier: Apache-2.0
"""Warnings about the settings at startup."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from novitai.cli.serving import _warn
from novitai.settings import Settings


@pytest.mark.parametrize(
    ("networks", "warned"),
    [
        ("0.0.0.0/0", True),
        ("10.0.0.0/8,::/0", True),
        ("0.0.0.0/1,128.0.0.0/1", True),
        ("2000::/3", True),
        ("", False),
        ("10.0.0.0/8,127.0.0.1,172.16.0.0/12,fc00::/7", False),
        ("173.245.48.0/20,2400:cb00::/32", False),
    ],
)
def test_trusting_the_internet_is_warned_of(networks: str, warned: bool) -> None:
    """A large public network as trusted proxies is logged as a warning."""
    settings = Settings.model_validate({"trusted_proxies": networks})
    with capture_logs() as logs:
        _warn(settings, beyond_loopback=False)
    said = [line for line in logs if line["event"] == "trusted_proxies_too_wide"]
    assert len(said) == warned
    assert all("NOVITAI_TRUSTED_PROXIES" in line["reason"] for line in said)
