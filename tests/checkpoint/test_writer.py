"""The snapshot writer: one file an epoch, merged now and then, beside the stream."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from flowrt.checkpoint.format import PIECE_BYTES, verify_state_file
from flowrt.checkpoint.lease import Lease
from flowrt.checkpoint.names import STATE_FOLDER
from flowrt.checkpoint.store import DirectoryStore
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import StateFile
from flowrt.runtime.world import system_world
from tests.checkpoint.kit import (
    ALL_GROUPS,
    FOLDER,
    CrashAt,
    CrashError,
    Machine,
    SlicedFrozen,
    State,
    blocks_of,
    frozen,
    load_state,
    state_of,
)

pytestmark = pytest.mark.anyio


def writer(machine: Machine, generation: int = 1, groups: range = ALL_GROUPS) -> StateWriter:
    return StateWriter(machine.files, Subtask(FOLDER, "count", 0, groups, generation))


async def machine_with_folder() -> Machine:
    machine = Machine()
    await machine.files.make_folder(f"{FOLDER}/{STATE_FOLDER}")
    return machine


def state_names(machine: Machine) -> list[str]:
    return [path.rpartition("/")[2] for path in machine.files.paths()]


async def test_each_epoch_adds_a_file_and_their_sum_is_the_state() -> None:
    machine = await machine_with_folder()
    writes = writer(machine)

    first = await writes.write(1, frozen({"a01": "1", "b02": "1"}))
    second = await writes.write(2, frozen({"a01": "2", "c03": "1", "b02": None}))

    assert state_names(machine) == ["count-0-d1-1.state", "count-0-d2-1.state"]
    assert second[:1] == first
    assert [(f.entries, f.first_group, f.last_group) for f in second] == [(2, 0, 127), (3, 0, 127)]
    assert await load_state(machine.reader(), first) == {"a01": "1", "b02": "1"}
    assert await load_state(machine.reader(), second) == {"a01": "2", "c03": "1"}


async def test_nothing_changed_writes_nothing() -> None:
    machine = await machine_with_folder()
    writes = writer(machine)
    before = await writes.write(1, frozen({"a01": "1"}))

    assert await writes.write(2, None) == before
    assert await writes.write(3, frozen({})) == before
    assert len(state_names(machine)) == 1


async def test_a_file_that_holds_all_there_is_stands_alone() -> None:
    machine = await machine_with_folder()
    writes = writer(machine)
    await writes.write(1, frozen({"a01": "1", "b02": "1"}))

    files = await writes.write(2, SlicedFrozen(blocks_of({"a01": "2"}), is_whole=True))

    assert [file.name for file in files] == ["count-0-d2-1.state"]
    assert await load_state(machine.reader(), files) == {"a01": "2"}
    assert len(state_names(machine)) == 2, "the checkpoint before still needs its own"


async def test_files_are_merged_and_deletions_forgotten_with_the_oldest() -> None:
    machine = await machine_with_folder()
    writes = writer(machine)
    for epoch in range(1, 4):
        await writes.write(epoch, frozen({"a01": str(epoch), f"b{epoch:02}": "x"}))

    (merged,) = await writes.write(4, frozen({"b01": None, "never99": None, "a01": "4"}))

    assert merged.name == "count-0-m4-1.state"
    assert merged.entries == 3
    assert await verify_state_file(machine.files, f"{FOLDER}/state/{merged.name}", merged) is None
    assert await load_state(machine.reader(), [merged]) == {"a01": "4", "b02": "x", "b03": "x"}
    assert len(state_names(machine)) == 4, "older checkpoints still need the older files"


async def test_a_deletion_is_kept_while_an_older_file_may_hold_the_entry() -> None:
    machine = await machine_with_folder()
    writes = writer(machine)
    state = {f"key{n:03}": "x" * 50 for n in range(100)}
    await writes.write(1, frozen(state))
    for epoch in range(2, 5):
        await writes.write(epoch, frozen({f"new{epoch:02}": "y"}))

    files = await writes.write(5, frozen({"key007": None}))

    assert [file.name for file in files] == ["count-0-d1-1.state", "count-0-m5-1.state"]
    loaded = await load_state(machine.reader(), files)
    assert "key007" not in loaded
    assert len(loaded) == 102


async def test_a_merge_takes_only_the_key_groups_that_are_the_subtasks_own() -> None:
    machine = await machine_with_folder()
    (old,) = await writer(machine).write(1, frozen({"a01": "mine", "b90": "another's"}))
    restored = [replace(old, last_group=63)]
    mine = StateWriter(machine.files, Subtask(FOLDER, "count", 0, range(64), 2), restored)
    files = restored
    for epoch in (2, 3, 4):
        files = await mine.write(epoch, frozen({f"c{epoch:02}": "new" * 30}))

    assert [file.name for file in files] == ["count-0-m4-2.state"]
    assert (files[0].first_group, files[0].last_group) == (0, 63)
    assert "b90" not in await load_state(machine.reader(), [replace(files[0], last_group=127)])


async def test_large_state_is_written_in_pieces() -> None:
    machine = await machine_with_folder()
    writes = writer(machine)
    state = {f"key{n:02}": "x" * (PIECE_BYTES // 3) for n in range(10)}
    files: list[StateFile] = []

    for epoch in range(1, 5):
        files = await writes.write(epoch, frozen(dict(state, epoch00=str(epoch))))

    assert len(files) == 1
    assert await load_state(machine.reader(), files) == dict(state, epoch00="4")


@pytest.mark.parametrize(
    "changes",
    [
        {f"k{n:03}": "x" * 4_000 for n in range(100)},
        {f"k{n:05}-07": "x" for n in range(6_000)},
    ],
    ids=["large values", "many in one group"],
)
async def test_the_event_loop_gets_turns_while_state_is_merged(changes: State) -> None:
    machine = await machine_with_folder()
    writes = writer(machine)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    for epoch in range(1, 4):
        await writes.write(epoch, frozen(changes))
    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await anyio.lowlevel.checkpoint()
        await writes.write(4, frozen(changes))
        group.cancel_scope.cancel()

    assert turns > 50


@pytest.mark.parametrize("operation", ["write", "sync", "rename", "sync_folder"])
async def test_a_full_disk_is_said_clearly_and_leaves_nothing_behind(operation: str) -> None:
    machine = await machine_with_folder()
    full = OSError(errno.ENOSPC, "No space left on device")
    machine.files.fail(operation, "state", full, torn=3)  # type: ignore[arg-type]

    with pytest.raises(CheckpointError) as error:
        await writer(machine).write(7, frozen({"a01": "1"}))

    assert "cannot write the state of operator 'count' for epoch 7" in str(error.value)
    assert FOLDER in str(error.value)
    assert "the disk is full" in str(error.value)
    assert "Nothing committed is harmed" in str(error.value)
    assert error.value.__cause__ is full
    assert not [name for name in state_names(machine) if name.endswith(".tmp")]


async def test_a_forbidden_folder_and_a_broken_disk_have_their_own_words() -> None:
    machine = await machine_with_folder()
    machine.files.fail("write", "state", OSError(errno.EACCES, "Permission denied"))
    with pytest.raises(CheckpointError, match="forbidden"):
        await writer(machine).write(1, frozen({"a01": "1"}))

    machine.files.fail("write", "state", OSError(errno.EIO, "Input/output error"))
    # Not even the temporary file can be deleted: the first error is the one that counts.
    machine.files.fail("delete", "state", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(CheckpointError, match="healthy"):
        await writer(machine).write(1, frozen({"a01": "1"}))


async def test_of_a_folder_that_is_gone_it_is_not_said_that_nothing_is_harmed() -> None:
    machine = await machine_with_folder()
    machine.files.fail("write", "state", OSError(errno.ENOENT, "No such file or directory"))

    with pytest.raises(CheckpointError, match="deleted or moved") as error:
        await writer(machine).write(1, frozen({"a01": "1"}))

    assert "harmed" not in str(error.value)


@pytest.mark.parametrize("failpoint", ["state.written", "state.synced", "state.renamed"])
async def test_a_crash_leaves_the_files_before_whole(failpoint: str) -> None:
    machine = await machine_with_folder()
    writes = writer(machine)
    before = await writes.write(1, frozen({"a01": "1"}))

    with CrashAt(failpoint), pytest.raises(CrashError):
        await writes.write(2, frozen({"a01": "2"}))
    machine.files.crash()

    assert await load_state(machine.reader(), before) == {"a01": "1"}


async def test_what_write_returns_survives_a_crash() -> None:
    machine = await machine_with_folder()
    files = await writer(machine).write(1, frozen({"a01": "1"}))

    machine.files.crash()

    assert await load_state(machine.reader(), files) == {"a01": "1"}


async def test_on_the_real_disk(tmp_path: Path) -> None:
    world = system_world()
    lease = await Lease.take(world, f"{tmp_path}/checkpoints")
    store = DirectoryStore(world.files, lease.folder, "orders", lease)
    await store.make_state_folder()
    writes = StateWriter(world.files, Subtask(lease.folder, "count", 0, ALL_GROUPS, 1))
    model: State = {}
    files: list[StateFile] = []

    for epoch in range(1, 9):
        changes: Mapping[str, str | None] = {f"k{epoch:02}": "new", "same00": str(epoch)}
        files = await writes.write(epoch, frozen(changes))
        model |= state_of(blocks_of(changes))

    assert await load_state(store, files) == model
    lease.release()
