"""One owner of a checkpoint folder."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flowrt.checkpoint.lease import Lease, read_lease
from flowrt.contract.errors import CheckpointError, ConfigError, LeaseError
from flowrt.runtime.world import system_world
from flowrt.testing.memory_files import Operation
from tests.checkpoint.kit import FOLDER, CrashAt, CrashError, Machine

pytestmark = pytest.mark.anyio


async def test_each_owner_has_a_generation_of_its_own() -> None:
    machine = Machine()

    first = await Lease.take(machine.world(), FOLDER)
    first.release()
    first.release()
    second = await Lease.take(machine.world(), FOLDER)

    assert (first.generation, second.generation) == (1, 2)
    await second.check()
    assert json.loads(machine.files.contents(f"{FOLDER}/lease.json"))["lease"] == {
        "generation": 2,
        "host": "testhost",
        "pid": 2,
        "started_ms": 1_000,
    }
    assert [p for p in machine.files.paths() if p.endswith(".lock")] == [f"{FOLDER}/lease-2.lock"]


async def test_a_second_instance_is_refused_and_told_who_and_what_to_do() -> None:
    machine = Machine()
    await Lease.take(machine.world(), FOLDER)

    with pytest.raises(LeaseError) as error:
        await Lease.take(machine.world(), FOLDER)

    assert str(error.value) == (
        "the checkpoint folder /data/checkpoints is in use by process 1 on host testhost, "
        "generation 1, started at 1970-01-01T00:00:01Z. Stop that instance, give this job a folder "
        "of its own, or take the folder over (take_over=True) if that instance is lost"
    )


async def test_a_dead_owner_leaves_the_folder_free() -> None:
    machine = Machine()
    await Lease.take(machine.world(), FOLDER)
    machine.files.kill()

    assert (await Lease.take(machine.world(), FOLDER)).generation == 2


async def test_an_owner_whose_folder_was_taken_over_learns_it() -> None:
    machine = Machine()
    old = await Lease.take(machine.world(), FOLDER)

    new = await Lease.take(machine.world(), FOLDER, take_over=True)

    await new.check()
    with pytest.raises(LeaseError, match=r"taken over by process 2 .* \(process 1, generation 1\)"):
        await old.check()
    with pytest.raises(LeaseError):
        await old.next_generation()
    old.release()
    with pytest.raises(LeaseError, match="in use by process 2"):
        await Lease.take(machine.world(), FOLDER)


async def test_a_take_over_that_is_refused_before_it_begins_takes_nothing() -> None:
    machine = Machine()
    old = await Lease.take(machine.world(), FOLDER)

    async def refuse() -> None:
        raise OSError(errno.EIO, "another disk")

    with pytest.raises(OSError, match="another disk"):  # as it is: not this folder's disk
        await Lease.take(machine.world(), FOLDER, take_over=True, before=refuse)

    await old.check()
    old.release()
    with pytest.raises(OSError, match="another disk"):
        await Lease.take(machine.world(), FOLDER, before=refuse)
    assert (await Lease.take(machine.world(), FOLDER)).generation == 2


async def test_taking_over_a_free_folder_is_taking_it() -> None:
    lease = await Lease.take(Machine().world(), FOLDER, take_over=True)

    assert lease.generation == 1


async def test_a_new_life_in_the_same_process_has_the_next_generation() -> None:
    machine = Machine()
    lease = await Lease.take(machine.world(), FOLDER)

    await lease.next_generation()

    assert lease.generation == 2
    await lease.check()
    with pytest.raises(LeaseError, match="in use"):
        await Lease.take(machine.world(), FOLDER)
    lease.release()
    assert (await Lease.take(machine.world(), FOLDER)).generation == 3


async def test_of_two_that_start_at_once_one_gets_it() -> None:
    machine = Machine()
    first = await Lease.take(machine.world(), FOLDER)
    first.release()
    starting = await machine.files.lock(f"{FOLDER}/lease-2.lock")
    assert starting is not None

    with pytest.raises(LeaseError, match="another instance has just taken"):
        await Lease.take(machine.world(), FOLDER)

    starting.release()
    assert (await Lease.take(machine.world(), FOLDER)).generation == 2


async def test_whoever_read_an_old_lease_does_not_get_it() -> None:
    """Between its reading of lease.json and its lock, another instance came and went on."""
    machine = Machine()
    first = await Lease.take(machine.world(), FOLDER)
    files, read = machine.files, machine.files.read
    other: list[Lease] = []

    async def read_then_overtaken(path: str, offset: int = 0, size: int | None = None) -> bytes:
        data = await read(path, offset, size)
        if path.endswith("lease.json") and not other:
            files.read = read  # type: ignore[method-assign]
            first.release()
            other.append(await Lease.take(machine.world(), FOLDER))
            await other[0].next_generation()
        return data

    files.read = read_then_overtaken  # type: ignore[method-assign]
    with pytest.raises(LeaseError, match="another instance has just taken"):
        await Lease.take(machine.world(), FOLDER)

    await other[0].check()


async def test_a_crash_while_taking_it_leaves_it_free() -> None:
    machine = Machine()
    with CrashAt("lease.taken"), pytest.raises(CrashError):
        await Lease.take(machine.world(), FOLDER)
    machine.files.crash()

    assert (await Lease.take(machine.world(), FOLDER)).generation == 2


async def test_a_damaged_lease_is_not_guessed() -> None:
    machine = Machine()
    lease = await Lease.take(machine.world(), FOLDER)
    machine.files.replace(f"{FOLDER}/lease.json", b"{}")

    with pytest.raises(CheckpointError, match=r"lease\.json is torn or damaged.*delete that file"):
        await lease.check()


async def test_a_generation_is_not_used_again_though_the_lease_was_deleted() -> None:
    machine = Machine()
    lease = await Lease.take(machine.world(), FOLDER)
    machine.files.replace(f"{FOLDER}/manifest-7-4.json", b"")
    machine.files.replace(f"{FOLDER}/state/count-0-d7-5.state", b"")
    await machine.files.delete(f"{FOLDER}/lease.json")

    with pytest.raises(LeaseError, match=r"taken over by somebody unknown \(lease.json"):
        await lease.check()
    assert (await read_lease(machine.files, FOLDER)).generation == 5
    assert (await Lease.take(machine.world(), FOLDER)).generation == 6


async def test_a_living_owner_keeps_the_folder_though_its_lease_was_deleted() -> None:
    machine = Machine()
    lease = await Lease.take(machine.world(), FOLDER)
    await lease.next_generation()
    machine.files.replace(f"{FOLDER}/fence-0-2", b"")
    await machine.files.delete(f"{FOLDER}/lease.json")

    await lease.check()
    with pytest.raises(LeaseError, match=r"in use by somebody unknown \(lease.json was deleted\)"):
        await Lease.take(machine.world(), FOLDER)
    await lease.next_generation()
    assert (await read_lease(machine.files, FOLDER)).generation == lease.generation == 3


async def test_a_fence_says_how_far_generations_went_though_the_lease_was_deleted() -> None:
    machine = Machine()
    machine.files.replace(f"{FOLDER}/manifest-5-1.json", b"")
    machine.files.replace(f"{FOLDER}/fence-5-3", b"")

    # A checkpoint of generation 2 would not count: generation 3 went on from epoch 5.
    assert (await Lease.take(machine.world(), FOLDER)).generation == 4


async def test_an_owner_whose_folder_was_deleted_is_told_so(tmp_path: Path) -> None:
    world, folder = system_world(), f"{tmp_path}/checkpoints"
    lease = await Lease.take(world, folder)
    await lease.next_generation()
    shutil.rmtree(folder)

    with pytest.raises(LeaseError) as error:
        await lease.check()

    assert str(error.value) == (
        f"the checkpoint folder {folder}, or lease.json in it, is gone: it was deleted, moved or "
        f"unmounted while this instance (process {world.pid}, generation 2) ran, which writes and "
        "commits nothing more. Bring the folder back as it was and start again, restore a "
        "savepoint into a new folder, or start from nothing in a new folder"
    )
    with pytest.raises(LeaseError, match="is gone: it was deleted"):
        await lease.next_generation()
    lease.release()


async def test_a_folder_that_was_deleted_and_taken_anew_has_one_owner(tmp_path: Path) -> None:
    world, folder = system_world(), f"{tmp_path}/checkpoints"
    old = await Lease.take(world, folder)
    shutil.rmtree(folder)
    new = await Lease.take(replace(world, pid=1), folder)

    await new.check()
    with pytest.raises(LeaseError, match=r"was taken over by process 1 "):
        await old.check()
    old.release()
    new.release()


@pytest.mark.parametrize("code", [errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG])
async def test_a_path_that_can_be_no_folder_is_a_wrong_option(code: int) -> None:
    machine = Machine()
    machine.files.fail("make_folder", FOLDER, OSError(code, "why"))

    with pytest.raises(ConfigError, match=r"/data/checkpoints is no folder.*name another one"):
        await Lease.take(machine.world(), FOLDER)


@pytest.mark.parametrize("operation", ["make_folder", "write", "sync", "lock"])
async def test_a_folder_that_cannot_be_written_is_said_clearly(operation: str) -> None:
    machine = Machine()
    denied = OSError(errno.EACCES, "Permission denied")
    machine.files.fail(operation, FOLDER, denied)  # type: ignore[arg-type]

    with pytest.raises(CheckpointError, match=r"cannot take the lease in /data.*forbidden"):
        await Lease.take(machine.world(), FOLDER)

    assert (await Lease.take(machine.world(), FOLDER)).generation == 1


async def test_errors_of_the_disk_while_it_is_held() -> None:
    machine = Machine()
    lease = await Lease.take(machine.world(), FOLDER)

    machine.files.fail("read", "lease.json", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(CheckpointError, match="cannot read the lease"):
        await lease.check()
    machine.files.fail("write", "lease.json", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(CheckpointError, match="cannot renew the lease"):
        await lease.next_generation()


@pytest.mark.parametrize("step", ["write", "sync", "rename", "sync_folder"])
async def test_a_renewal_that_failed_lets_nobody_else_in(step: Operation) -> None:
    machine = Machine()
    lease = await Lease.take(machine.world(), FOLDER)
    machine.files.fail(step, "lease.json" if step != "sync_folder" else FOLDER, OSError(5, "I/O"))
    with pytest.raises(CheckpointError, match="renew the lease"):
        await lease.next_generation()

    with pytest.raises(LeaseError, match="in use by"):
        await Lease.take(machine.world(), FOLDER)

    await lease.next_generation()
    await lease.check()
    lease.release()
    assert (await Lease.take(machine.world(), FOLDER)).generation == lease.generation + 1


@pytest.mark.parametrize("step", ["write", "sync", "sync_folder"])
async def test_after_a_renewal_that_failed_the_folder_can_be_taken_over(step: Operation) -> None:
    machine = Machine()
    lease = await Lease.take(machine.world(), FOLDER)
    machine.files.fail(step, "lease.json" if step != "sync_folder" else FOLDER, OSError(5, "I/O"))
    with pytest.raises(CheckpointError, match="renew the lease"):
        await lease.next_generation()

    other = await Lease.take(machine.world(), FOLDER, take_over=True)

    assert other.generation > lease.generation
    with pytest.raises(LeaseError, match="was taken over"):
        await lease.next_generation()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_crash_does_not_take_a_folder_that_was_made_away(killed: bool) -> None:
    machine = Machine(lose_folders=True)
    if killed:  # before it could make durable what it made
        await machine.files.make_folder(FOLDER)
        await machine.files.sync_folder("/")
    await Lease.take(machine.world(), FOLDER)

    machine.files.crash()

    assert (await Lease.take(machine.world(), FOLDER)).generation == 2


async def test_a_folder_above_that_must_not_be_read_is_no_hindrance() -> None:
    machine = Machine()
    await machine.files.make_folder(FOLDER)
    denied = OSError(errno.EACCES, "Permission denied")
    machine.files.fail("sync_folder", "/data", denied)

    assert (await Lease.take(machine.world(), FOLDER)).generation == 1


async def test_on_the_real_disk(tmp_path: Path) -> None:
    world, folder = system_world(), f"{tmp_path}/new/checkpoints"
    first = await Lease.take(world, folder)

    with pytest.raises(LeaseError, match=f"process {world.pid} on host {world.host}"):
        await Lease.take(world, folder)
    second = await Lease.take(world, folder, take_over=True)
    with pytest.raises(LeaseError):
        await first.check()
    first.release()
    second.release()
    third = await Lease.take(world, folder)
    assert third.generation == 3
    third.release()
