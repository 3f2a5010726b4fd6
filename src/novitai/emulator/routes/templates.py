# SPDX-License-Identifier: Apache-2.0
"""Templates (upstream.md §10)."""

from __future__ import annotations

from collections.abc import Mapping

from novitai.emulator import wire
from novitai.emulator.calling import (
    Call,
    JsonObject,
    Reply,
    integer,
    objects,
    ok,
    one_of,
    text,
)
from novitai.emulator.errors import invalid, not_found
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Port
from novitai.emulator.resources import Template
from novitai.emulator.routes.creating import checked_port
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

CHANNELS = ("private", "official", "community")


def list_all(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /templates`; `channel` may name several channels, separated by commas."""
    offset, size = call.page()
    channels = frozenset(filter(None, call.param("channel").split(",")))
    name, kind = call.param("name").lower(), call.param("type")
    matching = [
        each
        for each in emulator.templates.values()
        if (not channels or each.channel in channels)
        and (not kind or each.type == kind)
        and name in each.name.lower()
    ]
    return ok(
        {
            "template": [wire.template(each) for each in matching[offset : offset + size]],
            "pageSize": size,
            "pageNum": call.number("pageNum", default=1),
            "total": len(matching),
        }
    )


def get(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /template`."""
    template = _wanted(emulator, call.param("templateId"))
    return ok({"template": wire.template(template)})


def create(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /template/create`."""
    body = _document(call.body)
    emulator.next_template += 1
    template = _parsed(emulator, str(emulator.next_template), body, call.now)
    emulator.templates[template.id] = template
    return ok({"templateId": template.id})


def update(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /template/update`: replace the whole template."""
    body = _document(call.body)
    old = _wanted(emulator, text(body, "Id", least=1))
    emulator.templates[old.id] = _parsed(emulator, old.id, body, old.created_at)
    return ok({"templateId": old.id})


def delete(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /template/delete`."""
    template = _wanted(emulator, text(call.body, "templateId", least=1))
    del emulator.templates[template.id]
    return ok({"templateId": template.id})


def _wanted(emulator: Emulator, template_id: str) -> Template:
    template = emulator.templates.get(template_id)
    if template is None:
        raise not_found("template", "TEMPLATE_NOT_FOUND")
    return template


def _document(body: Mapping[str, object]) -> JsonObject:
    document = body.get("template")
    if not isinstance(document, dict):
        raise invalid("template is required")
    return document


def _parsed(
    emulator: Emulator, template_id: str, body: Mapping[str, object], created_at: float
) -> Template:
    image_auth = text(body, "imageAuth")
    if image_auth and image_auth not in emulator.auths:
        raise not_found("image auth")
    return Template(
        id=template_id,
        name=text(body, "name", least=1),
        image=text(body, "image", least=1, most=500),
        rootfs_size=integer(body, "rootfsSize", least=1),
        channel=one_of(text(body, "channel") or "private", CHANNELS, "channel"),
        type=one_of(text(body, "type") or "instance", ("instance", "serverless"), "type"),
        readme=text(body, "readme", most=102_400),
        image_auth=image_auth,
        start_command=text(body, "startCommand", most=2047),
        entrypoint=text(body, "entrypoint", most=2047),
        ports=tuple(_ports(body)),
        volumes=tuple(
            (
                text(each, "type", least=1),
                integer(each, "size"),
                text(each, "mountPath", least=1, most=4095),
            )
            for each in objects(body, "volumes")
        ),
        envs=tuple(
            (text(each, "key", most=511), text(each, "value", most=4095))
            for each in objects(body, "envs")
        ),
        tools=tuple(
            (
                text(each, "name", least=1),
                text(each, "describe"),
                integer(each, "port", least=1, most=65535),
                one_of(text(each, "type"), ("http", "tcp"), "tool type"),
            )
            for each in objects(body, "tools")
        ),
        min_cuda_version=text(body, "minCudaVersion"),
        created_at=created_at,
    )


def _ports(body: Mapping[str, object]) -> list[Port]:
    ports = []
    for group in objects(body, "ports"):
        numbers = group.get("ports")
        if not isinstance(numbers, list) or not all(isinstance(each, int) for each in numbers):
            raise invalid("template.ports[].ports must be a list of numbers")
        if len(numbers) > 10:
            raise invalid("template.ports[].ports must have at most 10 entries")
        ports += [checked_port(number, text(group, "type")) for number in numbers]
    return ports


ROUTES: RouteTable = {
    ("GET", "/templates"): list_all,
    ("GET", "/template"): get,
    ("POST", "/template/create"): create,
    ("POST", "/template/update"): update,
    ("POST", "/template/delete"): delete,
}
