from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from flowrt.connectors.rate import RateRow, RateSource
from flowrt.contract.errors import ConfigError
from flowrt.contract.source import Chunk
from flowrt.testing import check_source, record
from flowrt.testing.world import ManualClock, manual_world
from tests.connectors.kit import check_replay, open_reader, source_context

pytestmark = pytest.mark.anyio


async def test_rows_come_when_they_are_due() -> None:
    world = manual_world(now_ms=1_000)
    clock = world.clock
    assert isinstance(clock, ManualClock)
    reader = await open_reader(RateSource(4), source_context(world))
    chunks: list[Chunk[RateRow] | None] = []

    assert await reader.read(10) == Chunk([], [0, 1_000])  # the start belongs to the position
    chunks.append(await reader.read(10))

    async def read() -> None:
        chunks.append(await reader.read(2))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        while clock.next_alarm_ms() is None:
            await checkpoint()
        assert clock.next_alarm_ms() == 1_250
        assert await reader.lag(None) == (0, "records")
        clock.set_to(1_499)
    clock.set_to(1_999)
    await read()

    assert chunks == [
        Chunk([RateRow(0, 1_000)], [1, 1_000], [1_000]),
        Chunk([RateRow(1, 1_250)], [2, 1_000], [1_250]),
        Chunk([RateRow(2, 1_500), RateRow(3, 1_750)], [4, 1_000], [1_500, 1_750]),
    ]


@given(
    rate=st.one_of(st.integers(1, 5_000), st.floats(0.1, 5_000)),
    rows=st.integers(0, 40),
    splits=st.integers(1, 3),
    limit=st.integers(1, 7),
)
async def test_every_row_comes_once_and_is_the_same_when_replayed(
    rate: float, rows: int, splits: int, limit: int
) -> None:
    source = RateSource(rate, rows=rows, start=0, splits=splits)
    ctx = source_context(manual_world(now_ms=10_000_000))
    found: list[RateRow] = []
    for split in await source.splits(ctx):
        part: RateSource = RateSource(rate, rows=rows, start=0, splits=splits)
        part.splits = _only(split)  # type: ignore[method-assign]
        found += await check_replay(part, ctx, limit)

    found.sort(key=lambda row: row.value)
    assert [row.value for row in found] == list(range(rows))
    assert all(0 <= row.value * 1_000 / rate - row.timestamp < 1.01 for row in found)


def _only(split: Any) -> Any:
    async def splits(ctx: object) -> list[Any]:
        return [split]

    return splits


async def test_a_replay_keeps_the_first_start_and_catches_up() -> None:
    world = manual_world(now_ms=60_000)

    reader = await open_reader(RateSource(1), source_context(world), [2, 57_000])
    chunk = await reader.read(10)

    assert chunk is not None
    assert chunk.values == [RateRow(2, 59_000), RateRow(3, 60_000)]
    assert await reader.lag([1, 57_000]) == (3, "records")


async def test_rows_are_bounded_only_with_an_end() -> None:
    source = RateSource(2.5, rows=10)

    assert (source.bounded, source.describe()) == (True, "2.5 rows/s, 10 rows")
    assert not RateSource(1).bounded


@pytest.mark.parametrize(
    "arguments",
    [
        {"rows_per_second": 0},
        {"rows_per_second": 1e-9},
        {"rows_per_second": 1, "splits": 0},
        {"rows_per_second": 1, "rows": -1},
    ],
)
async def test_wrong_options_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RateSource(**arguments)


@pytest.mark.parametrize("splits", [1, 2])
async def test_laws_of_rows_that_were_due(splits: int) -> None:
    rows = [record(RateRow(n, n * 400), at=n * 400) for n in range(6)]

    await check_source(
        lambda: RateSource(2.5, rows=6, start=0, splits=splits),
        {str(split): rows[split::splits] for split in range(splits)},
        world=manual_world(now_ms=10_000),
    )


@pytest.mark.parametrize("rows", [None, 4])
async def test_laws_of_rows_that_begin_now(rows: int | None) -> None:
    # A rate at which the first million rows are due in the first millisecond.
    expect = [record(RateRow(n, 7_000), at=7_000) for n in range(4)]

    await check_source(lambda: RateSource(1e9, rows=rows), expect, world=manual_world(now_ms=7_000))
