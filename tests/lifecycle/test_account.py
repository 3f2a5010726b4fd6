# SPDX-License-Identifier: Apache-2.0
"""Missing instances, unclear ownership and clock errors do not lose anything."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection
from structlog.testing import capture_logs

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.errors import Conflict, NotFound
from novitai.store import tables
from novitai.store.queries import account, events, instances
from novitai.upstream.models import Listing
from tests.domain.making import TESTER
from tests.lifecycle.actions import (
    CREATE,
    account_events,
    adopt,
    alive,
    ask,
    calls,
    fault,
    heal,
    operation_error,
    run_some,
)
from tests.lifecycle.world import REQUEST, World

RUNNING, FAILED = InstanceStatus.RUNNING, InstanceStatus.FAILED
STOPPED, TERMINATED = InstanceStatus.STOPPED, InstanceStatus.TERMINATED


def _restore(copies: Path, folder: Path) -> None:
    """Restore the files of a copied database."""
    for file in copies.glob("copy-*"):
        shutil.copyfile(file, folder / file.name.removeprefix("copy-"))


async def lose_all(world: World) -> str:
    """Make all instances disappear; return the digest of the held set."""
    await fault(world, kind="list", omit="*")
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.pass_time(100, step=5)
    return (await world.app.ownership.overview()).missing_digest


async def ended_with(world: World, instance_id: str) -> str | None:
    """Return the error in the event of an instance's end."""
    log = await world.app.database.read(lambda c: events.of_instance(c, instance_id))
    last = [one for one in log if one.type.value == "instance.terminated"][-1]
    error: Any = last.data.get("error")
    return error["code"] if error else None


async def test_the_key_of_another_account_ends_nothing(world: World) -> None:
    """With a foreign key the account is held; with the right one nothing has changed."""
    await world.emulator.call("PATCH", "settings", json={"accountPerKey": True})
    ids = await run_some(world, 3)
    await world.reopen(novita_api_key=SecretStr("sk-of-another-account"))
    await world.pass_time(1500, step=5)
    assert [await world.status(one) for one in ids] == ["running"] * 3
    assert await world.app.ownership.blocked()
    assert await account_events(world) == ["account.changed"]
    await ask(world, OperationKind.STOP, ids[0])
    await world.pass_time(1500, step=5)
    assert await world.status(ids[0]) == "stopping"
    assert await operation_error(world, ids[0]) == "ACCOUNT_HELD"
    await world.reopen(novita_api_key=SecretStr("sk-of-the-tests"))
    await world.until_status(ids[0], STOPPED, within=300)
    assert [await world.status(one) for one in ids[1:]] == ["running"] * 2
    assert not await world.app.ownership.blocked()
    assert len(await alive(world)) == 3


@pytest.mark.parametrize("before", [True, False])
async def test_a_delete_never_goes_to_another_account(world: World, *, before: bool) -> None:
    """With a foreign key, the delete of the only record waits."""
    await world.emulator.call("PATCH", "settings", json={"accountPerKey": True})
    [instance_id] = await run_some(world, 1)
    if before:
        await fault(world, kind="call", path="/gpu/instance/delete", status=503)
        await ask(world, OperationKind.DELETE, instance_id)
        await world.pass_time(5)
        await heal(world)
    await world.reopen(novita_api_key=SecretStr("sk-of-another-account"))
    await world.pass_time(60)
    if not before:
        await ask(world, OperationKind.DELETE, instance_id)
    await world.pass_time(1500, step=5)
    assert await world.status(instance_id) == "terminating"
    assert len(await alive(world)) == 1
    await world.reopen(novita_api_key=SecretStr("sk-of-the-tests"))
    await world.until_status(instance_id, TERMINATED, within=600)
    assert not await alive(world)


async def test_a_rotated_key_of_the_same_account_is_taken_over(world: World) -> None:
    """A rotated key is accepted without an event."""
    ids = await run_some(world, 2)
    await world.reopen(novita_api_key=SecretStr("sk-rotated"))
    await world.pass_time(300, step=5)
    assert [await world.status(one) for one in ids] == ["running"] * 2
    assert not await account_events(world)


