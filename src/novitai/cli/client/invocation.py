# SPDX-License-Identifier: Apache-2.0
"""One run of a client command: its options, its connection, its output and its end.

`command` declares a command. The function gets an `Invocation` and the options of its own; all
that commands have in common is here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from novitai.cli.client import tables
from novitai.cli.client.curl import CurlShown, RetryNotes, refuse
from novitai.cli.client.failures import CommandFailed, ExitCode, UsageFailed, told
from novitai.cli.client.profiles import ServerAccess, find
from novitai.cli.client.tables import ListColumn
from novitai.cli.client.wording import clean
from novitai.cli.examples import example as ending
from novitai.cli.output import ReaderGone, complain, note, say

if TYPE_CHECKING:
    import httpx2

    from novitai_client import Novitai
    from novitai_client.errors import NovitaiError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

TIMEOUT: Final = 30.0
"""Seconds for one call with its retries. The server ends a request after 30 seconds."""
_CONNECTION: Final = "Server and output"

_Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="The profile to use; it goes before NOVITAI_URL and NOVITAI_API_KEY.",
        rich_help_panel=_CONNECTION,
    ),
]
_Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The server to call; its key comes from NOVITAI_API_KEY or its profile.",
        rich_help_panel=_CONNECTION,
    ),
]
_Timeout = Annotated[
    float,
    typer.Option(
        "--within",
        min=0.1,
        max=3600,
        metavar="SECONDS",
        help="How long one call is tried again if the server does not answer.",
        rich_help_panel=_CONNECTION,
    ),
]
_Json = Annotated[
    bool,
    typer.Option("--json", help="Print the API's own object.", rich_help_panel=_CONNECTION),
]
_Curl = Annotated[
    bool,
    typer.Option(
        "--curl",
        help="Print the request as a curl line, and send nothing.",
        rich_help_panel=_CONNECTION,
    ),
]
_Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAMES",
        help="The columns to show, separated by commas.",
        rich_help_panel=_CONNECTION,
    ),
]
_NoHeader = Annotated[
    bool,
    typer.Option("--no-header", help="Leave out the headings.", rich_help_panel=_CONNECTION),
]
_Yes = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Answer every question with yes.", rich_help_panel=_CONNECTION
    ),
]
_COMMON: Final = {"profile": _Profile, "url": _Url, "within": _Timeout}
_OUTPUT: Final = {"as_json": _Json, "curl": _Curl}
_OF_LISTS: Final = {"columns": _Columns, "no_header": _NoHeader}
_DEFAULTS: Final = {"within": TIMEOUT, "profile": None, "url": None, "columns": None}


class Invocation:
    """One run of a command.

    Attributes:
        as_json: Whether the result is JSON.
        curl: Whether the request is shown and not sent.
        action: The possible effect of a change without a response; commands that change set it.
    """

    def __init__(
        self,
        *,
        profile: str | None = None,
        url: str | None = None,
        within: float = TIMEOUT,
        as_json: bool = False,
        curl: bool = False,
        columns: str | None = None,
        no_header: bool = False,
        yes: bool = False,
    ) -> None:
        self.profile = profile
        self.url = url
        self.within = within
        self.as_json = as_json
        self.curl = curl
        self.action = ""
        self._columns = columns
        self._header = not no_header
        self._yes = yes
        self._named = False
        self._http: httpx2.Client | None = None

    @cached_property
    def server(self) -> ServerAccess:
        """The server and the key."""
        return find(self.url, self.profile)

    @cached_property
    def client(self) -> Novitai:
        """The connection."""
        client, self._http = connect(self.server, self.within, curl=self.curl)
        return client

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._http is not None:
            self._http.close()

    def name_server(self) -> None:
        """Say once, on standard error, which server this is; not beside JSON."""
        if not self._named and not self.as_json and not self.curl:
            self._named = True
            note(f"novitai: {clean(self.server)}")

    def show_list(
        self,
        columns: Sequence[ListColumn[T]],
        rows: Iterable[T],
        name: str,
        *,
        empty: str,
        whole: Callable[[list[T]], object] | None = None,
    ) -> list[T]:
        """Write a list, and return its rows.

        Args:
            columns: All columns that there are.
            rows: The rows.
            name: The field of the API's object that holds them.
            empty: What to say if there are none.
            whole: Makes the JSON, where it is more than the rows.
        """
        wanted = tables.chosen(columns, self._columns)
        found = list(rows)
        if self.as_json:
            tables.show_json(whole(found) if whole else {name: found})
            return found
        self.name_server()
        if not found:
            note(f"novitai: {empty}")
        tables.show(wanted, found, header=self._header)
        return found

    def wanted(self, columns: Sequence[ListColumn[T]]) -> list[ListColumn[T]]:
        """Return the columns that are shown."""
        return tables.chosen(columns, self._columns)

    @property
    def header(self) -> bool:
        """Whether headings are shown."""
        return self._header

    def show(self, value: object, pairs: Callable[[], Sequence[tuple[str, object]]]) -> None:
        """Write an object: its JSON, or names with values."""
        if self.as_json:
            tables.show_json(value)
            return
        self.name_server()
        tables.facts(pairs())

    def result(self, value: object, text: str) -> None:
        """Write the result of a change: its JSON, or one line."""
        if self.as_json:
            tables.show_json(value, line=True)
        else:
            say(clean(text))

    def note(self, text: str) -> None:
        """Say something that is not part of the result; not beside JSON or a curl line."""
        if not self.as_json and not self.curl:
            note(f"novitai: {clean(text)}")

    def confirm(self, question: str) -> None:
        """Ask whether to go on.

        Raises:
            UsageFailed: there is no terminal to ask on, and no `--yes`.
            CommandFailed: the answer is no.
        """
        if self._yes or self.curl:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageFailed(
                f"this needs an answer, and there is no terminal: {clean(question)}",
                "`--yes` answers it.",
            )
        sys.stderr.write(f"{clean(question)} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise CommandFailed("nothing was done")


def connect(
    server: ServerAccess, within: float, *, curl: bool = False
) -> tuple[Novitai, httpx2.Client]:
    """Return a client that tells about retries, or shows its first request, and its connections."""
    import httpx2

    from novitai_client import Novitai
    from novitai_client.sending import certificates

    notes = RetryNotes(within)
    hooks: dict[str, list[Callable[..., Any]]] = {
        "request": [refuse if curl else notes.sent],
        "response": [notes.answered],
    }
    http = httpx2.Client(verify=certificates(server.url), event_hooks=hooks)
    return Novitai(server.url, server.key, timeout=within, http=http), http


def command(
    app: typer.Typer,
    name: str,
    *,
    example: str | Sequence[str],
    schema: str = "",
    lists: bool = False,
    asks: bool = False,
    bare: bool = False,
    hidden: bool = False,
) -> Callable[[F], F]:
    """Declare a command: add the common options, the examples, and the handling of errors.

    Args:
        app: The group of the command.
        name: Its name.
        example: Command lines for its help; a test runs each.
        schema: The object of the API that `--json` prints.
        lists: Whether it has `--columns` and `--no-header`.
        asks: Whether it has `--yes`.
        bare: Whether it has none of `--json` and `--curl`.
        hidden: Whether the help leaves it out.
    """
    examples = [example] if isinstance(example, str) else list(example)
    common = {
        **_COMMON,
        **({} if bare else _OUTPUT),
        **(_OF_LISTS if lists else {}),
        **({"yes": _Yes} if asks else {}),
    }

    def declare(function: F) -> F:
        def run(**given: Any) -> None:
            options = {name: given.pop(name) for name in common}
            invocation = Invocation(**options)
            code = perform(invocation, lambda: function(invocation, **given))
            if code:
                raise typer.Exit(code)

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter(
                one,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=_DEFAULTS.get(one, False),
            )
            for one, annotation in common.items()
        ]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + shared
        run.__doc__ = _paragraphs(function.__doc__ or "")
        run.__name__ = function.__name__
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
        app.command(name, epilog=_epilog(examples, schema), hidden=hidden)(run)
        return function

    return declare


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph, which a help of another width breaks elsewhere."""
    return "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n"))


