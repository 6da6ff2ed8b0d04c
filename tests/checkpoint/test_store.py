"""The folder of checkpoints: what counts, what is whole, what is deleted."""

from __future__ import annotations

import errno

import pytest

from flowrt.checkpoint.manifest import encode_manifest
from flowrt.checkpoint.names import Made
from flowrt.checkpoint.store import DirectoryStore, UnreadableError
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.errors import CheckpointError, ConfigError, LeaseError
from flowrt.contract.snapshot import OperatorSnapshot, StateFile
from tests.checkpoint.kit import (
    ALL_GROUPS,
    FOLDER,
    CrashAt,
    CrashError,
    Machine,
    frozen,
    load_state,
    manifest,
)

pytestmark = pytest.mark.anyio


def state_writer(store: DirectoryStore) -> StateWriter:
    subtask = Subtask(FOLDER, "count", 0, ALL_GROUPS, store.lease.generation)
    return StateWriter(store.files, subtask)


async def checkpoint(store: DirectoryStore, writes: StateWriter, epoch: int) -> list[StateFile]:
    files = await writes.write(epoch, frozen({f"key{epoch:02}": "x" * epoch}))
    await store.write(manifest(store, epoch, [OperatorSnapshot("count", 0, files)]))
    return files


def names(machine: Machine) -> list[str]:
    paths = (path.removeprefix(f"{FOLDER}/") for path in machine.files.paths())
    return [path for path in paths if not path.startswith("lease")]


async def test_a_checkpoint_comes_back_from_a_crash() -> None:
    machine = Machine()
    store = await machine.store()
    files = await checkpoint(store, state_writer(store), 1)
    machine.files.crash()

    store = await machine.store()
    assert await store.checkpoints() == [Made(generation=1, epoch=1)]
    found = await store.read(Made(1, 1))
    assert found.operators == [OperatorSnapshot("count", 0, files)]
    assert await store.problems(found) == []
    assert await load_state(store, files) == {"key01": "x"}


async def test_old_checkpoints_go_and_state_files_with_the_last_that_needs_them() -> None:
    machine = Machine()
    store = await machine.store(keep=2)
    writes = state_writer(store)

    for epoch in range(1, 7):
        await checkpoint(store, writes, epoch)
        await store.retain(epoch)

    assert names(machine) == [
        "manifest-5-1.json",
        "manifest-6-1.json",
        "state/count-0-d5-1.state",
        "state/count-0-d6-1.state",
        "state/count-0-m4-1.state",
    ]
    for made in await store.checkpoints():
        assert await store.problems(await store.read(made)) == []


async def test_the_last_epoch_is_not_committed_everywhere_so_the_one_before_stays() -> None:
    machine = Machine()
    store = await machine.store(keep=1)
    writes = state_writer(store)
    await checkpoint(store, writes, 1)
    await store.retain(1)

    await checkpoint(store, writes, 2)
    await store.retain(1)
    assert [made.epoch for made in await store.checkpoints()] == [2, 1]

    await store.retain(2)
    assert [made.epoch for made in await store.checkpoints()] == [2]


async def test_what_dead_instances_left_over_goes() -> None:
    machine = Machine()
    store = await machine.store()
    await checkpoint(store, state_writer(store), 1)
    left_over = [
        "state/count-0-d2-1.state",
        "state/count-0-d2-1.state.tmp",
        "manifest-2-1.json.tmp",
    ]
    foreign = ["notes.txt", "mine.tmp", "state/readme"]
    ours = ["state/count-0-d4-2.state.tmp", "state/count-0-d4-2.state"]
    newer = ["manifest-9-3.json", "state/count-0-d9-3.state", "state/count-0-d9-3.state.tmp"]
    for name in [*left_over, *foreign, *ours, *newer]:
        machine.files.replace(f"{FOLDER}/{name}", b"")
    machine.files.kill()

    store = await machine.store()
    await store.resume_from(1)
    await checkpoint(store, state_writer(store), 3)
    await store.retain(3)

    left = names(machine)
    assert not set(left_over) & set(left)
    assert {*foreign, *ours, *newer} <= set(left)