async def test_a_key_that_opens_a_part_of_the_account_ends_nothing(world: World) -> None:
    """A record that the new key does not show is held."""
    ids = await run_some(world, 2)
    lost = (await world.view(ids[1]))["upstreamId"]
    await fault(world, kind="list", omit=[lost])
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.reopen(novita_api_key=SecretStr("sk-of-a-part"))
    await world.pass_time(1500, step=5)
    assert [await world.status(one) for one in ids] == ["running"] * 2
    assert await world.app.ownership.blocked()
    assert await account_events(world) == ["account.changed"]
    await heal(world)
    await world.pass_time(60, step=5)
    assert not await world.app.ownership.blocked()


async def test_a_mass_disappearance_is_confirmed_by_the_set_that_was_shown(world: World) -> None:
    """Only the digest of the set shown ends the records as gone."""
    ids = await run_some(world, 3)
    await fault(world, kind="list", omit="*")
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.pass_time(300, step=5)
    shown = await world.app.ownership.overview()
    assert [one.instance_id for one in shown.missing] == sorted(ids)
    with pytest.raises(Conflict) as caught:
        await world.do(world.app.ownership.confirm("0" * 32, actor=TESTER))
    assert caught.value.code == "NOTHING_TO_CONFIRM"
    count = await world.do(world.app.ownership.confirm(shown.missing_digest, actor=TESTER))
    assert count == 3
    assert [await world.status(one) for one in ids] == ["terminated"] * 3
    assert (await world.view(ids[0]))["error"]["code"] == "GONE"
    await heal(world)
    for one in ids:
        await world.until_status(one, RUNNING, within=300)
        assert "instance.reappeared" in await world.events(one)


@pytest.mark.parametrize("kind", [OperationKind.STOP, OperationKind.START, OperationKind.RESTART])
async def test_what_is_confirmed_as_gone_while_a_verb_waits_comes_back(
    world: World, kind: OperationKind
) -> None:
    """The verb ends, and the record ends by absence only."""
    ids = await run_some(world, 3)
    if kind is OperationKind.START:
        await ask(world, OperationKind.STOP, ids[0])
        await world.until_status(ids[0], STOPPED, within=300)
    back = STOPPED if kind is OperationKind.START else RUNNING
    digest = await lose_all(world)
    await ask(world, kind, ids[0])
    await world.pass_time(30)
    assert await operation_error(world, ids[0]) == "ACCOUNT_HELD"
    await world.do(world.app.ownership.confirm(digest, actor=TESTER))
    await world.until_status(ids[0], TERMINATED, within=60)
    assert await ended_with(world, ids[0]) == "GONE"
    await heal(world)
    await world.until_status(ids[0], back, within=300)
    assert "instance.reappeared" in await world.events(ids[0])
    assert "error" not in await world.view(ids[0])


async def test_what_is_confirmed_as_gone_while_it_migrates_comes_back(world: World) -> None:
    """A record confirmed as gone during a follow can be revived."""
    await world.emulator.call("PATCH", "settings", json={"delays": {"migrating": [900, 900]}})
    ids = await run_some(world, 3)
    upstream_id = (await world.view(ids[0]))["upstreamId"]
    await world.emulator.call("POST", f"instances/{upstream_id}/hold", json={"status": "migrating"})
    await world.until_status(ids[0], InstanceStatus.MIGRATING, within=100)
    await world.do(world.app.ownership.confirm(await lose_all(world), actor=TESTER))
    await world.until_status(ids[0], TERMINATED, within=60)
    assert await ended_with(world, ids[0]) == "GONE"
    await world.emulator.call("POST", f"instances/{upstream_id}/hold", json={"status": None})
    await heal(world)
    await world.until_status(ids[0], RUNNING, within=300)
    assert "instance.reappeared" in await world.events(ids[0])


