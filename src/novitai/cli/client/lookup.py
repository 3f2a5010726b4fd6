# SPDX-License-Identifier: Apache-2.0
"""Find an instance by its ID or its name."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from novitai.cli.client.failures import CommandFailed, ExitCode
from novitai.cli.client.wording import clean

if TYPE_CHECKING:
    from novitai.cli.client.invocation import Invocation
    from novitai_client.models.instances import Instance

_ID: Final = "inst_"


def is_id(text: str) -> bool:
    """Whether a text has the form of an ID. A name may have it too."""
    return text.startswith(_ID)


def find_instance(invocation: Invocation, wanted: str) -> Instance:
    """Return the instance with an ID, or the one live instance with a name.

    Raises:
        CommandFailed: there is none, or several have the name.
    """
    from novitai_client.errors import NotFound

    client = invocation.client
    if is_id(wanted):
        with suppress(NotFound):
            return client.instances.get(wanted)
    found = list(client.instances.list(name=wanted))
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(f"{one.id} ({one.status})" for one in found)
        raise CommandFailed(
            f"several instances are called {clean(wanted)!r}: {ids}",
            "Give the ID instead of the name.",
            ExitCode.WRONG_STATE,
        )
    raise CommandFailed(
        f"no instance is called {clean(wanted)!r} or has this ID on {invocation.server}",
        "`novitai ls -a` lists all instances, also those that are gone.",
        ExitCode.NOT_FOUND,
    )


def find_id(invocation: Invocation, wanted: str) -> str:
    """Return the ID of an instance, for a command that needs no more of it.

    With `--curl`, an ID is returned as it is, so that the request after the look-up is shown.

    Raises:
        CommandFailed: there is no such instance, or several have the name.
    """
    if invocation.curl and is_id(wanted):
        return wanted
    return find_instance(invocation, wanted).id


def complete_names(incomplete: str) -> list[str]:
    """Return the names of live instances for the completion of a shell; none if anything fails."""
    from novitai.cli.client.invocation import connect
    from novitai.cli.client.profiles import find

    try:
        client, http = connect(find(None, None), 1.5)
        with http:
            return [one.name for one in client.instances.list() if one.name.startswith(incomplete)]
    except Exception:  # a shell that waits for a completion shows no error
        return []
