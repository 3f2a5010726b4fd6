# SPDX-License-Identifier: Apache-2.0
"""What is missing, whose it is, and what a clock says is doubted before anything is lost."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.domain.requests import AdoptRequest
from novitai.errors import Conflict, NotFound
from novitai.store.queries import account, events
from tests.lifecycle.conftest import REQUEST, World

RUNNING, FAILED = InstanceStatus.RUNNING, InstanceStatus.FAILED
STOPPED, TERMINATED = InstanceStatus.STOPPED, InstanceStatus.TERMINATED
CREATE = {"kind": "call", "path": "/gpu/instance/create", "method": "POST"}


async def fault(world: World, **fields: Any) -> str:
    """Make a fault."""
    made: str = (await world.emulator.call("POST", "faults", json=fields))["id"]
    return made


async def heal(world: World) -> None:
    """Remove all faults."""
    await world.emulator.call("DELETE", "faults")


async def run_some(world: World, count: int) -> list[str]:
    """Have so many instances that run."""
    asked = [world.create(replace(REQUEST, name=f"box-{number}")) for number in range(count)]
    ids = list(await asyncio.gather(*asked))
    for one in ids:
        await world.until_status(one, RUNNING, within=600)
    return ids


async def ask(world: World, kind: OperationKind, instance_id: str, **more: Any) -> None:
    """Ask for a verb."""
    await world.do(world.app.operating.ask(kind, instance_id, **more))


async def adopt(world: World, upstream_id: str, **more: Any) -> str:
    """Adopt an instance of the account; return the record's id."""
    request = AdoptRequest(upstream_id, **more)
    return (await world.do(world.app.ownership.adopt(request))).instance_id


def _restore(copies: Path, folder: Path) -> None:
    """Put the files of a copied database back in their place."""
    for file in copies.glob("copy-*"):
        shutil.copyfile(file, folder / file.name.removeprefix("copy-"))


async def account_events(world: World) -> list[str]:
    """List the types of the events about the account."""
    log = await world.app.database.read(events.since)
    return [one.type.value for one in log if one.type.value.startswith("account.")]


async def alive(world: World) -> list[str]:
    """List the ids of what lives upstream."""
    return [row["id"] for row in await world.emulator.ever() if row["live"]]


async def operation_error(world: World, instance_id: str) -> str | None:
    """Read the error of the operation that runs on an instance."""
    shown = await world.view(instance_id)
    found = await world.app.history.operation(shown["operation"]["id"])
    return found.error_code


async def test_the_key_of_another_account_ends_nothing(world: World) -> None:
    """Held, told, health down; verbs wait; with the right key everything is as it was."""
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
    """The only record is deleted while the key is wrong: the call waits for the right one."""
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
    """Nothing is told: the instances are seen with it."""
    ids = await run_some(world, 2)
    await world.reopen(novita_api_key=SecretStr("sk-rotated"))
    await world.pass_time(300, step=5)
    assert [await world.status(one) for one in ids] == ["running"] * 2
    assert not await account_events(world)


async def test_a_mass_disappearance_is_confirmed_by_the_set_that_was_shown(world: World) -> None:
    """Another set is refused; the right one ends the records, as gone."""
    ids = await run_some(world, 3)
    await fault(world, kind="list", omit="*")
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.pass_time(300, step=5)
    shown = await world.app.ownership.overview()
    assert [one.instance_id for one in shown.missing] == sorted(ids)
    with pytest.raises(Conflict) as caught:
        await world.do(world.app.ownership.confirm("0" * 32))
    assert caught.value.code == "NOTHING_TO_CONFIRM"
    count = await world.do(world.app.ownership.confirm(shown.missing_digest))
    assert count == 3
    assert [await world.status(one) for one in ids] == ["terminated"] * 3
    assert (await world.view(ids[0]))["error"]["code"] == "GONE"
    await heal(world)
    for one in ids:
        await world.until_status(one, RUNNING, within=300)
        assert "instance.reappeared" in await world.events(one)


async def test_our_own_deletes_start_no_hold(world: World) -> None:
    """Three of three are deleted at once."""
    ids = await run_some(world, 3)
    for one in ids:
        await ask(world, OperationKind.DELETE, one)
    for one in ids:
        await world.until_status(one, TERMINATED, within=300)
    assert not await account_events(world)


