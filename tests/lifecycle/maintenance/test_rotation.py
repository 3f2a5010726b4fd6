# SPDX-License-Identifier: Apache-2.0
"""A rotation of the secret key loses nothing: not a key, a session, a secret or a record."""

from __future__ import annotations

import base64
from functools import partial

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Table, select

from novitai.domain.api_key import KeyRequest, Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.errors import WrongSecretKey
from novitai.lifecycle.api_keys import ADMIN_KEY_ID
from novitai.lifecycle.maintenance import rotation
from novitai.store.queries import api_keys, coordination
from novitai.store.queries.sealed import SEALED
from novitai.store.tables import metadata
from novitai.store.vault import SECRET_CHECK, Vault
from tests.lifecycle.actions import ask, run_some
from tests.lifecycle.world import World, on_both_stores

READER = KeyRequest("ci", frozenset({Scope.READ}))
OLD, NEW = "a secret of at least thirty-two bytes", "n" * 40
ADMIN = SecretStr("correct-horse-battery-staple")
ROTATING = {"secret_key": SecretStr(NEW), "secret_key_previous": SecretStr(OLD)}
ROTATED = {"secret_key": SecretStr(NEW), "secret_key_previous": None}


def sealed_values(connection: Connection) -> list[tuple[str, bytes]]:
    """Return every sealed value with its purpose."""
    found = []
    for one in SEALED:
        values = connection.execute(select(one.column).where(one.column.is_not(None))).scalars()
        found += [(one.purpose, bytes(value)) for value in values]
    secret = coordination.value(connection, "webhook_secret")
    check = coordination.value(connection, SECRET_CHECK)
    assert secret is not None
    assert check is not None
    found.append(("webhook_secret", base64.b64decode(secret)))
    return [*found, (SECRET_CHECK, bytes.fromhex(check))]


def test_every_sealed_column_is_known() -> None:
    """A new column of sealed values must be resealed too."""
    columns = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if column.name.endswith("_sealed")
    }
    known = set()
    for one in SEALED:
        table = one.column.table
        assert isinstance(table, Table)
        known.add(f"{table.name}.{one.column.name}")
    assert known == columns


@on_both_stores
async def test_a_rotation_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, sessions, signing secrets, credentials and launch settings outlive the old secret."""
    # Two instances are two pages, and the second is reached.
    monkeypatch.setattr(rotation, "_PAGE", 1)
    await world.reopen(admin_api_key=ADMIN)
    instance_id, _ = await run_some(world, 2)
    used, unused = await world.app.keys.create(READER), await world.app.keys.create(READER)
    by_key = await world.app.keys.authenticate(used.text)
    by_settings = world.app.keys.settings_caller
    assert by_key is not None
    assert by_settings is not None
    sessions = [await world.app.sessions.begin(one) for one in (by_key, by_settings)]
    signing = world.app.signing_secrets
    credentials = await world.app.operating.credentials(instance_id)
    assert credentials

    await world.reopen(**ROTATING)
    await world.pass_time(5)
    caller = await world.app.keys.authenticate(used.text)
    assert caller is not None
    assert caller.key_id == used.key.id
    found = [await world.app.sessions.authenticate(one.secret) for one in sessions]
    assert [one and one.key_id for one in found] == [used.key.id, ADMIN_KEY_ID]
    await world.app.keys.flush()
    values = await world.app.database.read(sealed_values)
    present = Vault(NEW.encode())
    assert {purpose for purpose, _ in values} >= {"launch", "credentials", SECRET_CHECK}
    assert [one for one in values if present.opened(*one) is None] == []
    others = partial(api_keys.of_other_secrets, secret_id=present.secret_id, now=world.clock.now())
    assert [one.id for one in await world.app.database.read(others)] == [unused.key.id]

    await world.reopen(**ROTATED)
    assert world.app.signing_secrets == signing
    assert await world.app.operating.credentials(instance_id) == credentials
    assert await world.app.keys.authenticate(used.text) is not None
    assert await world.app.keys.authenticate(unused.text) is None
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, InstanceStatus.STOPPED, within=300)


async def test_a_rotation_that_is_cut_off_goes_on(world: World) -> None:
    """Until all is resealed no process starts without the old secret; then it is done with it."""
    await run_some(world, 1)
    await world.end()
    world.settings = world.settings.model_copy(update=ROTATED)
    with pytest.raises(WrongSecretKey, match="NOVITAI_SECRET_KEY_PREVIOUS"):
        await world.open()
    world.settings = world.settings.model_copy(update=ROTATING)
    await world.open(work=False)
    await world.pass_time(5)
    await world.end()
    world.settings = world.settings.model_copy(update=ROTATED)
    with pytest.raises(WrongSecretKey):
        await world.open()
    world.settings = world.settings.model_copy(update=ROTATING)
    await world.open()
    await world.pass_time(5)
    await world.reopen(**ROTATED)


async def test_what_the_old_secret_seals_meanwhile_is_resealed(world: World) -> None:
    """A process that knows the old secret alone may still write; the next round finds it."""
    await world.reopen(**ROTATING)
    await world.pass_time(5)
    await run_some(world, 1)
    stale = Vault(OLD.encode()).seal("launch", b"{}")
    launch = SEALED[0].column

    def spoil(connection: Connection) -> None:
        table = launch.table
        assert isinstance(table, Table)
        connection.execute(table.update().values({launch.name: stale}))

    await world.app.database.write(spoil)
    await world.pass_time(700, step=50)
    values = await world.app.database.read(sealed_values)
    assert [one for one in values if Vault(NEW.encode()).opened(*one) is None] == []
