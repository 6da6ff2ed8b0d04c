"""Savepoints: a folder of their own, and back."""

from __future__ import annotations

import errno
from hashlib import blake2b

import pytest

from flowrt.checkpoint.lease import Lease
from flowrt.checkpoint.manifest import Manifest
from flowrt.checkpoint.names import manifest_name
from flowrt.checkpoint.recovery import recover
from flowrt.checkpoint.savepoint import ORIGIN, bring_in_savepoint, write_savepoint
from flowrt.checkpoint.sealed import seal, unseal
from flowrt.checkpoint.store import DirectoryStore
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.errors import CheckpointError, ConfigError
from flowrt.contract.snapshot import OperatorSnapshot
from tests.checkpoint.kit import FOLDER, Machine, State, frozen, load_state, manifest

pytestmark = pytest.mark.anyio

SAVEPOINT = "/data/savepoint"
OTHER = "/data/other"
STATE: State = {"a01": "1", "b02": "2", "c90": "x" * 600_000}


async def checkpoint(store: DirectoryStore, epoch: int = 3) -> Manifest:
    """Two subtasks share a file, as after a change of parallelism."""
    subtask = Subtask(FOLDER, "count", 0, range(128), store.lease.generation)
    files = await StateWriter(store.files, subtask).write(epoch, frozen(STATE))
    parts = [OperatorSnapshot("count", 0, files), OperatorSnapshot("count", 1, files)]
    whole = manifest(store, epoch, parts)
    await store.write(whole)
    return whole


async def other_store(machine: Machine, flow: str = "orders") -> DirectoryStore:
    lease = await Lease.take(machine.world(), OTHER)
    return DirectoryStore(machine.files, OTHER, flow, lease)


async def test_a_savepoint_outlives_the_folder_it_came_from() -> None:
    machine = Machine()
    store = await machine.store()
    await write_savepoint(store, await checkpoint(store), SAVEPOINT)
    machine.files.crash()
    for path in machine.files.paths():
        if path.startswith(FOLDER):
            await machine.files.delete(path)

    store = await other_store(machine)
    brought = await bring_in_savepoint(store, SAVEPOINT, now_ms=5_000)
    assert brought is not None
    machine.files.crash()
    store = await other_store(machine)
    recovery = await recover(store)

    assert (recovery.manifest, recovery.next_epoch) == (brought, 4)
    assert (brought.savepoint, brought.generation, brought.created_ms) == (True, 1, 5_000)
    assert await load_state(store, recovery.state_files("count", range(128))) == STATE
    assert len(brought.state_files()) == 1, "a shared file is copied once"


async def test_a_crash_does_not_take_the_folder_of_a_savepoint_away() -> None:
    machine = Machine(lose_folders=True)
    store = await machine.store()
    await write_savepoint(store, await checkpoint(store), "/data/deep/savepoint")

    machine.files.crash()

    store = await other_store(machine)
    await bring_in_savepoint(store, "/data/deep/savepoint", 0)


async def test_a_savepoint_can_be_looked_at_as_a_checkpoint() -> None:
    machine = Machine()
    store = await machine.store()
    whole = await checkpoint(store)
    await write_savepoint(store, whole, SAVEPOINT)

    reader = machine.reader(folder=SAVEPOINT)
    (made,) = await reader.checkpoints()
    assert await reader.read(made) == whole
    assert await reader.problems(whole) == []


async def test_a_savepoint_needs_an_empty_folder() -> None:
    machine = Machine()
    store = await machine.store()
    machine.files.replace(f"{SAVEPOINT}/something", b"")
    await machine.files.make_folder(SAVEPOINT)

    with pytest.raises(CheckpointError, match="/data/savepoint is not empty"):
        await write_savepoint(store, await checkpoint(store), SAVEPOINT)


