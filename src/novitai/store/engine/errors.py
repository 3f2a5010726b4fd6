# SPDX-License-Identifier: Apache-2.0
"""What a client is told when the store cannot do its work. None of it names a table or a password.

    ApiError
    └── StoreError             503: the store did not do it, and another time it may
        ├── StoreUnavailable   the server does not answer, the disk fails, the store is closed
        ├── StoreBusy          somebody else held a lock for too long
        ├── StorageFull        no space is left
        ├── StoreCorrupt       500: the file is damaged
        └── CommitUnknown      500: the connection broke while COMMIT was under way

A violated constraint is no trouble of the store: it reaches the caller as
`sqlalchemy.exc.IntegrityError`.
"""

from __future__ import annotations

from novitai.errors import ApiError


class StoreError(ApiError):
    """The store could not do it; unless a subclass says otherwise, nothing was stored."""

    status = 503
    code = "STORE_UNAVAILABLE"


class StoreUnavailable(StoreError):
    """The database does not answer, refuses us, or was closed."""


class StoreBusy(StoreError):
    """A lock was not to be had in time, or concurrent transactions kept getting in the way."""

    code = "STORE_BUSY"


class StorageFull(StoreError):
    """No space is left where the database lives."""

    code = "STORAGE_FULL"


class StoreCorrupt(StoreError):
    """The database file is damaged; only a restored copy helps."""

    status = 500
    code = "STORE_CORRUPT"


class CommitUnknown(StoreError):
    """The connection broke while COMMIT was under way: stored or not, nobody can say."""

    status = 500
    code = "COMMIT_UNKNOWN"
