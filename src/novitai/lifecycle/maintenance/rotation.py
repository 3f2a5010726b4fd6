# SPDX-License-Identifier: Apache-2.0
"""Rotation of the secret key: seal every stored value with the present key.

It runs while the previous key is set (`NOVITAI_SECRET_KEY_PREVIOUS`). The value that shows which
key is the right one is resealed last: as long as it is sealed with the previous key, no process
starts without that key.
"""

from __future__ import annotations

import base64
from functools import partial
from typing import Final

import structlog

from novitai.errors import WrongSecretKey
from novitai.store.engine.database import Database
from novitai.store.queries import sealed
from novitai.store.queries.sealed import SEALED, SIGNING_SECRET, SealedColumn
from novitai.store.vault import SECRET_CHECK, Vault

_PAGE: Final = 200

_log = structlog.get_logger(__name__)


class SecretRotation:
    """Reseals the stored values, in pages."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def once(self) -> int:
        """Reseal what the previous key sealed; return how many values that were.

        Processes that do not know the present key yet may go on to seal with the previous one, so
        this is repeated as long as that key is set. A value that neither key opens stays as it is,
        and is logged.
        """
        if self._vault.previous is None:
            return 0
        count = 0
        try:
            for column in SEALED:
                count += await self._column(column)
            signing = partial(sealed.replace_text, name=SIGNING_SECRET, reseal=self._base64)
            count += await self._database.write(signing)
            check = partial(sealed.replace_text, name=SECRET_CHECK, reseal=self._hexadecimal)
            count += await self._database.write(check)
        except WrongSecretKey as error:
            _log.error("secret_key_not_rotated", error=str(error))
        if count:
            _log.info("secret_key_rotated", resealed=count)
        return count

    async def _column(self, column: SealedColumn) -> int:
        count, after = 0, ""
        while True:
            page = partial(
                sealed.replace_page,
                sealed=column,
                reseal=self._vault.resealed,
                after=after,
                limit=_PAGE,
            )
            last, replaced = await self._database.write(page)
            count += replaced
            if last is None:
                return count
            after = last

    def _base64(self, stored: str) -> str | None:
        fresh = self._vault.resealed(SIGNING_SECRET, base64.b64decode(stored))
        return None if fresh is None else base64.b64encode(fresh).decode()

    def _hexadecimal(self, stored: str) -> str | None:
        fresh = self._vault.resealed(SECRET_CHECK, bytes.fromhex(stored))
        return None if fresh is None else fresh.hex()
