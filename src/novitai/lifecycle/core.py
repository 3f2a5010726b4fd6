# SPDX-License-Identifier: Apache-2.0
"""The common dependencies of the business logic, passed as one object."""

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
    """The dependencies that most parts of the business logic need.

    Attributes:
        database: Stores the records.
        vault: Encrypts and decrypts stored secrets.
        clock: Reads the time and sleeps.
        ids: Makes identifiers and random values.
        jobs: Wakes operations.
        recorder: Writes statuses and events.
    """

    database: Database
    vault: Vault
    clock: Clock
    ids: Ids
    jobs: JobEngine
    recorder: Recorder
