"""Reading state out of a checkpoint, which is held meanwhile."""

from __future__ import annotations

import contextlib
import errno

import anyio
import pytest
from anyio.lowlevel import checkpoint as turn

from flowrt.checkpoint.names import Made
from flowrt.checkpoint.reading import newest, reading
from flowrt.checkpoint.store import DirectoryStore
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import OperatorSnapshot
from tests.checkpoint.kit import ALL_GROUPS, FOLDER, Machine, frozen, manifest, state_of

pytestmark = pytest.mark.anyio


async def epochs(store: DirectoryStore, count: int, first: int = 1) -> None:
    """Commit epochs; each sets key 01 to its number, and each a key of its own."""
    who = Subtask(FOLDER, "count", 0, ALL_GROUPS, store.lease.generation)
    writer = StateWriter(store.files, who)
    for epoch in range(first, first + count):
        files = await writer.write(epoch, frozen({"01": f"{epoch}", f"{epoch + 10}": "own"}))
        await store.write(manifest(store, epoch, [OperatorSnapshot("count", 0, files)]))


async def read(store: DirectoryStore, made: Made, group: int) -> dict[str, str]:
    async with reading(store, made) as reader:
        return state_of(await reader.blocks("count", "value", group))


async def test_a_group_is_read_over_all_files_as_of_its_epoch() -> None:
    store = await Machine().store()
    await epochs(store, 3)

    assert await newest(store, None) is None
    assert await newest(store, 0) is None
    assert await newest(store, 2) == Made(1, 2)
    assert await read(store, Made(1, 2), 1) == {"01": "2"}
    assert await read(store, Made(1, 2), 13) == {}
    assert await read(store, Made(1, 3), 13) == {"13": "own"}
    async with reading(store, Made(1, 3)) as reader:
        assert await reader.states("count", 1) == ["value"]
        assert await reader.states("count", 99) == []
        assert await reader.blocks("nobody", "value", 1) == []


async def test_what_is_held_stays_with_all_its_files_until_it_is_let_go() -> None:
    machine = Machine()
    store = await machine.store(keep=1)
    await epochs(store, 2)
    async with reading(store, Made(1, 2)) as reader, reading(store, Made(1, 2)):
        await epochs(store, 3, first=3)
        await store.retain(5)
        assert [made.epoch for made in await store.checkpoints()] == [5, 2]
        assert await store.problems(reader.manifest) == []
        assert state_of(await reader.blocks("count", "value", 1)) == {"01": "2"}
    await store.retain(5)
    assert [made.epoch for made in await store.checkpoints()] == [5]
    with pytest.raises(CheckpointError, match="is being deleted"):
        await read(store, Made(1, 2), 1)


async def test_what_is_being_deleted_cannot_be_held() -> None:
    machine = Machine()
    store = await machine.store(keep=1)
    await epochs(store, 6)
    found: set[int] = set()

    async def read_any() -> None:
        # At every moment of the deletion: either all of it can be read, or none.
        for _ in range(400):
            for made in [Made(1, epoch) for epoch in range(1, 7)]:
                with contextlib.suppress(CheckpointError):  # it is gone, or about to go
                    async with reading(store, made) as reader:
                        assert await store.problems(reader.manifest) == []
                        found.add(made.epoch)
            await turn()

    async with anyio.create_task_group() as group:
        group.start_soon(read_any)
        for _ in range(20):
            await turn()
        await store.retain(6)
    assert found == {1, 2, 3, 4, 5, 6}


async def test_a_disk_that_fails_is_told() -> None:
    machine = Machine()
    store = await machine.store()
    await epochs(store, 1)
    error = OSError(errno.EIO, "Input/output error")
    for _ in range(2):
        machine.files.fail("read", "state/", error)
        with pytest.raises(CheckpointError, match="read the state file count-0-d1-1"):
            await read(store, Made(1, 1), 1)
    assert await read(store, Made(1, 1), 1) == {"01": "1"}
