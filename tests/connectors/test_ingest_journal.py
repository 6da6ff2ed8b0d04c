"""A journal whose bytes are not as they were written: cut anywhere, with any byte changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.connectors.ingest.frames import (
    MAGIC,
    Segment,
    encode_batch,
    payloads_of,
    whole_batch,
)
from flowrt.connectors.ingest.journal import Journal, Replay
from flowrt.connectors.ingest.source import Ingest
from flowrt.contract.errors import InputError
from flowrt.contract.world import World
from flowrt.testing import MemoryFiles, manual_world
from flowrt.testing.world import SeededRandomness
from tests.connectors.kit import open_reader, source_context

pytestmark = pytest.mark.anyio

FOLDER = "j"
LIMIT = 1_024
EVENTS = 8


@dataclass(frozen=True)
class Written:
    """A journal in several files, each event a batch: where each batch begins in its file."""

    files: dict[str, bytes]
    places: dict[str, list[int]]

    @property
    def last(self) -> str:
        return max(self.files)

    def count_before(self, path: str) -> int:
        """How many events lie in the files before one."""
        return sum(len(places) for name, places in self.places.items() if name < path)


@cache
def written() -> Written:
    files: dict[str, bytes] = {}
    places: dict[str, list[int]] = {}
    segment, offset = Segment(0, 0, 0), 0
    for number in range(EVENTS):
        if number % 3 == 0:
            segment = Segment(0, offset, number)
            files[f"{FOLDER}/{segment.name}"], places[f"{FOLDER}/{segment.name}"] = MAGIC, []
        path = f"{FOLDER}/{segment.name}"
        places[path].append(len(files[path]))
        # An event is its own number, as msgpack has it.
        batch = encode_batch(offset, number, [bytes([number])])
        files[path] += batch
        offset += len(batch)
    return Written(files, places)


def world_with(files: dict[str, bytes]) -> World:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    for path, data in files.items():
        world.files.replace(path, data)
    return world


async def read_all(world: World, new: str = "new") -> list[Any]:
    """Read a journal as a flow without a checkpoint does, then send one event and read that."""
    orders: Ingest[Any] = Ingest("orders", journal=FOLDER, journal_limit_bytes=LIMIT)
    reader = await open_reader(orders, source_context(world))
    values: list[Any] = []
    try:
        await orders.send(new)
        while new not in values:
            chunk = await reader.read(3)
            assert chunk is not None
            values += chunk.values
    finally:
        await reader.close()
    assert values.pop() == new
    return values


async def test_what_was_written_is_read() -> None:
    assert await read_all(world_with(written().files)) == list(range(EVENTS))
    assert len(written().files) == 3


@pytest.mark.parametrize("path", sorted(written().files))
async def test_each_byte_changed_is_an_error_or_a_torn_end(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written()
    data, places = whole.files[path], whole.places[path]
    for at in range(len(data)):
        caplog.clear()
        changed = bytes([*data[:at], data[at] ^ 0x41, *data[at + 1 :]])
        world = world_with({**whole.files, path: changed})
        batch = max((place for place in places if place <= at), default=0)
        if path == whole.last and batch == places[-1]:
            # Nobody can tell it from a write that a crash cut short.
            assert await read_all(world) == list(range(EVENTS - 1))
            (line,) = caplog.messages
            assert f"{len(data) - batch} bytes at byte {batch} of {path.removeprefix('j/')}" in line
        elif batch == 0 and path != whole.last:
            assert await read_all(world) == list(range(EVENTS))
        else:
            with pytest.raises(InputError, match=rf"{re.escape(path)} is damaged at byte {batch}:"):
                await read_all(world)


@pytest.mark.parametrize("path", sorted(written().files))
async def test_each_length_is_an_error_or_a_torn_end(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written()
    data, places = whole.files[path], whole.places[path]
    for size in range(len(data)):
        caplog.clear()
        world = world_with({**whole.files, path: data[:size]})
        if path == whole.last:
            ends = [*places[1:], len(data)]
            left = sum(1 for end in ends if end <= size)
            assert await read_all(world) == list(range(whole.count_before(path) + left))
            at_a_border = size in (0, *places)
            assert len(caplog.messages) == (0 if at_a_border else 1)
        else:
            with pytest.raises(InputError, match=rf"{re.escape(path)} ends at byte {size}, and"):
                await read_all(world)


async def test_a_missing_file_in_the_middle_is_an_error() -> None:
    whole = written()
    first, second, third = sorted(whole.files)

    with pytest.raises(InputError, match=re.escape(first)):
        await read_all(world_with({first: whole.files[first], third: whole.files[third]}))
    # Files at the beginning are those that epochs covered.
    rest = await read_all(world_with({path: whole.files[path] for path in (second, third)}))
    assert rest == list(range(3, EVENTS))


@given(rest=st.binary(max_size=80))
async def test_whatever_lies_behind_the_last_batch_is_left_out(rest: bytes) -> None:
    whole = written()
    world = world_with({**whole.files, whole.last: whole.files[whole.last] + rest})

    assert await read_all(world) == list(range(EVENTS))
    assert await read_all(world, "newer") == [*range(EVENTS), "new"]


@given(seed=st.integers(0, 10**6), groups=st.lists(st.integers(1, 4), max_size=12))
async def test_what_append_returned_for_survives_any_crash(seed: int, groups: list[int]) -> None:
    world, chance = manual_world(), SeededRandomness(seed)
    files = world.files
    assert isinstance(files, MemoryFiles)
    kept: list[bytes] = []
    number = 0
    journal = await Journal.open(files, FOLDER, LIMIT)
    for size in groups:
        payloads = [str(number + n).encode() for n in range(size)]
        number += size
        operation = chance.fraction()
        if operation < 0.3:  # the process dies in the middle of it
            step: Any = "sync" if operation < 0.15 else "write_at"
            files.fail(step, ".journal", OSError(5, "dead"), torn=int(chance.fraction() * 90))
        try:
            await journal.append(payloads)
        except OSError:
            maybe = [*kept, *payloads]
            files.crash(chance)
            journal = await Journal.open(files, FOLDER, LIMIT)
            assert await _all(journal) in (kept, maybe)
            kept = await _all(journal)
        else:
            kept += payloads
            if chance.fraction() < 0.3:
                files.crash(chance)
                journal = await Journal.open(files, FOLDER, LIMIT)
        files._faults.clear()
    files.crash()
    journal = await Journal.open(files, FOLDER, LIMIT)
    assert await _all(journal) == kept
    assert journal.number == len(kept)
    journal.close()


async def _all(journal: Journal) -> list[bytes]:
    begin, _ = journal.bounds(journal.stream)
    replay = Replay(journal, begin, journal.end)
    found: list[bytes] = []
    while (piece := await replay.next()) is not None:
        assert piece[0].number == len(found)
        found += piece[1]
    return found


@given(payloads=st.lists(st.binary(max_size=20), max_size=5), offset=st.integers(0, 2**63))
async def test_a_batch_comes_back_from_its_bytes(payloads: list[bytes], offset: int) -> None:
    data = b"before" + encode_batch(offset, 7, payloads) + b"behind"
    batch = whole_batch(data, 6, offset)

    assert batch is not None
    assert (batch.number, batch.count, batch.size) == (7, len(payloads), len(data) - 12)
    assert payloads_of(data, 6, batch) == payloads
    assert whole_batch(data, 6, offset + 1) is None
