# SPDX-License-Identifier: Apache-2.0
"""The installation's signing secret: configured, or generated once and stored encrypted."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from typing import Final

from novitai.egress.signing import secret_of
from novitai.ids import Ids
from novitai.store.engine.database import Database
from novitai.store.queries import coordination
from novitai.store.queries.sealed import SIGNING_SECRET
from novitai.store.vault import Vault

_LENGTH: Final = 44


def fresh_secret(ids: Ids) -> str:
    """Generate a secret."""
    return secret_of(ids.key_body(_LENGTH))


async def signing_secrets(
    configured: str | None, database: Database, vault: Vault, ids: Ids
) -> Sequence[str]:
    """Return the secrets that sign deliveries to the `webhookUrl` of instances.

    Args:
        configured: `NOVITAI_WEBHOOK_SECRET`: one secret, or during a rotation the new and the old
            one, separated by a space. `Settings` has validated them.
        database: Stores the generated secret if none is configured.
        vault: Encrypts it.
        ids: Generates it, the first time.

    Raises:
        WrongSecretKey: the stored secret was encrypted with another secret key.
    """
    if configured is not None:
        return configured.split()
    sealed = base64.b64encode(vault.seal(SIGNING_SECRET, fresh_secret(ids).encode())).decode()
    kept = await database.write(partial(coordination.kept_value, name=SIGNING_SECRET, fresh=sealed))
    return [vault.unseal(SIGNING_SECRET, base64.b64decode(kept)).decode()]
