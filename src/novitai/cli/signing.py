# SPDX-License-Identifier: Apache-2.0
"""The secret that signs webhooks, where the settings name none: made once, kept sealed."""

from __future__ import annotations

import base64
import os
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from novitai.app import Store
from novitai.store.tables import installation

NAME: Final = "webhook_secret"
"""The row's name, and the purpose that the secret is sealed for."""
_BYTES: Final = 32


async def signing_secret(store: Store) -> str:
    """Return the secret, `whsec_` and base64; the first call makes it.

    Raises:
        WrongSecretKey: it was sealed under another secret key.
    """
    fresh = "whsec_" + base64.b64encode(os.urandom(_BYTES)).decode()
    sealed = base64.b64encode(store.vault.seal(NAME, fresh.encode())).decode()
    kept = await store.database.write(lambda connection: _keep(connection, sealed))
    return store.vault.unseal(NAME, base64.b64decode(kept)).decode()


def _keep(connection: Connection, sealed: str) -> str:
    """Store `sealed` unless there is one, and return the one there is."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(
        insert(installation).values(name=NAME, value=sealed).on_conflict_do_nothing()
    )
    kept: str = connection.execute(
        select(installation.c.value).where(installation.c.name == NAME)
    ).scalar_one()
    return kept