async def test_the_absence_of_an_attempt_counts_only_after_a_hold(world: World) -> None:
    """An instance bought unseen just before a hold is found after it, and not bought again."""
    await run_some(world, 3)
    lost = {"path": "/gpu/instance/create", "drop": True, "when": "after", "times": 1}
    await fault(world, kind="call", **lost)
    instance_id = await world.create()

    async def sent() -> bool:
        return await calls(world, "create") == 4

    await world.until(sent, within=30)
    digest = await lose_all(world)
    await world.pass_time(400, step=5)
    await world.do(world.app.ownership.confirm(digest, actor=TESTER))
    await world.pass_time(60, step=5)
    await heal(world)
    await world.until_status(instance_id, RUNNING, within=600)
    assert await calls(world, "create") == 4


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_failed_instance_that_is_back_is_ended(world: World, renamed: bool) -> None:
    """Its marker identifies it, or its creation time if it was renamed. It never ran: delete it."""
    await run_some(world, 3)
    await world.emulator.call("PATCH", "settings", json={"delays": {"pulling": [400, 400]}})
    instance_id = await world.create()
    await world.pass_time(60)
    upstream_id = (await world.view(instance_id))["upstreamId"]
    if renamed:
        await world.emulator.call("PATCH", f"instances/{upstream_id}", json={"name": "other"})
        await world.pass_time(60)
    await world.do(world.app.ownership.confirm(await lose_all(world), actor=TESTER))
    await world.until_status(instance_id, InstanceStatus.FAILED, within=60)
    assert (await world.view(instance_id))["error"]["code"] == "INSTANCE_REMOVED"
    await heal(world)
    await world.pass_time(600, step=5)
    assert upstream_id not in await alive(world)
    words = await world.events(instance_id)
    assert "instance.drift" in words
    assert words[-1] == "instance.cleaned_up"


async def test_what_is_confirmed_as_gone_while_it_is_deleted_stays_deleted(world: World) -> None:
    """If it is listed again, it is deleted and not revived."""
    ids = await run_some(world, 3)
    digest = await lose_all(world)
    await ask(world, OperationKind.DELETE, ids[0])
    await world.do(world.app.ownership.confirm(digest, actor=TESTER))
    await world.until_status(ids[0], TERMINATED, within=60)
    assert await ended_with(world, ids[0]) is None
    await heal(world)
    await world.pass_time(300, step=5)
    assert await world.status(ids[0]) == "terminated"
    assert len(await alive(world)) == 2


async def test_a_delete_of_what_was_ended_by_absence_is_a_delete_like_any_other(
    world: World,
) -> None:
    """If it is listed again, it is deleted and not revived."""
    [instance_id] = await run_some(world, 1)
    await lose_all(world)
    await world.until_status(instance_id, TERMINATED, within=1200)
    assert await ended_with(world, instance_id) == "GONE"
    deletes = {"path": "/gpu/instance/delete", "method": "POST"}
    await fault(world, kind="call", **deletes, status=404, when="before")
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=1200)
    assert await ended_with(world, instance_id) is None
    await heal(world)
    await world.pass_time(300, step=5)
    assert await world.status(instance_id) == "terminated"
    assert "instance.reappeared" not in await world.events(instance_id)
    assert not await alive(world)


async def test_our_own_deletes_start_no_hold(world: World) -> None:
    """Deleting all three instances at once starts no hold."""
    ids = await run_some(world, 3)
    for one in ids:
        await ask(world, OperationKind.DELETE, one)
    for one in ids:
        await world.until_status(one, TERMINATED, within=300)
    assert not await account_events(world)


async def test_a_delete_that_a_person_confirms_leaves_during_a_hold(world: World) -> None:
    """A confirmed delete is sent during a hold; other calls wait."""
    ids = await run_some(world, 4)
    left_out = [(await world.view(one))["upstreamId"] for one in ids[:3]]
    await fault(world, kind="list", omit=left_out)
    await world.pass_time(120, step=5)
    assert await world.app.ownership.blocked()
    await ask(world, OperationKind.DELETE, ids[3])
    await world.pass_time(120, step=5)
    assert await world.status(ids[3]) == "terminating"
    assert len(await alive(world)) == 4
    await ask(world, OperationKind.DELETE, ids[3], confirmed=True)
    await world.until_status(ids[3], TERMINATED, within=300)
    assert len(await alive(world)) == 3