async def test_a_damaged_old_manifest_does_not_count_as_one_to_keep() -> None:
    machine = Machine()
    store = await machine.store(keep=2)
    writes = state_writer(store)
    for epoch in (1, 2, 3):
        await checkpoint(store, writes, epoch)
    machine.files.kill()
    machine.files.replace(f"{FOLDER}/manifest-2-1.json", b"torn")

    store = await machine.store(keep=2)
    await store.retain(3)

    assert [made.epoch for made in await store.checkpoints()] == [3, 1]


async def test_where_an_old_manifest_cannot_be_read_nothing_is_deleted_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine()
    store = await machine.store(keep=2)
    writes = state_writer(store)
    for epoch in (1, 2, 3):
        await checkpoint(store, writes, epoch)
    machine.files.kill()
    store = await machine.store(keep=2)
    before = names(machine)
    error = OSError(errno.EIO, "Input/output error")
    machine.files.fail("read", "manifest-2", error, times=2)

    await store.retain(3)
    await store.retain(3)

    assert names(machine) == before
    (warning,) = caplog.messages
    assert "no old checkpoint is deleted meanwhile: " in warning
    assert "manifest-2-1.json cannot be read" in warning
    await store.retain(3)
    assert [made.epoch for made in await store.checkpoints()] == [3, 2]


async def test_a_crash_while_deleting_leaves_only_whole_checkpoints() -> None:
    machine = Machine()
    store = await machine.store(keep=1)
    writes = state_writer(store)
    for epoch in (1, 2, 3):
        await checkpoint(store, writes, epoch)
    with CrashAt("checkpoint.deleted"), pytest.raises(CrashError):
        await store.retain(3)
    machine.files.crash(machine.randomness)

    store = await machine.store(keep=1)
    for made in await store.checkpoints():
        assert await store.problems(await store.read(made)) == []
    await store.retain(3)
    assert [made.epoch for made in await store.checkpoints()] == [3]


async def test_a_deleted_checkpoint_does_not_come_back_without_its_files() -> None:
    machine = Machine()
    store = await machine.store(keep=1)
    writes = state_writer(store)
    for epoch in (1, 2, 3):
        await checkpoint(store, writes, epoch)

    await store.retain(3)
    machine.files.crash()

    assert [made.epoch for made in await machine.reader().checkpoints()] == [3]


async def test_what_cannot_be_deleted_stays_until_the_next_time() -> None:
    machine = Machine()
    store = await machine.store(keep=1)
    writes = state_writer(store)
    for epoch in (1, 2, 3):
        await checkpoint(store, writes, epoch)

    machine.files.fail("delete", "manifest-1", OSError(errno.EBUSY, "Busy"))
    await store.retain(3)
    assert "manifest-1-1.json" in names(machine)

    await store.retain(3)
    assert "manifest-1-1.json" not in names(machine)


async def test_another_flows_checkpoint_is_refused_by_name() -> None:
    machine = Machine()
    store = await machine.store(flow="orders")
    await store.write(manifest(store, 1))

    with pytest.raises(ConfigError, match="holds checkpoints of flow 'orders', not of 'clicks'"):
        await machine.reader(flow="clicks").read(Made(1, 1))


async def test_a_manifest_that_is_missing_or_renamed_is_refused() -> None:
    machine = Machine()
    store = await machine.store()
    await store.write(manifest(store, 1))
    await machine.files.rename(f"{FOLDER}/manifest-1-1.json", f"{FOLDER}/manifest-2-1.json")

    with pytest.raises(CheckpointError, match="is missing"):
        await store.read(Made(1, 1))
    with pytest.raises(CheckpointError, match="epoch 1, generation 1: it was renamed by hand"):
        await store.read(Made(1, 2))


