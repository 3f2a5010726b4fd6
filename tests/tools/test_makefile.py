# SPDX-License-Identifier: Apache-2.0
"""`make setup` reports its steps, and trusts the certificates that pip trusts."""

from __future__ import annotations

import os
import subprocess

from tools.words import ROOT


def recipe(**settings: str) -> str:
    """Return the commands that make `.venv`, without running them."""
    unset = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "MAKEFLAGS", "MAKELEVEL")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    command = ["make", "--dry-run", "--what-if=uv.lock", "setup"]
    done = subprocess.run(
        command, cwd=ROOT, env={**env, **settings}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_setup_says_what_it_does() -> None:
    """The set-up prints one line each for the environment, uv and the packages."""
    said = recipe()
    places = [
        said.index(f'echo "{word}') for word in ("Making", "Downloading uv", "Downloading and")
    ]
    assert places == sorted(places)


def test_uv_trusts_the_certificates_of_the_system() -> None:
    """Behind a proxy that inspects TLS, uv works where pip works."""
    assert "export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}" in recipe()
    assert "SSL_CERT_FILE" not in recipe()
    assert "export SSL_CERT_FILE='/etc/proxy.pem'" in recipe(PIP_CERT="/etc/proxy.pem")
