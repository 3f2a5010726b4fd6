# SPDX-License-Identifier: Apache-2.0
"""Back up the embedded database while a server uses it, and restore a backup.

A backup is one SQLite file without a log. The secret key is kept in a file beside it: without that
key the stored API keys and secrets are of no use, and with it they can be read.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from novitai.clock import Clock
from novitai.errors import StartupError, WrongSecretKey
from novitai.store import migrate
from novitai.store.engine import file_lock, sqlite
from novitai.store.engine.file_lock import FileLock, refused_by_system
from novitai.store.engine.sqlite_file import (
    DatabaseFile,
    explained,
    make_folder,
    quoted,
    url_of,
)
from novitai.store.queries import account
from novitai.store.vault import SECRET_CHECK, SECRET_FILE, Vault, read_secret, write_secret

_CONFIG: Final = 78  # EX_CONFIG of sysexits(3)
_IO: Final = 74  # EX_IOERR
_NO_FILE: Final = 66  # EX_NOINPUT
_CANNOT_CREATE: Final = 73  # EX_CANTCREAT
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
_WAIT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made.

    Attributes:
        file: The copy of the database.
        size: Its size in bytes.
        instances: How many records of instances are in it.
        key_file: The file with the secret key; None if it was left out.
    """

    file: Path
    size: int
    instances: int
    key_file: Path | None


@dataclass(frozen=True, slots=True)
class Restored:
    """A backup that was put in place.

    Attributes:
        file: The database.
        instances: How many records of instances are in it.
        kept: Where the files are that were there before.
        key_replaced: Whether the secret key of the backup replaced another or a missing one.
    """

    file: Path
    instances: int
    kept: Sequence[Path]
    key_replaced: bool


def key_file_of(backup: Path) -> Path:
    """Return the name of the file with the secret key of a backup."""
    return backup.with_name(f"{backup.name}.{SECRET_FILE}")


def back_up(database: Path, target: Path, secret: bytes | None) -> Backup:
    """Copy the database to a new file; a server may use it meanwhile.

    Args:
        database: The file of the database.
        target: The file to make, with mode 0600.
        secret: The secret key to write beside it; None leaves it out.

    Raises:
        StartupError: there is no such database, it is damaged, the target exists already or cannot
            be written, or the key is not that of the database. No file is left behind.
    """
    if not database.exists():
        raise StartupError(
            f"{database}: there is no database. NOVITAI_DATA_DIR or NOVITAI_DATABASE_URL names it.",
            exit_code=_NO_FILE,
        )
    key_file = None if secret is None else key_file_of(target)
    for one in (target, key_file):
        if one is not None and one.exists():
            raise StartupError(
                f"{one}: exists already. Give the backup another name, or remove that file.",
                exit_code=_CANNOT_CREATE,
            )
    with _draft(target) as draft:
        _copy(database, draft)
        instances = _examine(draft, called=database)
        if secret is not None:
            _insist_on_key(draft, (secret,), called=database)
        _sync(draft)
        if key_file is not None and secret is not None:
            _write_key(key_file, secret)
        _move(draft, target)
    return Backup(target, target.stat().st_size, instances, key_file)


