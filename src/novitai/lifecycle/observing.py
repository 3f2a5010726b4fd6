# SPDX-License-Identifier: Apache-2.0
"""What a listing says of one instance, as the columns that sync owns."""

from __future__ import annotations

import hashlib
from typing import Final

import orjson

from novitai.domain.instance import PortMapping
from novitai.store.instances import dump_mappings
from novitai.store.vault import Vault
from novitai.upstream.models import UpstreamInstance

_PURPOSE: Final = "credentials"


def digest(row: UpstreamInstance) -> str:
    """Fingerprint all that is kept of a row, so that an unchanged row costs no write.

    It covers passwords, but by a hash of everything together, from which none can be read back.
    """
    kept = (
        row.status,
        row.status_error.state,
        row.status_error.message,
        [(mapping.port, mapping.endpoint, mapping.type) for mapping in row.port_mappings],
        row.ssh.command if row.ssh else "",
        row.ssh_password,
        row.jupyter_address,
        row.web_terminal_address,
        row.web_terminal_username,
        row.web_terminal_password,
        row.spot_status,
        row.spot_reclaim_at,
    )
    return hashlib.blake2b(orjson.dumps(kept), digest_size=16).hexdigest()


def columns(
    row: UpstreamInstance, row_digest: str, began_at: int, vault: Vault
) -> dict[str, object]:
    """Write a row as columns; credentials sealed, a sighting ends any absence."""
    error = row.status_error
    return {
        "obs_status": row.status[:64],
        "obs_at": began_at,
        "obs_error": ": ".join(part for part in (error.state, error.message) if part) or None,
        "obs_port_mappings": dump_mappings(
            [PortMapping(m.port, m.endpoint, m.type) for m in row.port_mappings]
        ),
        "obs_ssh": f"ssh://{row.ssh.user}@{row.ssh.host}:{row.ssh.port}" if row.ssh else None,
        "obs_jupyter": row.jupyter_address or None,
        "obs_web_terminal": row.web_terminal_address or None,
        "obs_credentials_sealed": _credentials(row, vault),
        "obs_spot_status": row.spot_status[:64] or None,
        "obs_spot_reclaim_at": row.spot_reclaim_at,
        "obs_digest": row_digest,
        "obs_missing_since": None,
        "obs_missing_count": 0,
    }


def _credentials(row: UpstreamInstance, vault: Vault) -> bytes | None:
    found = {
        "sshPassword": row.ssh_password,
        "webTerminalUsername": row.web_terminal_username,
        "webTerminalPassword": row.web_terminal_password,
    }
    if not any(found.values()):
        return None
    return vault.seal(_PURPOSE, orjson.dumps(found))