async def test_a_full_disk_is_said_clearly() -> None:
    machine = Machine()
    store = await machine.store()
    whole = await checkpoint(store)
    machine.files.fail("write_at", SAVEPOINT, OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(
        CheckpointError, match="cannot write a savepoint in /data/savepoint: the disk"
    ):
        await write_savepoint(store, whole, SAVEPOINT)


async def test_a_damaged_file_is_not_saved_as_if_it_were_whole() -> None:
    machine = Machine()
    store = await machine.store()
    whole = await checkpoint(store)
    path = store.state_path(next(iter(whole.state_files())))
    machine.files.replace(path, b"x" + machine.files.contents(path)[1:])

    with pytest.raises(CheckpointError, match="damaged"):
        await write_savepoint(store, whole, SAVEPOINT)
    assert await machine.reader(folder=SAVEPOINT).checkpoints() == []


async def test_a_folder_that_began_with_the_savepoint_is_left_as_it_is() -> None:
    machine = Machine()
    store = await machine.store()
    await write_savepoint(store, await checkpoint(store), SAVEPOINT)
    other = await other_store(machine)
    assert await bring_in_savepoint(other, SAVEPOINT, now_ms=0) is not None
    before = await other.checkpoints()

    assert await bring_in_savepoint(other, SAVEPOINT, now_ms=5) is None
    assert await other.checkpoints() == before


async def test_a_savepoint_is_known_by_its_bytes_whatever_version_laid_them_out() -> None:
    machine = Machine()
    store = await machine.store()
    whole = await checkpoint(store)
    await write_savepoint(store, whole, SAVEPOINT)
    path = f"{SAVEPOINT}/{manifest_name(whole.made)}"
    other_layout = seal("manifest", unseal("manifest", machine.files.contents(path), path))
    assert other_layout != machine.files.contents(path)
    machine.files.replace(path, other_layout)
    other = await other_store(machine)

    assert await bring_in_savepoint(other, SAVEPOINT, now_ms=0) is not None
    began = blake2b(other_layout, digest_size=16).hexdigest()
    assert machine.files.contents(f"{OTHER}/{ORIGIN}") == began.encode()
    assert await bring_in_savepoint(other, SAVEPOINT, now_ms=5) is None


async def test_a_folder_that_began_with_another_savepoint_is_refused() -> None:
    machine = Machine()
    store = await machine.store()
    await write_savepoint(store, await checkpoint(store), SAVEPOINT)
    await write_savepoint(store, await checkpoint(store, epoch=4), SAVEPOINT + "-2")
    other = await other_store(machine)
    await bring_in_savepoint(other, SAVEPOINT, now_ms=0)

    with pytest.raises(ConfigError, match="did not begin with the savepoint in /data/savep"):
        await bring_in_savepoint(other, SAVEPOINT + "-2", now_ms=0)


async def test_a_savepoint_goes_into_a_new_folder_only() -> None:
    machine = Machine()
    store = await machine.store()
    await write_savepoint(store, await checkpoint(store), SAVEPOINT)

    with pytest.raises(ConfigError, match="already holds checkpoints"):
        await bring_in_savepoint(store, SAVEPOINT, now_ms=0)


async def test_no_savepoint_a_damaged_one_and_another_flows_are_refused() -> None:
    machine = Machine()
    store = await machine.store()
    other = await other_store(machine)
    with pytest.raises(ConfigError, match="there is no savepoint in /data/savepoint"):
        await bring_in_savepoint(other, SAVEPOINT, now_ms=0)

    whole = await checkpoint(store)
    await write_savepoint(store, whole, SAVEPOINT)
    other.flow = "clicks"
    with pytest.raises(ConfigError, match="'orders', not of 'clicks'"):
        await bring_in_savepoint(other, SAVEPOINT, now_ms=0)

    other.flow = "orders"
    (name,) = whole.state_files()
    machine.files.replace(f"{SAVEPOINT}/state/{name}", b"torn")
    with pytest.raises(CheckpointError, match="the savepoint in /data/savepoint is damaged"):
        await bring_in_savepoint(other, SAVEPOINT, now_ms=0)


async def test_a_full_disk_while_it_is_brought_in() -> None:
    machine = Machine()
    store = await machine.store()
    await write_savepoint(store, await checkpoint(store), SAVEPOINT)
    other = await other_store(machine)
    machine.files.fail("sync", OTHER, OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(CheckpointError, match="cannot bring in a savepoint in /data/other"):
        await bring_in_savepoint(other, SAVEPOINT, now_ms=0)

    assert await other.checkpoints() == []
    await bring_in_savepoint(other, SAVEPOINT, now_ms=0)
