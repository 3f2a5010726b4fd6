# SPDX-License-Identifier: Apache-2.0
"""Assigns API keys to accounts; takes effect only if `accountPerKey` is on."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from novitai.emulator.calling import JsonObject
from novitai.emulator.calls import caller_label
from novitai.emulator.control.endpoint import Context, Endpoint, Given, Nothing, endpoint
from novitai.emulator.control.observing import is_live

AccountName = Annotated[str, Field(min_length=1, max_length=64)]

_LABEL = re.compile(r"key-[0-9a-f]{12}")


class Assignment(Given):
    """API keys, or callers as the call log shows them, and the account to assign them to."""

    keys: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000)]
    account: AccountName | None = None


def assign(context: Context, given: Assignment) -> JsonObject:
    """Assign keys to an account; by default to that of the first key."""
    emulator = context.emulator
    callers = [key if _LABEL.fullmatch(key) else caller_label(key) for key in given.keys]
    account = given.account or emulator.account_of(callers[0])
    emulator.accounts.update(dict.fromkeys(callers, account))
    return {"account": account, "keys": callers}


def show_all(context: Context, _given: Nothing) -> JsonObject:
    """List all accounts with their assigned keys and their numbers of instances."""
    emulator = context.emulator
    now = emulator.clock.now()
    accounts: dict[str, tuple[list[str], list[bool]]] = {}
    for caller, account in emulator.accounts.items():
        accounts.setdefault(account, ([], []))[0].append(caller)
    for instance in emulator.ever():
        accounts.setdefault(instance.account, ([], []))[1].append(is_live(instance, now))
    return {
        "accounts": [
            {"account": name, "keys": keys, "instances": len(lives), "live": sum(lives)}
            for name, (keys, lives) in sorted(accounts.items())
        ]
    }


ENDPOINTS: list[Endpoint] = [
    endpoint("GET", "/accounts", Nothing, show_all),
    endpoint("POST", "/accounts", Assignment, assign),
]
