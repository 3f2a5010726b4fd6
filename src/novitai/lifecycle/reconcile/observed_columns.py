# SPDX-License-Identifier: Apache-2.0
"""Convert a row of a listing to the `obs_*` columns of the record."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import orjson

from novitai.domain.instance import Instance, Observed, PortMapping
from novitai.domain.outside import hide_shown, without_secrets
from novitai.domain.product import usd_or_none
from novitai.domain.runs import Run, Seen, follow_run
from novitai.store.queries.instances import dump_mappings
from novitai.store.vault import Vault
from novitai.upstream.models import MAX_MESSAGE, MAX_STATE, UpstreamInstance

_PURPOSE: Final = "credentials"
_DAY: Final = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class RunLook:
    """When a listing took place, in Unix milliseconds.

    Attributes:
        began_at: When it began.
        listed_before: When the last complete listing before it began.
        clock_offset: Milliseconds that Novita's clock is ahead; None if unknown.
    """

    began_at: int
    listed_before: int | None = None
    clock_offset: int | None = None

    def ours(self, told: int | None) -> int | None:
        """Convert a time of Novita's clock to ours; None if the difference is unknown."""
        if not told or self.clock_offset is None:
            return None
        return told - self.clock_offset


def digest(row: UpstreamInstance) -> str:
    """Return a digest of all used fields of a row, so that an unchanged row needs no write.

    Passwords are included, but only in a hash over all fields together.
    """
    kept = (
        row.status,
        row.status_error.state,
        row.status_error.message,
        [(mapping.port, mapping.endpoint, mapping.type) for mapping in row.port_mappings],
        (row.ssh.user, row.ssh.host, row.ssh.port) if row.ssh else None,
        row.ssh_password,
        row.jupyter_address,
        row.web_terminal_address,
        row.web_terminal_username,
        row.web_terminal_password,
        row.spot_status,
        row.spot_reclaim_at,
        row.instance_price,
        row.last_started_at,
        row.last_stopped_at,
        row.purged_at,
        row.keep_days,
        row.exited_disk_price,
        row.rootfs_size,
    )
    # "replace" handles lone surrogates in the text.
    return hashlib.blake2b(repr(kept).encode("utf-8", "replace"), digest_size=16).hexdigest()


def observed(row: UpstreamInstance, began_at: int, secrets: Collection[str] = ()) -> Observed:
    """Return the parts of a row that clients may read; the counts of absence are reset.

    Args:
        row: The row of the listing.
        began_at: When the listing began, in Unix milliseconds.
        secrets: Values to hide in the row's error: those of the launch's environment variables,
            which not every row contains.
    """
    error = row.status_error
    said = (
        hide_shown(error.state, secrets, MAX_STATE),
        hide_shown(error.message, secrets, MAX_MESSAGE),
    )
    return Observed(
        status=row.status,
        at=began_at,
        error=": ".join(part for part in said if part) or None,
        port_mappings=tuple(
            PortMapping(m.port, without_secrets(m.endpoint), m.type) for m in row.port_mappings
        ),
        ssh=f"ssh://{row.ssh.user}@{row.ssh.host}:{row.ssh.port}" if row.ssh else None,
        jupyter=without_secrets(row.jupyter_address) or None,
        web_terminal=without_secrets(row.web_terminal_address) or None,
        spot_status=row.spot_status or None,
        spot_reclaim_at=row.spot_reclaim_at,
        hourly_price=usd_or_none(row.instance_price),
    )


def with_run(seen: Observed, row: UpstreamInstance, before: Instance, look: RunLook) -> Observed:
    """Add the current run or stop of the instance, and when its disk is purged.

    Args:
        seen: The parts of the row that clients may read.
        row: The row of the listing.
        before: The record before the listing.
        look: When the listing, and the one before, began.
    """
    last = before.observed
    run = follow_run(
        Run(last.run_began_at, last.exited_at),
        last.status,
        Seen(
            word=row.status,
            at=look.began_at,
            after=_unchanged_until(before, look),
            started_at=look.ours(row.last_started_at or None),
            stopped_at=look.ours(row.last_stopped_at or None),
        ),
    )
    purge_at = look.ours(row.purged_at)
    if run.exited_at is None:
        purge_at = None
    elif (purge_at is None or purge_at <= run.exited_at) and row.keep_days is not None:
        purge_at = run.exited_at + row.keep_days * _DAY
    return replace(seen, run_began_at=run.began_at, exited_at=run.exited_at, purge_at=purge_at)


def _unchanged_until(before: Instance, look: RunLook) -> int:
    """Return the last moment at which the instance is known to have been as it was recorded."""
    last = before.observed
    known = max(last.at or 0, before.acted_at or 0, before.bought_at or 0)
    if last.at is not None and not last.missing_count:
        known = max(known, look.listed_before or 0)
    return min(known, look.began_at)


def columns(
    seen: Observed, row: UpstreamInstance, row_digest: str, vault: Vault
) -> dict[str, object]:
    """Return the columns to write for a row; credentials are encrypted."""
    return {
        "obs_status": seen.status,
        "obs_at": seen.at,
        "obs_error": seen.error,
        "obs_port_mappings": dump_mappings(seen.port_mappings),
        "obs_ssh": seen.ssh,
        "obs_jupyter": seen.jupyter,
        "obs_web_terminal": seen.web_terminal,
        "obs_credentials_sealed": _credentials(row, vault),
        "obs_spot_status": seen.spot_status,
        "obs_spot_reclaim_at": seen.spot_reclaim_at,
        "obs_hourly_price": row.instance_price,
        "obs_run_began_at": seen.run_began_at,
        "obs_exited_at": seen.exited_at,
        "obs_purge_at": seen.purge_at,
        "obs_digest": row_digest,
        "obs_missing_since": seen.missing_since,
        "obs_missing_count": seen.missing_count,
        "obs_unlisted_since": seen.unlisted_since,
        "obs_unlisted_count": seen.unlisted_count,
    }


def _credentials(row: UpstreamInstance, vault: Vault) -> bytes | None:
    """Encrypt the passwords, and every address that contains a secret."""
    found = {
        "sshPassword": row.ssh_password,
        "webTerminalUsername": row.web_terminal_username,
        "webTerminalPassword": row.web_terminal_password,
        "jupyter": _secret_address(row.jupyter_address),
        "webTerminal": _secret_address(row.web_terminal_address),
        "endpoints": [
            {"port": mapping.port, "endpoint": mapping.endpoint}
            for mapping in row.port_mappings
            if _secret_address(mapping.endpoint)
        ],
    }
    if not any(found.values()):
        return None
    return vault.seal(_PURPOSE, orjson.dumps(found))


def _secret_address(address: str) -> str:
    return "" if without_secrets(address) == address else address
