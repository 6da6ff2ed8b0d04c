"""Folders that get new files, and files that grow."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flowrt.connectors.files import FileSource
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.source import Chunk, Reader
from flowrt.contract.world import World
from flowrt.testing.world import ManualClock, MemoryFiles, manual_world
from tests.connectors.kit import open_reader, source_context

pytestmark = pytest.mark.anyio


def controls(world: World) -> tuple[MemoryFiles, ManualClock]:
    assert isinstance(world.files, MemoryFiles)
    assert isinstance(world.clock, ManualClock)
    return world.files, world.clock


async def until_asleep(clock: ManualClock) -> None:
    """Let the other tasks run until one waits for the clock."""
    while clock.next_alarm_ms() is None:
        await checkpoint()


async def test_new_files_are_found() -> None:
    world = manual_world()
    files, _ = controls(world)
    source = FileSource("in/*.txt", "text", watch=True)
    await files.make_folder("in")

    found = []
    for name in ("b.txt", "a.txt", ".c.txt"):
        files.replace(f"in/{name}", b"x\n")
        found.append([split.id for split in await source.splits(source_context(world))])

    assert found == [["in/b.txt"], ["in/a.txt", "in/b.txt"], ["in/a.txt", "in/b.txt"]]


async def test_a_watched_folder_may_be_empty_but_not_missing() -> None:
    world = manual_world()
    await world.files.make_folder("in")

    assert await FileSource("in", watch=True).splits(source_context(world)) == []
    with pytest.raises(ConfigError, match="the input 'inn' does not exist"):
        await FileSource("inn", watch=True).splits(source_context(world))


async def test_a_file_is_followed_line_by_line() -> None:
    world = manual_world()
    files, clock = controls(world)
    files.replace("log", b"one\ntw")
    source = FileSource("log", "text", follow=True, discovery_interval="2s")
    reader = await open_reader(source, source_context(world))
    chunks: list[Chunk[str] | None] = []

    async def read() -> None:
        chunks.append(await reader.read(10))

    await read()
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until_asleep(clock)
        files.replace("log", b"one\ntwo\nthr")
        clock.advance(2_000)

    assert chunks == [Chunk(["one"], 4), Chunk(["two"], 8)]


async def test_a_csv_file_is_followed_from_before_its_header() -> None:
    world = manual_world()
    files, clock = controls(world)
    files.replace("log.csv", b"")
    reader: Reader[dict[str, str]] = await open_reader(
        FileSource("log.csv", "csv", follow=True), source_context(world)
    )
    chunks: list[Chunk[dict[str, str]] | None] = []

    async def read() -> None:
        chunks.append(await reader.read(10))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for content in (b'a,"b', b'a,"b"\n1', b'a,"b"\n1,2\n3,4\n'):
            await until_asleep(clock)
            files.replace("log.csv", content)
            clock.advance(1_000)

    assert chunks == [Chunk([{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], 14)]


async def test_waiting_for_a_file_to_grow_can_be_cancelled() -> None:
    world = manual_world()
    files, clock = controls(world)
    files.replace("log", b"one\n")
    reader = await open_reader(FileSource("log", "text", follow=True), source_context(world))
    await reader.read(1)

    async with anyio.create_task_group() as group:
        group.start_soon(reader.read, 1)
        await until_asleep(clock)
        group.cancel_scope.cancel()

    assert clock.next_alarm_ms() is None


@pytest.mark.parametrize("content", [b"on", None])
async def test_a_followed_file_that_shrinks_or_goes_is_an_error(content: bytes | None) -> None:
    world = manual_world()
    files, clock = controls(world)
    files.replace("log", b"one\n")
    reader = await open_reader(FileSource("log", "text", follow=True), source_context(world))
    await reader.read(1)
    errors: list[str] = []

    async def read() -> None:
        with pytest.raises(InputError) as caught:
            await reader.read(1)
        errors.append(str(caught.value))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until_asleep(clock)
        if content is None:
            await files.delete("log")
        else:
            files.replace("log", content)
        clock.advance(1_000)

    expected = "log cannot be read: the file is gone" if content is None else "replaced or cut"
    assert expected in errors[0]


async def test_a_compressed_file_cannot_be_followed() -> None:
    world = manual_world()
    files, _ = controls(world)
    await files.make_folder("in")
    files.replace("in/log.gz", b"")
    reader = await open_reader(FileSource("in", "text", follow=True), source_context(world))

    with pytest.raises(ConfigError, match=r"in/log\.gz is compressed and cannot be followed"):
        await reader.read(1)


async def test_a_disk_that_fails_is_an_error_with_the_path() -> None:
    world = manual_world()
    files, _ = controls(world)
    files.replace("log", b"one\n")
    reader = await open_reader(FileSource("log", "text"), source_context(world))
    files.fail("read", "log", OSError(5, "Input/output error"))

    with pytest.raises(InputError, match="log cannot be read: Input/output error"):
        await reader.read(1)
