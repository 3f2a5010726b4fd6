# SPDX-License-Identifier: Apache-2.0
"""The HTTP port mappings: the responses of the gateway in front of an instance."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from novitai.emulator.instances import Instance, Status, phase
from novitai.emulator.state import Emulator

WEB_TERMINAL = 2224


async def answer(request: Request) -> Response:
    """`/_proxy/{id}/{port}/{start}/...`: 502 until the instance has booted, then its response.

    The path of an earlier run returns 502; a path without a run means the current run.
    """
    emulator: Emulator = request.app.state.emulator
    emulator.settle()
    instance = emulator.instance_or_none(request.path_params["instance_id"])
    port = request.path_params["port"]
    if instance is None or not _serves(instance, port):
        return PlainTextResponse("no such mapping\n", 404)
    run = request.path_params["rest"].split("/", 1)[0]
    seen = phase(instance, emulator.clock.now())
    if not seen.booted or (run.isdigit() and int(run) != instance.starts):
        return PlainTextResponse("502 Bad Gateway\n", 502)
    return JSONResponse(
        {"instance": instance.id, "name": instance.name, "port": port, "run": instance.starts},
        instance.service_status,
    )


async def log(request: Request) -> Response:
    """`/_proxy/{id}/log/{kind}`: the system log or instance log as text."""
    emulator: Emulator = request.app.state.emulator
    emulator.settle()
    instance = emulator.instance_or_none(request.path_params["instance_id"])
    if instance is None:
        return PlainTextResponse("no such instance\n", 404)
    now = emulator.clock.now()
    lines = [f"{int(step.at)} {step.status}" for step in instance.steps if step.at <= now]
    if phase(instance, now).status is Status.RUNNING:
        lines.append(f"{int(now)} {request.path_params['kind']} log of {instance.name}")
    return PlainTextResponse("\n".join(lines) + "\n")


def _serves(instance: Instance, port: int) -> bool:
    if port == WEB_TERMINAL:
        return True
    return any(each.port == port and each.type == "http" for each in instance.ports) or any(
        tool.port == port for tool in instance.tools
    )