async def test_a_delete_that_a_person_confirms_leaves_during_a_hold(world: World) -> None:
    """Every other call waits."""
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
    """The call leaves: it may live, though no listing shows it."""
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
    """A waiting create was bought after the copy was made: it waits, and can be given what is its.

    A record that waits is not bought twice, and nothing else is asked of upstream either.
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
    await world.do(world.app.ownership.confirm(None))
    await world.pass_time(120, step=5)
    assert await operation_error(world, waiting) == "ORPHAN_FOUND"
    [own] = [one.row for one in listed if one.row.name.startswith("my-instance")]
    assert await adopt(world, own.upstream_id, instance_id=waiting) == waiting
    await world.until_status(waiting, RUNNING, within=300)
    assert await world.emulator.creates() == creates


async def test_an_orphan_that_is_dismissed_holds_up_nothing(world: World) -> None:
    """It is remembered that it is no matter: the record that waited for it is bought."""
    name = f"my-instance-nv{world.app.installation_id}{'u' * 16}"
    await fault(world, kind="capacity", product="gpu-basic", every=1)
    waiting = await world.create(replace(REQUEST, region=None))
    await world.emulator.call("POST", "seed", json={"names": [name]})
    await world.pass_time(60)
    await heal(world)
    await world.pass_time(60)
    assert await operation_error(world, waiting) == "ORPHAN_FOUND"
    [orphan] = await world.app.ownership.unmanaged()
    await world.do(world.app.ownership.dismiss(orphan.row.upstream_id))
    await world.until_status(waiting, RUNNING, within=600)
    with pytest.raises(NotFound):
        await world.do(world.app.ownership.dismiss("unknown"))


async def test_adopt_and_release(world: World) -> None:
    """A foreign instance becomes a record, can be stopped, and is let go of again."""
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
    await world.do(world.app.ownership.release(adopted))
    assert await world.status(adopted) == "released"
    with pytest.raises(Conflict) as caught:
        await ask(world, OperationKind.DELETE, adopted)
    assert caught.value.code == "INSTANCE_RELEASED"
    await world.pass_time(120, step=5)
    [theirs] = await world.app.ownership.unmanaged()
    assert not theirs.row.orphan
    assert len(await alive(world)) == 1


async def test_what_another_installation_made_is_not_adopted(world: World) -> None:
    """It bears another marker."""
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
    """The stranger is neither adopted nor touched; the true purchase is the record's own."""
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
    """The row lost its name: other evidence decides; where that is missing too, a person does."""
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
    """It bears the marker of a record that has its own: told, never deleted."""
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


@pytest.mark.parametrize("total", [{"totalDelta": 1}, {"total": "absent"}, {"total": "null"}])
async def test_totals_that_never_add_up_hang_nothing_up(
    world: World, total: dict[str, Any]
) -> None:
    """A delete that was accepted ends, and a create whose answer was lost is settled."""
    [first] = await run_some(world, 1)
    await fault(world, kind="list", **total)
    await fault(world, **CREATE, drop=True, when="before", times=1)
    lost = await world.create(replace(REQUEST, name="lost"))
    await world.until_status(lost, RUNNING, within=1500)
    await ask(world, OperationKind.DELETE, lost)
    await world.until_status(lost, TERMINATED, within=600)
    assert await alive(world) == [(await world.view(first))["upstreamId"]]


async def test_a_filter_that_finds_nothing_proves_nothing(world: World) -> None:
    """Totals lie and the filter by name is broken: the attempt stays unknown, and that is told."""
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
    """The process was away for twenty minutes: it looks first, and finds it running."""
    instance_id = await world.create()
    await world.pass_time(20)
    await world.end()
    await world.clock.advance(1200)
    await world.emulator.reconcile()
    await world.open()
    await world.until_status(instance_id, RUNNING, within=60)
    assert "instance.failed" not in await world.events(instance_id)


async def test_a_list_that_is_away_keeps_no_user_from_deleting(world: World) -> None:
    """After a restart the account cannot be listed: what bills is ended all the same."""
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
    """A day ahead while instances were made, then put right: stop, delete and drift go on."""
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


async def test_an_unreadable_name_keeps_an_attempt_unknown(world: World) -> None:
    """The row of what was bought has lost its name: nothing is bought a second time."""
    await fault(world, kind="list", spoil="my-*", field="name", value="null")
    await fault(world, **CREATE, drop=True, when="after", times=1)
    await world.create()
    await world.pass_time(900, step=5)
    assert await world.emulator.creates() == 1


async def test_what_was_deleted_and_lives_is_deleted_three_times_more(world: World) -> None:
    """Then it is told that deleting has no effect, and it is listed as an orphan."""
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
