# SPDX-License-Identifier: Apache-2.0
"""Carrying out a command for a request, once per `Idempotency-Key`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.responses import Response

from novitai.api.http.answers import from_reply
from novitai.api.http.body import JsonBody
from novitai.api.routing.queries import idempotency_key
from novitai.api.routing.router import Call
from novitai.lifecycle.commands.idempotency import Command, Commands, Reply, Transaction

T = TypeVar("T")


async def run_once(
    commands: Commands,
    call: Call,
    body: JsonBody,
    command: Transaction[T] | Command[T],
    render: Callable[[T], Reply],
) -> Response:
    """Carry out a command, or repeat the answer that its key was given before.

    Args:
        commands: Carries it out.
        call: The request: its `Idempotency-Key` and its deadline.
        body: What was sent; the key is bound to it.
        command: What is to be done.
        render: Renders the answer.

    Raises:
        ValidationFailed: the key is malformed.
    """
    reply = await commands.run(
        command, render, key=idempotency_key(call, body), deadline=call.context.deadline
    )
    return from_reply(reply)
