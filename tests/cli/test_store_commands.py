# SPDX-License-Identifier: Apache-2.0
"""`migrate`, `keys` and `webhooks`: commands on the store, without a running server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from novitai.cli.main import app
from novitai.domain.api_key import well_formed
from novitai.errors import NotFound, ValidationFailed, WrongSecretKey

Run = Callable[..., Result]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run commands on an empty store of each kind."""
    for name in os.environ:
        if name.upper().startswith("NOVITA"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVITAI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NOVITAI_SECRET_KEY", "a secret of at least thirty-two bytes")
    if request.param == "postgresql":
        monkeypatch.setenv("NOVITAI_DATABASE_URL", request.getfixturevalue("postgresql_url"))

    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, env=environment)

    return invoke


@pytest.fixture
def migrated(run: Run) -> Run:
    """Run commands on a migrated store without a key."""
    assert run("migrate", NOVITAI_ADMIN_API_KEY="an-admin-key-of-enough-characters").exit_code == 0
    return run


def test_migrating_says_from_where_to_where(run: Run) -> None:
    """The first run names both versions; the second says that the database is up to date."""
    first, second = run("migrate"), run("migrate")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert ": migrated from nothing to 00" in first.stdout
    assert ": up to date (00" in second.stdout


def test_a_key_is_all_of_standard_output(migrated: Run) -> None:
    """Only the key is on standard output, so that it can be captured."""
    made = migrated("keys", "create", "--name", "ci", "--scope", "read", "--scope", "write")
    assert made.exit_code == 0, made.output
    assert well_formed(made.stdout.removesuffix("\n"))
    assert "read, write" in made.stderr
    assert made.stdout.strip() not in made.stderr


def test_keys_are_listed_and_revoked(migrated: Run) -> None:
    """The list shows every key without its text; a revoked key stays in it."""
    text = migrated("keys", "create", "--name", "one", "--scope", "admin").stdout.strip()
    expiry = "2999-01-31T00:00:00.000Z"
    migrated("keys", "create", "--name", "two", "--scope", "read", "--expires-at", expiry)
    listed = json.loads(migrated("keys", "list", "--json").stdout)
    assert {one["name"]: one["scopes"] for one in listed} == {"one": ["admin"], "two": ["read"]}
    by_name = {one["name"]: one for one in listed}
    assert by_name["two"]["expiresAt"] == expiry
    assert "revokedAt" not in by_name["one"]

    revoked = migrated("keys", "revoke", by_name["one"]["id"])
    assert revoked.exit_code == 0, revoked.output
    plain = migrated("keys", "list")
    assert text not in plain.output
    rows = {row[1]: row for row in (line.split("\t") for line in plain.stdout.splitlines())}
    assert rows["one"][5].endswith("Z")
    assert rows["two"][4:6] == [expiry, "-"]


def test_a_wrong_key_is_refused(migrated: Run) -> None:
    """A blank name, a past expiry and an unknown ID raise errors of novitai."""
    blank = migrated("keys", "create", "--name", " ", "--scope", "read")
    past = migrated(
        "keys", "create", "--name", "x", "--scope", "read", "--expires-at", "2001-01-01T00:00:00Z"
    )
    nobody = migrated("keys", "revoke", "key_nobody")
    assert isinstance(blank.exception, ValidationFailed)
    assert isinstance(past.exception, ValidationFailed)
    assert isinstance(nobody.exception, NotFound)
    assert migrated("keys", "create", "--name", "x", "--scope", "root").exit_code == 2
    assert migrated("keys", "list").stdout == ""


def test_the_signing_secret_is_made_once(migrated: Run) -> None:
    """The secret does not change, and cannot be read with another secret key."""
    first, second = migrated("webhooks", "secret"), migrated("webhooks", "secret")
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("whsec_")
    assert second.stdout == first.stdout
    other = migrated("webhooks", "secret", NOVITAI_SECRET_KEY="another secret of over 32 bytes...")
    assert isinstance(other.exception, WrongSecretKey)
    assert "whsec_" not in other.output


def test_the_signing_secret_of_the_settings_wins(migrated: Run) -> None:
    """The secret of NOVITAI_WEBHOOK_SECRET is printed, and none is created."""
    mine = "whsec_" + "mine" * 8
    said = migrated("webhooks", "secret", NOVITAI_WEBHOOK_SECRET=mine)
    assert said.stdout == f"{mine}\n"
