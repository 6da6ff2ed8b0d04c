"""ScriptedSource: records, failures and pauses as data."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flowrt.contract.errors import ConfigError
from flowrt.contract.source import Chunk, Position, SourceContext
from flowrt.contract.world import World
from flowrt.testing import (
    END,
    FAIL,
    PAUSE,
    ManualClock,
    ScriptedFailure,
    ScriptedSource,
    check_source,
    fail,
    manual_world,
    processing_time,
    record,
)

pytestmark = pytest.mark.anyio


async def read(
    source: ScriptedSource[Any],
    limit: int = 10,
    split: str = "0",
    position: Position = None,
    world: World | None = None,
) -> Chunk[Any] | None:
    """Open a reader and read once."""
    ctx = SourceContext("here", 0, 1, world or manual_world())
    found = {one.id: one for one in await source.splits(ctx)}
    reader = await source.reader(found[split], position, ctx)
    try:
        return await reader.read(limit)
    finally:
        await reader.close()


async def test_it_keeps_the_laws_of_sources() -> None:
    await check_source(lambda: ScriptedSource([1, 2, 3, END]), [1, 2, 3])
    await check_source(
        lambda: ScriptedSource({"a": [record(1, at=5), 2], "b": [], "c": [3]}, chunk=2),
        {"a": [record(1, at=5), record(2)], "b": [], "c": [3]},
    )
    await check_source(lambda: ScriptedSource([]), [])


async def test_a_failure_comes_once() -> None:
    source: ScriptedSource[int] = ScriptedSource([1, 2, FAIL, 3])

    assert await read(source) == Chunk([1, 2], 2)
    with pytest.raises(ScriptedFailure, match="split '0' fails at element 2"):
        await read(source, position=2)
    assert await read(source, position=2) == Chunk([3], 4)
    assert await read(source, position=4) is None


async def test_a_failure_of_ones_own() -> None:
    source: ScriptedSource[int] = ScriptedSource([fail(OSError("unplugged")), 1])

    with pytest.raises(OSError, match="unplugged"):
        await read(source)
    assert await read(source) == Chunk([1], 2)


async def test_a_pause_waits_until_it_is_released() -> None:
    source: ScriptedSource[int] = ScriptedSource([1, PAUSE, 2])
    got = []

    async def reading() -> None:
        got.append(await read(source, position=1))

    async with anyio.create_task_group() as group:
        group.start_soon(reading)
        await source.paused()
        assert got == []
        source.release()

    assert got == [Chunk([2], 3)]
    assert await read(source, position=1) == Chunk([2], 3), "it stays released"


async def test_a_read_that_is_cancelled_at_a_pause_loses_nothing() -> None:
    source: ScriptedSource[int] = ScriptedSource({"a": [PAUSE, 1], "b": [PAUSE, PAUSE, 2]})
    async with anyio.create_task_group() as group:
        group.start_soon(read, source, 10, "a")
        await source.paused("a")
        group.cancel_scope.cancel()

    source.release("a")
    source.release("b")
    source.release("b")

    assert await read(source, split="a") == Chunk([1], 2)
    assert await read(source, split="b") == Chunk([2], 3)


async def test_it_can_wait_for_the_clock() -> None:
    source: ScriptedSource[int] = ScriptedSource([processing_time(100), 1])
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    got = []

    async def reading() -> None:
        got.append(await read(source, world=world))

    async with anyio.create_task_group() as group:
        group.start_soon(reading)
        while clock.next_alarm_ms() is None:
            await checkpoint()
        clock.set_to(100)

    assert got == [Chunk([1], 2)]


async def test_chunks_are_no_longer_than_asked_for() -> None:
    source: ScriptedSource[int] = ScriptedSource([record(1, at=5), 2, 3], chunk=2)

    assert await read(source, limit=1) == Chunk([1], 1, [5])
    assert await read(source) == Chunk([1, 2], 2, [5, None])


async def test_it_remembers_what_it_was_told() -> None:
    source: ScriptedSource[int] = ScriptedSource([1])
    await read(source)
    await source.committed(3, {"0": 1})

    assert source.closed == 1
    assert source.committed_positions == [(3, {"0": 1})]
    assert source.describe() == "scripted (1 elements)"


async def test_a_script_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="split 'a' goes on behind END, at element 2"):
        ScriptedSource({"a": [1, END, 2]})
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        ScriptedSource([1], chunk=0)
