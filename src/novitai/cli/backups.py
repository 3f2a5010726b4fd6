# SPDX-License-Identifier: Apache-2.0
"""`novitai backup` and `novitai restore`: copies of the embedded database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from novitai.cli.output import say
from novitai.errors import StartupError

if TYPE_CHECKING:
    from novitai.settings import Settings

_CONFIG = 78  # EX_CONFIG of sysexits(3)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file of the backup.")]


def backup(
    file: File,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Leave the secret key out.")
    ] = False,
) -> None:
    """Copy the embedded database to a file, also while a server uses it.

    The secret key goes into FILE.secret.key beside it.
    """
    from novitai.settings import load
    from novitai.store.backup import back_up
    from novitai.store.engine.sqlite_file import path_of

    settings = load()
    _insist_on_file(settings, "pg_dump")
    database = path_of(settings.database)
    secret = None if without_key else _secret(settings)
    made = back_up(database, file, secret)
    say(f"novitai: {database}: {made.instances} instances, {made.size} bytes -> {made.file}")
    if made.key_file is not None:
        say(
            f"novitai: its secret key is in {made.key_file}. Keep the two in different places: who "
            "has both can read the stored secrets."
        )
    else:
        say(
            "novitai: the secret key was left out. Keep a copy of it in another place than the "
            "backup: without it the stored API keys and secrets are lost."
        )


def restore(file: File) -> None:
    """Put a backup in place of the embedded database; no server may use it.

    The present files are kept. No call that changes anything is sent to Novita until you confirm
    with `novitai doctor --confirm` that the restored records are right.
    """
    from novitai.clock import SystemClock
    from novitai.settings import load
    from novitai.store.backup import restore as put_back
    from novitai.store.engine.sqlite_file import path_of

    settings = load()
    _insist_on_file(settings, "pg_restore")
    configured = settings.secret_key
    restored = put_back(
        file,
        path_of(settings.database),
        settings.data_folder,
        SystemClock(),
        configured=None if configured is None else configured.get_secret_value().encode(),
    )
    say(f"novitai: {file}: {restored.instances} instances -> {restored.file}")
    for one in restored.kept:
        say(f"novitai: the file that was there before is {one}")
    if restored.key_replaced:
        say("novitai: the secret key of the backup was installed")
    say(
        "novitai: start the server: it sends no call that changes anything to Novita. Let `novitai "
        "doctor` show what differs, and confirm it with `novitai doctor --confirm`."
    )


def _insist_on_file(settings: Settings, tool: str) -> None:
    if not settings.embedded:
        raise StartupError(
            f"the database is on PostgreSQL: use {tool}. This command is for the embedded file.",
            exit_code=_CONFIG,
        )


def _secret(settings: Settings) -> bytes:
    from novitai.store.vault import SECRET_FILE, read_secret

    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    path = settings.data_folder / SECRET_FILE
    secret = read_secret(path)
    if secret is None:
        raise StartupError(
            f"{path}: the secret key is missing. Restore it, set NOVITAI_SECRET_KEY, or use "
            "--without-key.",
            exit_code=_CONFIG,
        )
    return secret
