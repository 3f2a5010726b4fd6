# SPDX-License-Identifier: Apache-2.0
"""The message and the exit code of each failure. No failure of a client command is a traceback."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from novitai_client.errors import ApiError, NovitaiError
    from novitai_client.models.instances import Instance


class ExitCode(IntEnum):
    """The exit codes of the client commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    WRONG_STATE = 5
    NO_CAPACITY = 6
    OVER_LIMIT = 7
    WAIT_OVER = 8
    OUT_OF_REACH = 9
    UNAVAILABLE = 75
    INTERRUPTED = 130


class CommandFailed(Exception):
    """A command cannot do what was asked.

    Attributes:
        message: The cause.
        advice: The next step for the user, or an empty text.
        code: The exit code.
    """

    def __init__(self, message: str, advice: str = "", code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.code = code


class UsageFailed(CommandFailed):
    """An option, an argument or the configuration is wrong."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message, advice, ExitCode.USAGE)


@dataclass(frozen=True, slots=True)
class Told:
    """The text that is printed for a failure, and the exit code."""

    message: str
    advice: str
    code: ExitCode


_OVER_LIMIT: Final = frozenset(
    {"BUDGET_EXCEEDED", "KEY_LIMIT_EXCEEDED", "LIMIT_REACHED", "PRICE_ABOVE_QUOTE"}
)
TOO_DEAR: Final = frozenset({"PRICE_ABOVE_MAX", "PRICE_ABOVE_KEY_LIMIT", "PRICE_ABOVE_QUOTE"})
"""Reasons for which an offer is refused because of its price."""
_AWAY: Final = frozenset({408, 429, 502, 503, 504})
_WRONG_REQUEST: Final = frozenset({400, 405, 413, 415, 422})

_ADVICE: Final = {
    "UNAUTHORIZED": "`novitai login` keeps another key; `novitai doctor` looks for the cause.",
    "FORBIDDEN": "`novitai whoami` shows what this key may do; ask for a key with that scope.",
    "HTTPS_REQUIRED": "Use the https:// address of the server: `novitai login https://...`.",
    "HOST_NOT_ALLOWED": "Set NOVITAI_PUBLIC_URL of the server to the address that browsers use.",
    "INSTANCE_NOT_FOUND": "`novitai ls -a` lists all instances, also those that are gone.",
    "BUDGET_NOT_FOUND": "`novitai budgets list` shows all budgets.",
    "WEBHOOK_NOT_FOUND": "`novitai webhooks list` shows all webhooks.",
    "INVALID_PRODUCT_NAME": "`novitai offers` lists the products.",
    "INVALID_TEMPLATE_ID": "The message names the nearest templates.",
    "NO_CAPACITY": "`novitai offers` shows what can be had now; `--region any` looks everywhere.",
    "BUDGET_EXCEEDED": "`novitai budgets list` shows the budgets and what is left of them.",
    "KEY_LIMIT_EXCEEDED": "`novitai whoami` shows the limits of this key.",
    "LIMIT_REACHED": "`novitai limits NAME --max-spend USD` raises the limit.",
    "PRICE_ABOVE_QUOTE": "The price has risen: ask for another quote.",
    "QUOTE_EXPIRED": "A quote holds for 5 minutes: ask for another one.",
    "OPERATION_IN_PROGRESS": "Wait for it with `novitai wait`, then try again.",
    "INVALID_STATE": "`novitai get NAME` shows the status, and what runs on the instance.",
    "AMBIGUOUS_NAME": "Give the ID instead of the name; `novitai ls --columns id,name` shows it.",
    "INSTANCE_PROTECTED": "`novitai limits NAME --protect none` removes the protection.",
    "NOTHING_TO_KEEP": "`novitai limits NAME` shows what stops it.",
    "RATE_LIMIT_EXCEEDED": "Other programs use this key too: try again in a minute.",
}


def told(error: NovitaiError, *, action: str = "") -> Told:
    """Return what to print for an error of the client.

    Args:
        error: The error.
        action: The possible effect of a change without a response; empty for reads.
    """
    from novitai_client import errors

    if isinstance(error, errors.WaitTimedOut):
        return _of_wait(error.instance, "did not come in time", ExitCode.WAIT_OVER, error)
    if isinstance(error, errors.StatusOutOfReach):
        return _of_wait(error.instance, "cannot come", ExitCode.OUT_OF_REACH, error)
    if isinstance(error, errors.ConfigurationError):
        return Told(
            str(error),
            "`novitai login URL` keeps a profile; `novitai doctor` checks everything.",
            ExitCode.USAGE,
        )
    if isinstance(error, errors.ConnectionFailed):
        advice = "Is the server running, and is the address right? `novitai doctor` checks it."
        return Told(str(error), f"{action} {advice}".strip(), ExitCode.UNAVAILABLE)
    if isinstance(error, errors.UnexpectedResponse):
        away = error.status in _AWAY
        return Told(
            str(error),
            "Is this the address of a novitai server? `novitai doctor` checks it.",
            ExitCode.UNAVAILABLE if away else ExitCode.FAILED,
        )
    if isinstance(error, errors.ApiError):
        return _of_api(error)
    return Told(str(error), "", ExitCode.FAILED)


def _of_api(error: ApiError) -> Told:
    lines = [f"{error.message} ({error.code})"]
    if isinstance(error.details, list):
        lines += [line for one in error.details if (line := _detail(one))]
    advice = _ADVICE.get(error.code, "")
    if error.status >= 500 and error.request_id:
        advice = f"{advice} The log of the server has the request ID {error.request_id}.".strip()
    return Told("\n".join(lines), advice, code_of(error))


def _detail(one: dict[str, object]) -> str:
    place = one.get("field") or one.get("region")
    message = one.get("message")
    if not message:
        return ""
    product = f"{one['productId']} in " if "region" in one and "productId" in one else ""
    return f"  {product}{place}: {message}" if place else f"  {message}"


def code_of(error: ApiError) -> ExitCode:
    """Return the exit code for an error of the API."""
    if error.code in _OVER_LIMIT:
        return ExitCode.OVER_LIMIT
    if error.code == "NO_CAPACITY":
        rows = error.details if isinstance(error.details, list) else []
        dear = any(one.get("reason") in TOO_DEAR for one in rows)
        return ExitCode.OVER_LIMIT if dear else ExitCode.NO_CAPACITY
    by_status = {
        401: ExitCode.NOT_ALLOWED,
        403: ExitCode.NOT_ALLOWED,
        404: ExitCode.NOT_FOUND,
        409: ExitCode.WRONG_STATE,
        412: ExitCode.WRONG_STATE,
    }
    if error.status in _AWAY:
        return ExitCode.UNAVAILABLE
    if error.status in _WRONG_REQUEST:
        return ExitCode.USAGE
    return by_status.get(error.status, ExitCode.FAILED)


def _of_wait(instance: Instance | None, why: str, code: ExitCode, error: NovitaiError) -> Told:
    if instance is None:
        return Told(str(error), "", code)
    from novitai.cli.client.wording import hourly

    price = "" if instance.hourly_price is None else f" at {hourly(instance.hourly_price)}"
    ended = instance.status in {"terminated", "released"}
    # The policy of the server may delete a failed instance by itself.
    failed = instance.status == "failed"
    lives = "" if ended or failed else f"; it lives on{price}"
    state = f"{instance.name} ({instance.id}) is {instance.status}"
    cause = "" if instance.error is None else f": {instance.error.message} ({instance.error.code})"
    ending = "" if ended else f"`novitai delete {instance.id}` deletes it. "
    if failed:
        ending = f"{ending}`novitai get {instance.id}` shows whether it still costs anything. "
    return Told(
        f"the status {why}: {state}{cause}{lives}",
        f"{ending}`novitai events {instance.id}` shows what happened.",
        code,
    )