def restore(
    backup: Path, database: Path, data_dir: Path, clock: Clock, *, configured: bytes | None
) -> Restored:
    """Put a backup in place of the database, and mark it as restored.

    Until a person confirms it, the marked database sends no write call to Novita. The files that
    were there before are kept under other names. The backup is not changed.

    Args:
        backup: The file that `back_up` made, or another copy of a database.
        database: The file of the database.
        data_dir: The folder with the file of the secret key.
        clock: Tells the time of the mark.
        configured: The secret key of the settings, if one is set.

    Raises:
        StartupError: a process uses the database, the backup is missing, damaged or newer than this
            version, or no known secret key opens it. Nothing is changed then.
    """
    if not backup.is_file():
        raise StartupError(f"{backup}: there is no such file.", exit_code=_NO_FILE)
    if database.exists() and backup.samefile(database):
        raise StartupError(f"{backup}: this is the database itself.", exit_code=_CONFIG)
    make_folder(database.parent)
    lock = FileLock(database.with_name(database.name + ".lock"), clock)
    lock.acquire()
    try:
        with _claimed(database), _workshop(database) as workshop:
            draft = workshop / database.name
            draft.touch(mode=0o600)
            _copy(backup, draft)
            _examine(draft, called=backup)
            key = _key_for(draft, backup, data_dir, configured)
            _prepare(draft, clock, called=backup)
            instances = _examine(draft, called=backup)
            _sync(draft)
            stamp = datetime.fromtimestamp(clock.now() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
            kept = [] if key is None else _replace_key(data_dir, key, stamp)
            kept += _set_aside(database, stamp)
            draft.replace(database)
            _sync_folder(database.parent)
    except OSError as error:
        raise refused_by_system(database, "the backup cannot be restored", error) from None
    finally:
        lock.release()
    return Restored(database, instances, kept, key is not None)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Yield the name of a new empty file beside `target`, which is removed afterwards."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        yield draft
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        for name in (draft, *_side_files(draft)):
            name.unlink(missing_ok=True)


@contextmanager
def _workshop(database: Path) -> Iterator[Path]:
    """Yield a new folder on the disk of the database, which is removed afterwards."""
    folder = database.with_name(f".{database.name}.{secrets.token_hex(6)}")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _claimed(database: Path) -> Iterator[None]:
    """Hold the lock on a database file that may be damaged, if there is one."""
    if not database.exists():
        yield
        return
    descriptor = os.open(database, os.O_RDWR | os.O_CLOEXEC)
    try:
        file_lock.lock_database(descriptor, database)
        yield
    finally:
        os.close(descriptor)


def _copy(source: Path, target: Path) -> None:
    """Copy a database to one file without a log, as of one moment."""
    with (
        explained(source),
        closing(_connect(source, "ro")) as reading,
        explained(target),
        closing(sqlite3.connect(target, isolation_level=None)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE").close()


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quoted(file.absolute())}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)


def _examine(copy: Path, *, called: Path) -> int:
    """Check a copy of a database, and count its records of instances.

    Raises:
        StartupError: it is damaged, is not a database of novitai, or is newer than this version.
    """
    with explained(called), closing(_connect(copy, "ro")) as connection:
        finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise StartupError(
                f"{called}: the database is damaged ({' '.join(finding.split())}).", exit_code=_IO
            )
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        if not {"alembic_version", "installation", "instances"} <= tables:
            raise StartupError(f"{called}: this is not a database of novitai.", exit_code=_CONFIG)
        migrate.refuse_newer(migrate.facts_of(url_of(copy)), str(called))
        count: int = connection.execute("SELECT count(*) FROM instances").fetchone()[0]
    return count


def _key_for(copy: Path, backup: Path, data_dir: Path, configured: bytes | None) -> bytes | None:
    """Return the secret key to install; None if the present one opens the copy.

    Raises:
        StartupError: no known key opens it.
    """
    if configured is not None:
        _insist_on_key(copy, (configured,), called=backup)
        return None
    present = read_secret(data_dir / SECRET_FILE)
    beside = read_secret(key_file_of(backup))
    candidates = tuple(one for one in (present, beside) if one is not None)
    if not candidates:
        raise StartupError(
            f"{backup}: its secret key is missing. Put it into {key_file_of(backup)} or set "
            "NOVITAI_SECRET_KEY to it.",
            exit_code=_CONFIG,
        )
    found = _insist_on_key(copy, candidates, called=backup)
    return None if found == present else found


def _insist_on_key(copy: Path, candidates: Sequence[bytes], *, called: Path) -> bytes | None:
    """Return the first key that opens the values of a copy; None if it has no such values."""
    with explained(called), closing(_connect(copy, "ro")) as connection:
        row = connection.execute(
            "SELECT value FROM installation WHERE name = ?", (SECRET_CHECK,)
        ).fetchone()
    if row is None:
        return candidates[0]
    for one in candidates:
        try:
            Vault(one).unseal(SECRET_CHECK, bytes.fromhex(row[0]))
        except (WrongSecretKey, ValueError):
            continue
        return one
    raise WrongSecretKey(
        f"{called}: the secret key is not the one that this database was made with. Set "
        f"NOVITAI_SECRET_KEY to the right one, or put it into {key_file_of(called)}.",
        exit_code=_CONFIG,
    )


def _prepare(draft: Path, clock: Clock, *, called: Path) -> None:
    """Migrate a copy to this version, and mark it as restored."""
    file = DatabaseFile.claim(draft, clock)
    try:
        migrate.upgrade_file(file)
        engine = sqlite.make_engine(draft)
        try:
            with explained(called), engine.connect() as connection, connection.begin():
                account.mark_restored(connection, clock.now())
        finally:
            engine.dispose()
    finally:
        file.release()


def _set_aside(database: Path, stamp: str) -> list[Path]:
    """Keep the present files under other names; return the names."""
    if not database.exists():
        return []
    if _is_whole(database):
        # If this process is killed between the next steps, the file needs no log.
        with explained(database), closing(_connect(database, "rw")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    kept = database.with_name(f"{database.name}.before-{stamp}")
    _link(database, kept)
    names = [kept]
    for side in _SIDE_FILES:
        log = database.with_name(database.name + side)
        if log.exists():
            log.replace(kept.with_name(kept.name + side))
            names.append(kept.with_name(kept.name + side))
    return names


def _is_whole(database: Path) -> bool:
    """Whether a database is undamaged. A damaged one is only read: its log may save something."""
    try:
        with closing(_connect(database, "ro")) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.Error:
        return False


def _replace_key(data_dir: Path, key: bytes, stamp: str) -> list[Path]:
    """Install a secret key; keep the present one under another name and return that."""
    path = data_dir / SECRET_FILE
    kept = []
    if path.exists():
        kept = [path.with_name(f"{path.name}.before-{stamp}")]
        _link(path, kept[0])
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    make_folder(data_dir)
    try:
        write_secret(draft, key)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return kept


def _write_key(key_file: Path, secret: bytes) -> None:
    try:
        write_secret(key_file, secret)
    except BaseException:  # a part of a key is of no use
        key_file.unlink(missing_ok=True)
        raise


def _link(file: Path, name: Path) -> None:
    """Give a file a second name, or copy it where the disk has no links."""
    try:
        name.hardlink_to(file)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(file, name)


def _move(draft: Path, target: Path) -> None:
    """Give a draft its name, unless another file has got that name meanwhile."""
    try:
        target.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError:
        draft.replace(target)
    _sync_folder(target.parent)


def _side_files(file: Path) -> list[Path]:
    return [file.with_name(file.name + side) for side in _SIDE_FILES]


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    _sync(folder)


def _unwritable(target: Path, error: OSError) -> StartupError:
    return StartupError(
        f"{target}: the backup cannot be written: {error.strerror}. Choose a file in a folder that "
        "exists, can be written and has room.",
        exit_code=_CANNOT_CREATE,
    )
