"""What the tests of connectors share: contexts, and how to read a source to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from flowrt.contract.sink import SinkContext
from flowrt.contract.source import Chunk, Position, Reader, Source, SourceContext
from flowrt.contract.world import World
from flowrt.runtime.world import system_world

T = TypeVar("T")


def source_context(world: World | None = None) -> SourceContext:
    return SourceContext("events", 0, 1, world or system_world())


def sink_context(
    world: World | None = None,
    *,
    subtask: int = 0,
    parallelism: int = 1,
    generation: int = 1,
    operator: str = "out",
) -> SinkContext:
    return SinkContext(operator, subtask, parallelism, generation, world or system_world())


async def open_reader(
    source: Source[T], ctx: SourceContext, position: Position | None = None
) -> Reader[T]:
    """Open the source's only split."""
    (split,) = await source.splits(ctx)
    return await source.reader(split, position, ctx)


async def chunks_of(reader: Reader[T], limit: int = 1_000) -> AsyncIterator[Chunk[T]]:
    """Yield what a reader gives until its end, then close it."""
    while (chunk := await reader.read(limit)) is not None:
        assert len(chunk.values) <= limit
        yield chunk
    assert await reader.read(limit) is None
    await reader.close()


async def read_all(
    source: Source[T],
    ctx: SourceContext | None = None,
    *,
    limit: int = 1_000,
    position: Position | None = None,
) -> list[T]:
    """Return all values of the source's only split, from a position on."""
    reader = await open_reader(source, ctx or source_context(), position)
    return [value async for chunk in chunks_of(reader, limit) for value in chunk.values]


def offset(chunk: Chunk[Any] | None) -> int:
    """Return the byte behind which a chunk of a file ends."""
    assert chunk is not None
    byte: int = chunk.position["byte"]
    return byte


async def check_replay(source: Source[Any], ctx: SourceContext, limit: int) -> list[Any]:
    """Return all values, having read the rest again from behind each chunk."""
    reader = await open_reader(source, ctx)
    chunks = [chunk async for chunk in chunks_of(reader, limit)]
    values = [value for chunk in chunks for value in chunk.values]
    read = 0
    for chunk in chunks:
        read += len(chunk.values)
        rest = await read_all(source, ctx, limit=limit, position=chunk.position)
        assert rest == values[read:]
    return values
