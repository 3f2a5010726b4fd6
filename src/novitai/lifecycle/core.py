# SPDX-License-Identifier: Apache-2.0
"""What every part of the business logic is given: one object instead of six arguments."""

from __future__ import annotations

from dataclasses import dataclass

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs.port import JobEngine
from novitai.lifecycle.events.recorder import Recorder
from novitai.store.engine.database import Database
from novitai.store.vault import Vault


@dataclass(frozen=True, slots=True)
class Core:
    """The six things that nearly every part needs.

    Attributes:
        database: Where the records are.
        vault: Encrypts and decrypts stored secrets.
        clock: Time and waiting.
        ids: Identifiers and randomness.
        jobs: Wakes operations.
        recorder: Writes statuses and events.
    """

    database: Database
    vault: Vault
    clock: Clock
    ids: Ids
    jobs: JobEngine
    recorder: Recorder