async def test_missing_short_and_damaged_state_files_are_found_and_unreadable_ones_told() -> None:
    machine = Machine()
    store = await machine.store()
    writes = state_writer(store)
    await checkpoint(store, writes, 1)
    await checkpoint(store, writes, 2)
    whole = await store.read(Made(1, 2))
    first, second = (f"{FOLDER}/state/count-0-d{epoch}-1.state" for epoch in (1, 2))
    data = machine.files.contents(first)

    machine.files.replace(first, data[:-1])
    machine.files.replace(second, b"x" * len(machine.files.contents(second)))
    assert len(await store.problems(whole)) == 2

    machine.files.replace(first, data)
    await machine.files.delete(second)
    assert await store.problems(whole) == [f"{second} is missing"]

    machine.files.fail("read", "state", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(UnreadableError, match=r"d1-1\.state cannot be read: .*manifest-2-1\.json"):
        await store.problems(whole)


async def test_a_manifest_of_an_instance_that_lost_its_lease_is_not_written() -> None:
    machine = Machine()
    old = await machine.store()
    new = await machine.store(take_over=True)

    with pytest.raises(LeaseError, match="taken over"):
        await old.write(manifest(old, 1))
    with pytest.raises(LeaseError):
        await old.retain(1)
    with pytest.raises(LeaseError):
        await old.resume_from(1)
    with pytest.raises(LeaseError):
        await old.discard_newer(0)
    assert await new.checkpoints() == []


async def test_a_manifest_written_too_late_does_not_count() -> None:
    """The old instance passed the check, was taken over, and only then renamed its manifest."""
    machine = Machine()
    old = await machine.store()
    await old.write(manifest(old, 1))
    machine.files.kill()
    new = await machine.store()
    await new.resume_from(1)
    late = manifest(old, 2)

    machine.files.replace(f"{FOLDER}/manifest-2-1.json", encode_manifest(late))

    assert await new.checkpoints() == [Made(1, 1)]
    await new.write(manifest(new, 2))
    assert await new.checkpoints() == [Made(2, 2), Made(1, 1)]
    await new.retain(2)
    assert "manifest-2-1.json" not in names(machine)


async def test_fences_do_not_pile_up() -> None:
    machine = Machine()
    for _ in range(5):
        store = await machine.store()
        await store.resume_from(0)
        machine.files.kill()

    assert names(machine) == ["fence-0-5"]


async def test_a_deciding_sink_has_newer_checkpoints_discarded() -> None:
    machine = Machine()
    store = await machine.store()
    for epoch in (1, 2, 3):
        await store.write(manifest(store, epoch))

    assert await store.discard_newer(1) == [Made(1, 3), Made(1, 2)]
    assert await store.checkpoints() == [Made(1, 1)]


async def test_without_a_lease_a_store_can_only_be_read() -> None:
    with pytest.raises(LeaseError, match="for reading only"):
        await Machine().reader().resume_from(1)


@pytest.mark.parametrize(
    ("operation", "words"),
    [("write", "write the manifest of epoch 2"), ("rename", "epoch 2"), ("sync", "disk is full")],
)
async def test_a_full_disk_fails_the_epoch_and_harms_nothing(operation: str, words: str) -> None:
    machine = Machine()
    store = await machine.store()
    await store.write(manifest(store, 1))
    full = OSError(errno.ENOSPC, "No space left on device")
    machine.files.fail(operation, "manifest-2", full, torn=5)  # type: ignore[arg-type]

    with pytest.raises(CheckpointError, match=words):
        await store.write(manifest(store, 2))

    assert await store.checkpoints() == [Made(1, 1)]
    assert (await store.read(Made(1, 1))).epoch == 1


async def test_other_errors_of_the_disk_say_what_could_not_be_done() -> None:
    machine = Machine()
    store = await machine.store()
    files = await checkpoint(store, state_writer(store), 1)
    broken = OSError(errno.EIO, "Input/output error")

    machine.files.fail("names", FOLDER, broken)
    with pytest.raises(CheckpointError, match="cannot list the checkpoints"):
        await store.checkpoints()
    machine.files.fail("names", FOLDER, broken)
    with pytest.raises(CheckpointError, match="cannot delete old checkpoints"):
        await store.retain(1)
    machine.files.fail("read", "count-0-d1", broken)
    with pytest.raises(CheckpointError, match=r"cannot read the state file count-0-d1-1\.state"):
        await load_state(store, files)
    machine.files.fail("write", "fence", broken)
    with pytest.raises(CheckpointError, match="cannot note where the job resumes"):
        await store.resume_from(1)
