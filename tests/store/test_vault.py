# SPDX-License-Identifier: Apache-2.0
"""Promises of the vault."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from novitai.errors import StartupError, WrongSecretKey
from novitai.store.vault import Vault, load_or_make_secret

SECRET = b"0123456789abcdef0123456789abcdef"


def test_what_was_sealed_can_be_opened() -> None:
    """A sealed value is unsealed unchanged, and its sealed form does not contain it."""
    vault = Vault(SECRET)
    sealed = vault.seal("launch", b"TOKEN=hunter2")
    assert b"hunter2" not in sealed
    assert Vault(SECRET).unseal("launch", sealed) == b"TOKEN=hunter2"


def test_sealing_twice_gives_two_different_values() -> None:
    """Sealing the same value twice gives different results."""
    vault = Vault(SECRET)
    assert vault.seal("launch", b"x") != vault.seal("launch", b"x")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
        lambda sealed: b"\x02" + sealed[1:],
        lambda _sealed: b"",
        lambda _sealed: b"\x01",
    ],
)
def test_a_changed_value_is_refused(spoil: object) -> None:
    """A sealed value that was truncated or changed is refused."""
    vault = Vault(SECRET)
    assert callable(spoil)
    with pytest.raises(WrongSecretKey):
        vault.unseal("launch", spoil(vault.seal("launch", b"secret")))


def test_a_purpose_is_bound_to_what_it_sealed() -> None:
    """A value sealed for one purpose cannot be unsealed for another."""
    vault = Vault(SECRET)
    with pytest.raises(WrongSecretKey):
        vault.unseal("credentials", vault.seal("launch", b"secret"))


def test_a_wrong_secret_key_is_named() -> None:
    """The error of a wrong key names the setting, and does not contain the value."""
    sealed = Vault(SECRET).seal("launch", b"hunter2")
    with pytest.raises(WrongSecretKey, match="NOVITAI_SECRET_KEY") as caught:
        Vault(SECRET[::-1]).unseal("launch", sealed)
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 78


def test_digests_are_keyed() -> None:
    """The digest of a text depends on the secret key, and is always the same under one key."""
    assert Vault(SECRET).digest("nvt_x") == Vault(SECRET).digest("nvt_x")
    assert Vault(SECRET).digest("nvt_x") != Vault(SECRET[::-1]).digest("nvt_x")
    assert len(Vault(SECRET).digest("nvt_x")) == 64


def test_a_vault_shows_nothing() -> None:
    """The repr of a vault does not contain the secret."""
    assert SECRET.decode() not in repr(Vault(SECRET))


def test_a_short_secret_is_refused() -> None:
    """A secret key of fewer than 32 bytes is refused."""
    with pytest.raises(StartupError):
        Vault(b"short")


def test_the_embedded_secret_is_made_once_and_private(tmp_path: Path) -> None:
    """The file is created with mode 0600, read on the next call, and leaves no temporary file."""
    folder = tmp_path / "data"
    secret = load_or_make_secret(folder)
    assert load_or_make_secret(folder) == secret
    assert len(secret) >= 32
    assert [path.name for path in folder.iterdir()] == ["secret.key"]
    assert stat.S_IMODE((folder / "secret.key").stat().st_mode) == 0o600


def test_a_readable_secret_is_closed_again(tmp_path: Path) -> None:
    """A key file that others can read gets mode 0600."""
    load_or_make_secret(tmp_path)
    (tmp_path / "secret.key").chmod(0o644)
    load_or_make_secret(tmp_path)
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    """Processes that start at the same time use the same secret."""
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: load_or_make_secret(tmp_path), range(32)))
    assert len(secrets) == 1


def test_a_damaged_secret_file_is_not_replaced(tmp_path: Path) -> None:
    """A key file that is too short is an error and is not replaced, as stored secrets need it."""
    (tmp_path / "secret.key").write_text("oops")
    with pytest.raises(StartupError, match=r"secret\.key"):
        load_or_make_secret(tmp_path)
    assert (tmp_path / "secret.key").read_text() == "oops"


def test_the_previous_key_opens_and_never_seals() -> None:
    """During a rotation both keys open values; new ones need the present key alone."""
    old, other = Vault(SECRET), b"x" * 32
    rotating = Vault(other, SECRET)
    sealed = old.seal("launch", b"plain")
    assert rotating.unseal("launch", sealed) == b"plain"
    assert Vault(other).opened("launch", rotating.seal("launch", b"new")) == b"new"
    fresh = rotating.resealed("launch", sealed)
    assert fresh is not None
    assert Vault(other).opened("launch", fresh) == b"plain"
    assert rotating.resealed("launch", fresh) is None
    with pytest.raises(WrongSecretKey, match="NOVITAI_SECRET_KEY_PREVIOUS"):
        Vault(b"y" * 32, other).resealed("launch", sealed)


def test_the_present_key_as_the_previous_one_is_no_rotation() -> None:
    """The same key twice is one key; its name does not reveal it."""
    vault = Vault(SECRET, SECRET)
    assert vault.previous is None
    assert vault.secret_id == Vault(SECRET).secret_id != Vault(b"x" * 32).secret_id
    assert len(vault.secret_id) == 16
    assert vault.secret_id not in {SECRET.decode()[:16], SECRET.hex()[:16]}