async def test_what_was_ended_by_absence_can_be_deleted(world: World) -> None:
    """The call is sent, because the instance may live though it is not listed."""
    [instance_id] = await run_some(world, 1)
    await fault(world, kind="list", omit="*")
    hidden = await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.until_status(instance_id, TERMINATED, within=1200)
    await world.emulator.call("DELETE", f"faults/{hidden}")
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=900)
    await world.pass_time(120)
    assert not await alive(world)


async def test_a_restored_backup_buys_nothing(world: World, tmp_path: Path, settings: Any) -> None:
    """A create whose instance was bought after the backup waits, and can be given it.

    It does not buy again, and no other write call is made.
    """
    path = Path(settings.database.removeprefix("sqlite:///"))
    await fault(world, kind="capacity", product="gpu-basic", every=1)
    waiting = await world.create(replace(REQUEST, region=None))
    await world.pass_time(20)
    await world.end()
    for name in (path.name, f"{path.name}-wal"):
        if (path.parent / name).exists():
            shutil.copyfile(path.parent / name, tmp_path / f"copy-{name}")
    await heal(world)
    await world.open()
    await world.until_status(waiting, RUNNING, within=900)
    later = await world.create(replace(REQUEST, name="later"))
    await world.until_status(later, RUNNING, within=900)
    assert await world.emulator.creates() > 0
    await world.end()
    bought = await alive(world)
    creates = await world.emulator.creates()
    (path.parent / f"{path.name}-wal").unlink(missing_ok=True)
    _restore(tmp_path, path.parent)
    await world.open()
    await world.pass_time(600, step=5)
    assert await world.emulator.creates() == creates
    assert await operation_error(world, waiting) == "ACCOUNT_HELD"
    listed = await world.app.ownership.unmanaged()
    assert sorted(one.row.upstream_id for one in listed if one.row.orphan) == sorted(bought)
    told = await account_events(world)
    assert told.count("account.orphan_found") == 2
    assert told.count("account.changed") == 1
    await world.do(world.app.ownership.confirm(None, actor=TESTER))
    await world.pass_time(120, step=5)
    assert await operation_error(world, waiting) == "ORPHAN_FOUND"
    [own] = [one.row for one in listed if one.row.name.startswith("my-instance")]
    assert await adopt(world, own.upstream_id, instance_id=waiting) == waiting
    await world.until_status(waiting, RUNNING, within=300)
    assert await world.emulator.creates() == creates


async def test_a_database_that_is_restored_under_a_running_process_is_noticed(
    world: World,
) -> None:
    """An unknown attempt shows that the database was restored."""
    [kept] = await run_some(world, 1)
    lost = await world.create(replace(REQUEST, name="later"))
    await world.until_status(lost, RUNNING, within=900)
    upstream_id = (await world.view(lost))["upstreamId"]

    def restore(connection: Connection) -> None:
        for table in (
            tables.events,
            tables.attempts,
            tables.operations,
            tables.billing_spans,
            tables.billing_states,
        ):
            connection.execute(table.delete().where(table.c.instance_id == lost))
        connection.execute(tables.instances.delete().where(tables.instances.c.id == lost))
        listed = tables.listed_instances
        connection.execute(listed.delete().where(listed.c.upstream_id == upstream_id))

    await world.app.database.write(restore)
    await world.pass_time(120, step=5)
    assert await account_events(world) == ["account.changed", "account.orphan_found"]
    assert await world.app.ownership.blocked()
    assert await world.status(kept) == "running"


async def test_an_orphan_that_is_dismissed_holds_up_nothing(world: World) -> None:
    """After the orphan is dismissed, the waiting create buys."""
    name = f"my-instance-nv{world.app.installation_id}{'u' * 16}"
    await fault(world, kind="capacity", product="gpu-basic", every=1)
    waiting = await world.create(replace(REQUEST, region=None))
    await world.emulator.call("POST", "seed", json={"names": [name]})
    await world.pass_time(60, step=1)
    await heal(world)
    await world.pass_time(60, step=1)
    assert await operation_error(world, waiting) == "ORPHAN_FOUND"
    [orphan] = await world.app.ownership.unmanaged()
    await world.do(world.app.ownership.dismiss(orphan.row.upstream_id))
    await world.until_status(waiting, RUNNING, within=600)
    with pytest.raises(NotFound):
        await world.do(world.app.ownership.dismiss("unknown"))


