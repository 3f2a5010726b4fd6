# SPDX-License-Identifier: Apache-2.0
"""Credentials of image registries (upstream.md §9)."""

from __future__ import annotations

from novitai.emulator import wire
from novitai.emulator.calling import Call, Reply, ok, text
from novitai.emulator.errors import Refusal, not_found
from novitai.emulator.gate import RouteTable
from novitai.emulator.resources import RegistryAuth
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator


def list_all(emulator: Emulator, _rows: Rows, _call: Call) -> Reply:
    """`GET /repository/auths`."""
    masked = emulator.settings.mask_passwords
    return ok({"data": [wire.auth(each, masked=masked) for each in emulator.auths.values()]})


def save(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /repository/auth/save`; the reply has no ID, so clients look it up by name."""
    auth = RegistryAuth(
        f"auth-{emulator.hex_id(8)}",
        text(call.body, "name", least=1, most=500),
        text(call.body, "username", least=1, most=511),
        text(call.body, "password", least=1, most=1024),
    )
    emulator.auths[auth.id] = auth
    return ok({})


def delete(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /repository/auth/delete`."""
    auth_id = text(call.body, "id", least=1)
    if auth_id not in emulator.auths:
        raise not_found("repository auth")
    if emulator.in_use(auth=auth_id):
        raise Refusal(400, "IMAGE_AUTH_IN_USE", "image auth is in use")
    del emulator.auths[auth_id]
    return ok({})


ROUTES: RouteTable = {
    ("GET", "/repository/auths"): list_all,
    ("POST", "/repository/auth/save"): save,
    ("POST", "/repository/auth/delete"): delete,
}
