# SPDX-License-Identifier: Apache-2.0
"""Wait for a status. Every exception of a wait has the instance as it was last seen."""

from __future__ import annotations

import math
from typing import Final, NoReturn

from pydantic import ValidationError

from novitai_client.errors import Conflict, NovitaiError, StatusOutOfReach, WaitTimedOut
from novitai_client.models.instances import Instance
from novitai_client.sending import Api, read
from novitai_client.wire import path, query
from novitai_client.words import InstanceStatus

TIMEOUT: Final = 900.0
"""Seconds. The server gives an instance 10 minutes after its purchase."""
POLL_SECONDS: Final = 50
"""The longest wait in one request; many proxies end a request after a minute."""
GRACE_SECONDS: Final = 10.0
"""The time for the response to a request that waited to the deadline."""
_EARLY_SECONDS: Final = 1.0
"""The pause after a response that came early, because the server was ending."""


async def wait(
    api: Api, instance_id: str, status: InstanceStatus, seconds: float, *, rented: bool = False
) -> Instance:
    """Wait until an instance has a status.

    Args:
        api: The API.
        instance_id: The instance.
        status: The status.
        seconds: How long to wait.
        rented: Whether the caller deletes the instance if the wait fails; else each failure says
            that the instance lives on.

    Raises:
        WaitTimedOut: the time is over.
        StatusOutOfReach: it cannot reach the status without a new request.
        NovitaiError: any other error.
    """
    deadline = api.clock.monotonic() + seconds
    place = path("api", "instances", instance_id)
    seen: Instance | None = None
    try:
        seen = read(Instance, await api.send("GET", place, deadline=deadline))
        while seen.status != status:
            left = deadline - api.clock.monotonic()
            if left <= 0:
                _give_up(seen, status, seconds, rented=rented)
            began, asked = api.clock.monotonic(), max(1, min(POLL_SECONDS, math.ceil(left)))
            answer = await api.send(
                "GET",
                f"{place}/wait",
                query=query(status=status, timeout=asked),
                deadline=deadline + GRACE_SECONDS,
                attempt=asked + GRACE_SECONDS,
            )
            seen = read(Instance, answer)
            if answer.status == 202 and api.clock.monotonic() - began < min(_EARLY_SECONDS, left):
                await api.transport.sleep(min(_EARLY_SECONDS, left))
    except NovitaiError as error:
        failure = _out_of_reach(error)
        failure.instance_id = instance_id
        failure.instance = failure.instance or seen
        if failure is error:
            raise
        raise failure from None
    except BaseException as error:  # an interrupt must not lose the ID of what may be billed
        if not rented:
            error.add_note(f"novitai: instance {instance_id} lives on{_price(seen)}")
        raise
    return seen


def _give_up(instance: Instance, status: str, seconds: float, *, rented: bool) -> NoReturn:
    told = f"instance {instance.id} is not {status} after {seconds:g} s but {instance.status}"
    lives_on = f"; it lives on{_price(instance)}: instances.delete({instance.id!r}) deletes it"
    error = WaitTimedOut(told if rented else told + lives_on)
    error.instance = instance
    raise error


def _price(instance: Instance | None) -> str:
    if instance is None or instance.hourly_price is None:
        return ""
    return f" at ${instance.hourly_price:g} an hour"


def _out_of_reach(error: NovitaiError) -> NovitaiError:
    """Return the error for a status that cannot be reached any more, with the instance in it."""
    details = error.details if isinstance(error, Conflict) else None
    if not isinstance(details, dict) or "instance" not in details:
        return error
    failure = StatusOutOfReach(*error.args)
    failure.__dict__.update(error.__dict__)
    try:
        failure.instance = Instance.model_validate(details["instance"])
    except ValidationError:
        failure.instance = None
    return failure