async def test_adopt_and_release(world: World) -> None:
    """A foreign instance is adopted, stopped and released."""
    await world.emulator.call("POST", "seed", json={"names": ["their box!"], "status": "running"})
    await world.pass_time(90, step=5)
    [theirs] = await world.app.ownership.unmanaged()
    adopted = await adopt(world, theirs.row.upstream_id)
    view = await world.view(adopted)
    assert (view["name"], view["origin"]) == ("their-box", "adopted")
    with pytest.raises(Conflict) as caught:
        await adopt(world, theirs.row.upstream_id)
    assert caught.value.code == "ALREADY_MANAGED"
    await world.until_status(adopted, RUNNING, within=120)
    await ask(world, OperationKind.STOP, adopted)
    await world.until_status(adopted, STOPPED, within=300)
    await world.do(world.app.ownership.release(adopted, actor=TESTER))
    assert await world.status(adopted) == "released"
    with pytest.raises(Conflict) as caught:
        await ask(world, OperationKind.DELETE, adopted)
    assert caught.value.code == "INSTANCE_RELEASED"
    await world.pass_time(120, step=5)
    [theirs] = await world.app.ownership.unmanaged()
    assert not theirs.row.orphan
    assert len(await alive(world)) == 1


async def test_what_another_installation_made_is_not_adopted(world: World) -> None:
    """An instance with another installation's marker is not adopted."""
    name = f"box-nv{'zzzzzz'}{'u' * 16}"
    await world.emulator.call("POST", "seed", json={"names": [name]})
    await world.pass_time(90, step=5)
    [theirs] = await world.app.ownership.unmanaged()
    assert not theirs.row.orphan
    with pytest.raises(Conflict) as caught:
        await adopt(world, theirs.row.upstream_id)
    assert caught.value.code == "MANAGED_ELSEWHERE"


@pytest.mark.parametrize("known", [True, False])
async def test_a_create_answered_with_the_id_of_a_stranger(world: World, *, known: bool) -> None:
    """The foreign instance is not touched, and the real purchase is assigned."""
    await world.emulator.call("POST", "seed", json={"names": ["strange"], "status": "running"})
    if known:
        await world.pass_time(120, step=5)
    await fault(world, **CREATE, replyId="strange", times=1)
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=600)
    rows = {row["name"]: row for row in await world.emulator.ever()}
    assert rows["strange"]["live"]
    assert (await world.view(instance_id))["upstreamId"] != rows["strange"]["id"]
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=300)
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=300)
    assert await alive(world) == [rows["strange"]["id"]]
    rows = {row["name"]: row for row in await world.emulator.ever()}
    assert rows["strange"]["status"] == "running"


async def test_an_id_that_no_listing_confirms_is_told(world: World) -> None:
    """Without a readable marker other evidence decides; without that, a person does."""
    await fault(world, kind="list", spoil="*", field="name", value="absent")
    instance_id = await world.create()
    await world.until_creates()
    [bought] = await alive(world)
    change = {"imageUrl": "another:image"}
    await world.emulator.call("PATCH", f"instances/{bought}", json=change)
    await world.pass_time(700, step=5)
    assert "instance.identity_unconfirmed" in await world.events(instance_id)
    await ask(world, OperationKind.DELETE, instance_id)
    await world.pass_time(60)
    assert len(await alive(world)) == 1
    assert await operation_error(world, instance_id) == "IDENTITY_UNCONFIRMED"