def _epilog(examples: Sequence[str], schema: str) -> str:
    shown = ending(*examples)
    told_ = f"--json prints {schema}, which /docs of the server describes."
    return f"{shown}\n\n{told_}" if schema else shown


def perform(invocation: Invocation, work: Callable[[], object]) -> int:
    """Do the work of a command; print its failure, and return its exit code."""
    from novitai_client.errors import NovitaiError

    try:
        result = work()
    except CurlShown as shown:
        say(shown.line)
        return ExitCode.DONE
    except ReaderGone:
        return ExitCode.DONE  # `novitai ls | head -1` has got what it wanted
    except CommandFailed as failed:
        _complain(failed.message, failed.advice)
        return failed.code
    except NovitaiError as error:
        return _failed(error, invocation)
    except KeyboardInterrupt as error:
        for line in getattr(error, "__notes__", ()):
            complain(clean(line.removeprefix("novitai: ")))
        if invocation.action:
            complain(clean(f"interrupted. {invocation.action}"))
        return ExitCode.INTERRUPTED
    finally:
        with suppress(Exception):  # a connection that cannot be closed ends with the process
            invocation.close()
    return int(result) if isinstance(result, int) else ExitCode.DONE


def _failed(error: NovitaiError, invocation: Invocation) -> int:
    failure = told(error, action=invocation.action)
    _complain(failure.message, failure.advice)
    return failure.code


def _complain(message: str, advice: str) -> None:
    complain("\n".join(clean(line) if line else "" for line in message.split("\n")))
    if advice:
        complain(clean(advice))
