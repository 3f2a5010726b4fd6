# SPDX-License-Identifier: Apache-2.0
"""`novitai copy`: move an installation from a file to PostgreSQL, or back."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from novitai.cli.output import say
from novitai.errors import SettingsError

_SHORT: Final = 16


def copy(
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="sqlite:////PATH or postgresql://...")
    ],
    target: Annotated[
        str,
        typer.Option("--to", metavar="URL", help="The same; a database without rows of novitai."),
    ],
) -> None:
    """Copy a database to an empty one; no process may use either of them.

    The copy is whole or it is not made. It sends no call that changes anything to Novita until you
    confirm it with `novitai doctor --confirm`.
    """
    from novitai.clock import SystemClock
    from novitai.ids import Ids
    from novitai.store.copying import copy as copy_database

    copied = copy_database(
        _checked("--from", source), _checked("--to", target), SystemClock(), Ids()
    )
    for table in copied.tables:
        say(f"{table.name:<22} {table.rows:>9} rows  {table.digest[:_SHORT]}")
    say(f"novitai: copied and compared. The copy is the installation {copied.target}; it knows the")
    say(f"novitai: instances of {copied.source} as its own.")
    say(
        "novitai: it needs the same secret key: the text of secret.key is what NOVITAI_SECRET_KEY "
        "takes. Do not run both: start the copy alone, look at `novitai doctor`, then confirm it "
        "with `novitai doctor --confirm`."
    )


def _checked(option: str, url: str) -> str:
    """Return a URL of a database.

    Raises:
        SettingsError: it is none.
    """
    from novitai import postgresql_url, urls
    from novitai.store.engine.sqlite_file import path_of

    try:
        if urls.database_scheme(url) == "postgresql":
            postgresql_url.check(url)
        else:
            path_of(url)
    except SettingsError as error:
        raise SettingsError(str(error).replace("NOVITAI_DATABASE_URL", option)) from None
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from None
    return url