async def test_a_copy_with_our_marker_is_an_orphan_and_lives(world: World) -> None:
    """A copy with a record's marker is reported as an orphan, not deleted."""
    [instance_id] = await run_some(world, 1)
    own = (await world.view(instance_id))["upstreamId"]
    await world.pass_time(60)
    await world.emulator.call("POST", f"instances/{own}/copy", json={})
    await world.pass_time(600, step=5)
    assert len(await alive(world)) == 2
    [orphan] = await world.app.ownership.unmanaged()
    assert orphan.row.orphan
    assert orphan.row.attempt_known
    assert await account_events(world) == ["account.orphan_found"]
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=300)
    await world.pass_time(300, step=5)
    assert await alive(world) == [orphan.row.upstream_id]


async def test_a_sighting_that_fails_keeps_no_record_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect about one instance leaves the others their statuses, and is told in the log."""
    first, second = await run_some(world, 2)
    upstream = [(await world.view(one))["upstreamId"] for one in (first, second)]

    async def fail(*_: Any) -> Any:
        raise ValueError("a defect")

    monkeypatch.setattr(world.app.sync._applier, "sighted", fail)
    with capture_logs() as lines:
        await world.emulator.call("POST", f"instances/{upstream[0]}/copy", json={})
        await world.emulator.call("POST", f"instances/{upstream[1]}/stop", json={})
        await world.until_status(second, InstanceStatus.STOPPED, within=300)
    told = {line["instance_id"] for line in lines if line["event"] == "observation_failed"}
    assert told == {first}


@pytest.mark.parametrize("total", [{"totalDelta": 1}, {"total": "absent"}, {"total": "null"}])
async def test_totals_that_never_add_up_hang_nothing_up(
    world: World, total: dict[str, Any]
) -> None:
    """With wrong totals an accepted delete ends and a create is settled."""
    [first] = await run_some(world, 1)
    await fault(world, kind="list", **total)
    await fault(world, **CREATE, drop=True, when="before", times=1)
    lost = await world.create(replace(REQUEST, name="lost"))
    await world.until_status(lost, RUNNING, within=1500)
    await ask(world, OperationKind.DELETE, lost)
    await world.until_status(lost, TERMINATED, within=600)
    assert await alive(world) == [(await world.view(first))["upstreamId"]]


async def test_a_filter_that_finds_nothing_proves_nothing(world: World) -> None:
    """If totals and filter are wrong, the attempt stays unknown, with an error."""
    await run_some(world, 1)
    await world.emulator.call("PATCH", "settings", json={"nameFilter": "empty"})
    await fault(world, kind="list", totalDelta=1)
    await fault(world, **CREATE, drop=True, when="after", times=1)
    await fault(world, kind="list", omit="lost*", totalDelta=1)
    lost = await world.create(replace(REQUEST, name="lost"))
    await world.pass_time(1200, step=5)
    assert await world.emulator.creates() == 2
    assert await world.status(lost) in {"creating", "running"}


async def test_a_deadline_is_judged_on_what_was_seen_after_it(world: World) -> None:
    """After a downtime of twenty minutes a listing comes before the deadline."""
    instance_id = await world.create()
    await world.pass_time(20)
    await world.end()
    await world.clock.advance(1200)
    await world.emulator.reconcile()
    await world.open()
    await world.until_status(instance_id, RUNNING, within=60)
    assert "instance.failed" not in await world.events(instance_id)


async def test_a_list_that_is_away_keeps_no_user_from_deleting(world: World) -> None:
    """If listings fail after a start, stop and delete still work."""
    ids = await run_some(world, 1)
    await fault(world, kind="call", path="/gpu/instances", status=503)
    await world.reopen()
    await ask(world, OperationKind.DELETE, ids[0])
    waiting = await world.create(replace(REQUEST, name="waits"))
    await world.pass_time(240, step=5)
    assert not await alive(world)
    assert await operation_error(world, waiting) == "UPSTREAM_UNAVAILABLE"
    assert await world.emulator.creates() == 1
    await heal(world)
    await world.until_status(ids[0], TERMINATED, within=300)
    await world.until_status(waiting, RUNNING, within=600)


@pytest.mark.parametrize("restart", [True, False])
async def test_a_clock_that_was_ahead_freezes_nothing(world: World, *, restart: bool) -> None:
    """After a clock a day ahead is corrected, stop, delete and drift work."""
    world.clock.jump(86_400)
    await world.pass_time(5)
    ids = await run_some(world, 3)
    if restart:
        await world.end()
        world.clock.jump(-86_400)
        await world.open()
    else:
        world.clock.jump(-86_400)
    await world.pass_time(10)
    assert world.app.clock_watch.went_back is not None
    await ask(world, OperationKind.STOP, ids[0])
    await world.until_status(ids[0], STOPPED, within=200)
    await ask(world, OperationKind.DELETE, ids[1])
    await world.until_status(ids[1], TERMINATED, within=200)
    upstream_id = (await world.view(ids[2]))["upstreamId"]
    await world.emulator.call("POST", f"instances/{upstream_id}/stop", json={})
    await world.until_status(ids[2], STOPPED, within=200)


async def test_a_listing_that_began_before_the_clock_went_back_freezes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that ends after the stored times were corrected is not used."""
    world.clock.jump(86_400)
    await world.pass_time(5)
    [instance_id] = await run_some(world, 1)
    list_instances = world.app.client.list_instances
    held: list[int] = []

    async def slow() -> Listing:
        listing = await list_instances()
        if not held:
            held.append(listing.began_at)
            world.clock.jump(-86_400)
            await world.clock.sleep(5)
        return listing

    monkeypatch.setattr(world.app.client, "list_instances", slow)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=400)
    assert held
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=400)


