"""The state file: what is written comes back, and damage is never believed."""

from __future__ import annotations

from contextlib import suppress

import pytest

from flowrt.checkpoint.format import (
    PIECE_BYTES,
    StateFileBuilder,
    batches,
    in_groups,
    read_blocks,
    read_index,
    verify_state_file,
)
from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import Block, StateFile
from flowrt.testing.world import MemoryFiles

pytestmark = pytest.mark.anyio

PATH = "a.state"
BLOCKS = [
    Block("count", 3, 2, b"\x01count-3"),
    Block("total", 3, 1, b"\x01total-3"),
    Block("count", 90, 1, b"\x01count-90"),
]


def build(blocks: list[Block], groups: range = range(128)) -> tuple[bytes, StateFile]:
    builder = StateFileBuilder()
    for block in blocks:
        builder.add(block)
    builder.finish()
    return b"".join(builder.take()), builder.state_file(PATH, groups)


async def stored(data: bytes) -> MemoryFiles:
    files = MemoryFiles()
    await files.write(PATH, [data])
    return files


async def read_all(files: MemoryFiles, file: StateFile) -> list[Block]:
    index = await read_index(files, PATH, file)
    blocks = []
    for groups in batches([index]):
        blocks += await read_blocks(files, PATH, in_groups(index, groups))
    return blocks


async def test_blocks_come_back() -> None:
    data, file = build(BLOCKS)
    files = await stored(data)

    assert (file.size, file.entries) == (len(data), 4)
    assert await verify_state_file(files, PATH, file) is None
    assert await read_all(files, file) == BLOCKS


async def test_a_file_without_blocks_is_a_file() -> None:
    data, file = build([])

    assert await read_all(await stored(data), file) == []


async def test_only_the_key_groups_asked_for_are_read() -> None:
    data, file = build(BLOCKS, range(64, 128))

    assert await read_all(await stored(data), file) == BLOCKS[2:]


async def test_every_flipped_byte_is_found() -> None:
    data, file = build(BLOCKS)
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
        files = await stored(damaged)

        problem = await verify_state_file(files, PATH, file)

        assert problem is not None, f"byte {at} was flipped"
        assert PATH in problem
        # Even unverified (while files are merged) damage is refused or makes no difference.
        with suppress(CheckpointError):
            assert await read_all(files, file) == BLOCKS


async def test_every_cut_and_every_longer_file_is_found() -> None:
    data, file = build(BLOCKS)
    for cut in [*(data[:size] for size in range(len(data))), data + b"\0"]:
        files = await stored(cut)

        problem = await verify_state_file(files, PATH, file)

        assert problem == f"{PATH} has {len(cut)} instead of {len(data)} bytes"
        if len(cut) < len(data):
            with pytest.raises(CheckpointError, match="damaged"):
                await read_all(files, file)


async def test_a_missing_file_is_found() -> None:
    _, file = build(BLOCKS)

    assert await verify_state_file(MemoryFiles(), PATH, file) == f"{PATH} is missing"


async def test_a_large_file_is_verified_and_read_in_pieces() -> None:
    third = bytes(PIECE_BYTES // 3 + 1)
    blocks = [Block("big", group, 1, third) for group in range(7)]
    data, file = build(blocks)
    files = await stored(data)
    index = await read_index(files, PATH, file)

    assert list(batches([index])) == [range(2), range(2, 4), range(4, 6), range(6, 7)]
    assert await verify_state_file(files, PATH, file) is None
    assert await read_all(files, file) == blocks


def test_no_files_have_no_batches() -> None:
    assert list(batches([])) == []
    assert list(batches([[], []])) == []


def test_blocks_out_of_order_are_refused() -> None:
    builder = StateFileBuilder()
    builder.add(BLOCKS[2])

    with pytest.raises(ValueError, match="order"):
        builder.add(BLOCKS[0])
