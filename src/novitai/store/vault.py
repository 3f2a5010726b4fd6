# SPDX-License-Identifier: Apache-2.0
"""Encryption of stored secrets and keyed digests of API keys, both under one secret key.

During a rotation the vault also knows the previous secret key: it opens what was sealed with it,
and seals with the present one alone.

Each purpose (`launch`, `credentials`, `webhook-secret`, ...) has its own key, derived by HKDF, and
is authenticated with the value: a value sealed for one purpose cannot be opened for another.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from novitai.errors import StartupError, WrongSecretKey

SECRET_FILE: Final = "secret.key"  # noqa: S105 - the name of a file
_MIN_SECRET: Final = 32
_CONFIG: Final = 78
_IO: Final = 74
# The first byte is the version of the format, so that the format can change later.
_VERSION: Final = b"\x01"
_NONCE: Final = 12
_ID_LENGTH: Final = 16
SECRET_CHECK: Final = "secret_check"  # noqa: S105 - the name of a value
"""The purpose and the name of the stored value that shows which secret key is the right one."""


class Vault:
    """Seals and unseals values, and computes digests, under one secret key.

    Attributes:
        secret_id: Identifies the secret key without revealing it.
        previous: The vault of the previous secret key, during a rotation.
    """

    def __init__(self, secret_key: bytes, previous: bytes | None = None) -> None:
        if len(secret_key) < _MIN_SECRET:
            raise StartupError(
                f"the secret key must be at least {_MIN_SECRET} bytes long", exit_code=_CONFIG
            )
        self._secret = secret_key
        self._ciphers: dict[str, AESGCM] = {}
        # Copied for each digest: to begin with the key again would take longer than the rest.
        self._digest = hmac.new(self._derive("digest:api-key"), digestmod="sha256")
        self.secret_id = self._derive("id").hex()[:_ID_LENGTH]
        # A previous key that is the present one is no rotation.
        self.previous = None if previous in {None, secret_key} else Vault(previous or b"")

    def __repr__(self) -> str:
        """Hide the key."""
        return "Vault(***)"

    def seal(self, purpose: str, plain: bytes) -> bytes:
        """Encrypt and authenticate `plain` for `purpose` (AES-256-GCM, random nonce)."""
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher(purpose).encrypt(nonce, plain, purpose.encode())

    def unseal(self, purpose: str, sealed: bytes) -> bytes:
        """Decrypt a value that `seal` encrypted for the same purpose.

        Raises:
            WrongSecretKey: the value was sealed under another key or for another purpose, or was
                changed.
        """
        for vault in (self, self.previous):
            plain = None if vault is None else vault.opened(purpose, sealed)
            if plain is not None:
                return plain
        raise WrongSecretKey(
            f"a stored value ({purpose}) cannot be opened: NOVITAI_SECRET_KEY (or {SECRET_FILE}"
            " in the data folder) is not the key it was sealed with. If that key was changed, set "
            "NOVITAI_SECRET_KEY_PREVIOUS to the key before it",
            exit_code=_CONFIG,
        )

    def resealed(self, purpose: str, sealed: bytes) -> bytes | None:
        """Return a value sealed with the present key; None if it is already.

        Raises:
            WrongSecretKey: neither key opens it.
        """
        if self.opened(purpose, sealed) is not None:
            return None
        return self.seal(purpose, self.unseal(purpose, sealed))

    def digest(self, text: str) -> str:
        """Return the keyed digest (HMAC-SHA256, hexadecimal) under which an API key is stored."""
        made = self._digest.copy()
        made.update(text.encode())
        return made.hexdigest()

    def opened(self, purpose: str, sealed: bytes) -> bytes | None:
        """Decrypt a value that was sealed with the present key; None if it was not."""
        version, nonce, body = sealed[:1], sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        bound = purpose.encode() if version == _VERSION else b""
        try:
            return self._cipher(purpose).decrypt(nonce, body, bound)
        except (InvalidTag, ValueError):
            return None

    def _cipher(self, purpose: str) -> AESGCM:
        cipher = self._ciphers.get(purpose)
        if cipher is None:
            cipher = self._ciphers[purpose] = AESGCM(self._derive("seal:" + purpose))
        return cipher

    def _derive(self, info: str) -> bytes:
        return HKDF(SHA256(), length=32, salt=None, info=b"novitai/" + info.encode()).derive(
            self._secret
        )


def load_or_make_secret(data_dir: Path) -> bytes:
    """Read the secret key file, or create it with mode 0600.

    The file's text is also a valid value of `NOVITAI_SECRET_KEY`.

    Raises:
        StartupError: the file cannot be read or written, or is not a secret key.
    """
    path = data_dir / SECRET_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
    except OSError as error:
        raise _unusable(path, error) from None
    return load_secret(data_dir)


def read_secret(path: Path) -> bytes | None:
    """Read a file with a secret key; None if it is missing.

    Raises:
        StartupError: it cannot be read, or is not a secret key.
    """
    try:
        secret = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from None
    if len(secret) < _MIN_SECRET:
        raise StartupError(
            f"{path}: not a secret key (under {_MIN_SECRET} bytes). Without the right key, stored"
            " API keys and secrets are lost. Restore it from a backup.",
            exit_code=_CONFIG,
        )
    return secret


def write_secret(path: Path, secret: bytes) -> None:
    """Write a secret key to a new file with mode 0600, and wait until it is stored.

    Raises:
        OSError: the file exists or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret + b"\n")
        file.flush()
        os.fsync(file.fileno())


def load_secret(data_dir: Path) -> bytes:
    """Read the secret key file of an existing database.

    Raises:
        StartupError: the file is missing, cannot be read, or is not a secret key.
    """
    path = data_dir / SECRET_FILE
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(path, error) from None
    secret = read_secret(path)
    if secret is None:
        raise StartupError(
            f"{path}: the secret key is missing, and the database holds API keys and secrets that "
            "were made with it. Restore the file from a backup, or set NOVITAI_SECRET_KEY to its "
            "text. Without it they cannot be recovered: move the database away to start with an "
            "empty one.",
            exit_code=_CONFIG,
        )
    return secret


def _unusable(path: Path, error: OSError) -> StartupError:
    return StartupError(
        f"{path}: the secret key cannot be read or written: {error.strerror}", exit_code=_IO
    )


def _make(path: Path) -> None:
    # Written to a temporary file and then linked, so that a reader never sees a partial key; if two
    # processes start at once, both use the key that was linked first.
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        write_secret(draft, secrets.token_hex(32).encode())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