async def test_a_time_written_after_the_clock_went_back_is_corrected_too(world: World) -> None:
    """A step that began before the jump may write its times after the correction."""
    [instance_id] = await run_some(world, 1)
    world.clock.jump(-86_400)
    await world.pass_time(3)
    ahead = {"acted_at": world.clock.now() + 86_400_000}
    await world.app.database.write(lambda c: instances.update_columns(c, instance_id, ahead))
    await world.pass_time(310, step=5)
    row = await world.app.database.read(lambda c: instances.load(c, instance_id))
    assert row is not None
    assert row.acted_at is not None
    assert row.acted_at <= world.clock.now()


async def test_an_unreadable_name_keeps_an_attempt_unknown(world: World) -> None:
    """If the name of a new instance is unreadable, nothing is bought again."""
    await fault(world, kind="list", spoil="my-*", field="name", value="null")
    await fault(world, **CREATE, drop=True, when="after", times=1)
    await world.create()
    await world.pass_time(900, step=5)
    assert await world.emulator.creates() == 1


async def test_what_was_deleted_and_lives_is_deleted_after_an_outage(world: World) -> None:
    """Deletions that met a fault do not count, so the instance does not bill on for them."""
    [instance_id] = await run_some(world, 1)
    deletes = {"path": "/gpu/instance/delete", "method": "POST"}
    lying = await fault(world, kind="call", **deletes, rawBody="{}", when="before")
    hidden = await fault(world, kind="list", omit="*")
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=300)
    for one in (lying, hidden):
        await world.emulator.call("DELETE", f"faults/{one}")
    await fault(world, kind="call", **deletes, status=503, when="before")
    await world.pass_time(300, step=5)
    assert await alive(world)
    await heal(world)
    await world.pass_time(300, step=5)
    assert not await alive(world)
    assert "instance.delete_ineffective" not in await world.events(instance_id)


async def test_what_was_deleted_and_lives_is_deleted_three_times_more(world: World) -> None:
    """After three more deletes an event is appended, and it is an orphan."""
    [instance_id] = await run_some(world, 1)
    deletes = {"path": "/gpu/instance/delete", "method": "POST"}
    await fault(world, kind="call", **deletes, rawBody="{}", when="before")
    hidden = await fault(world, kind="list", omit="*")
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=300)
    await world.emulator.call("DELETE", f"faults/{hidden}")
    await world.pass_time(600, step=5)
    assert (await world.events(instance_id)).count("instance.delete_ineffective") == 1
    counts = (await world.emulator.call("GET", "counts"))["counts"]
    assert counts["POST /gpu/instance/delete"] == 4
    [listed] = await world.app.database.read(account.unmanaged)
    assert listed.orphan
