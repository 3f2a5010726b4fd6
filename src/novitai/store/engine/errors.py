# SPDX-License-Identifier: Apache-2.0
"""Errors of the database as clients see them. No message names a table or contains a password.

    ApiError
    └── StoreError             503: the request failed; a retry may succeed
        ├── StoreUnavailable   the server does not answer, the disk fails, the store is closed
        ├── StoreBusy          another transaction or program held a lock for too long
        ├── StorageFull        no space is left
        ├── StoreCorrupt       500: the file is damaged
        └── CommitUnknown      500: the connection broke during COMMIT

A constraint violation is not a `StoreError`: it reaches the caller as
`sqlalchemy.exc.IntegrityError`.
"""

from __future__ import annotations

from novitai.errors import ApiError


class StoreError(ApiError):
    """The database failed; unless the subclass says otherwise, nothing was stored."""

    status = 503
    code = "STORE_UNAVAILABLE"


class StoreUnavailable(StoreError):
    """The database does not answer, refuses the connection, or was closed."""


class StoreBusy(StoreError):
    """A lock was not granted in time, or each try conflicted with a concurrent transaction."""

    code = "STORE_BUSY"


class StorageFull(StoreError):
    """No space is left on the disk of the database."""

    code = "STORAGE_FULL"


class StoreCorrupt(StoreError):
    """The database file is damaged or gone; it must be restored from a backup."""

    status = 500
    code = "STORE_CORRUPT"


class CommitUnknown(StoreError):
    """The connection broke during COMMIT: the change may or may not have been stored."""

    status = 500
    code = "COMMIT_UNKNOWN"
