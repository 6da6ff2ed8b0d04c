"""Folders that get new files, and files that grow."""

from __future__ import annotations

import gzip
import re

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flowrt.connectors.files import blocks
from flowrt.connectors.files.source import FileSource
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.source import Chunk, Reader
from flowrt.contract.world import World
from flowrt.testing.world import ManualClock, MemoryFiles, manual_world
from tests.connectors.kit import chunks_of, offset, open_reader, read_all, source_context

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

    assert found == [["b.txt"], ["a.txt", "b.txt"], ["a.txt", "b.txt"]]


async def test_a_watched_folder_may_be_empty_but_not_missing() -> None:
    world = manual_world()
    await world.files.make_folder("in")

    assert await FileSource("in", watch=True).splits(source_context(world)) == []
    for path in ("inn", "inn/*.txt", "in/inn/*/*.txt"):
        with pytest.raises(ConfigError, match=rf"the input '{re.escape(path)}' does not exist"):
            await FileSource(path, watch=True).splits(source_context(world))


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

    assert [(chunk.values, offset(chunk)) for chunk in chunks if chunk] == [
        (["one"], 4),
        (["two"], 8),
    ]


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

    (chunk,) = chunks
    assert chunk is not None
    assert chunk.values == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert offset(chunk) == 14


async def test_another_file_in_the_place_of_one_that_is_followed_is_an_error() -> None:
    world = manual_world()
    files, clock = controls(world)
    files.replace("log", b"one\ntwo\n")
    reader = await open_reader(FileSource("log", "text", follow=True), source_context(world))
    await reader.read(2)

    async def read() -> None:
        with pytest.raises(InputError, match="log was replaced: its first 8 bytes are not those"):
            await reader.read(2)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until_asleep(clock)
        files.replace("log", b"three\nfour\nfive\n")
        clock.advance(1_000)


def packed(content: bytes, path: str) -> bytes:
    return gzip.compress(content) if path.endswith(".gz") else content


PATHS = pytest.mark.parametrize("path", ["log", "log.gz"])
BLOCKS = pytest.mark.parametrize("size", [1, 3, 5_000])


@PATHS
@BLOCKS
@pytest.mark.parametrize("lines", [1, 2, 1_500])
async def test_a_file_that_has_grown_is_read_on(
    monkeypatch: pytest.MonkeyPatch, path: str, size: int, lines: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    world = manual_world()
    files, _ = controls(world)
    before = b"".join(b"%d\n" % number for number in range(lines))
    files.replace(path, packed(b"\xef\xbb\xbf" + before, path))
    source = FileSource(path, "text")
    reader = await open_reader(source, source_context(world))
    position = [chunk.position async for chunk in chunks_of(reader)][-1]

    assert await read_all(source, source_context(world), position=position) == []
    files.replace(path, packed(b"\xef\xbb\xbf" + before + b"more\nand more\n", path))
    values = await read_all(source, source_context(world), position=position)
    assert values == ["more", "and more"]


@PATHS
@BLOCKS
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
async def test_a_last_line_that_got_its_newline_is_the_same_line(
    monkeypatch: pytest.MonkeyPatch, path: str, size: int, newline: bytes
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    world = manual_world()
    files, _ = controls(world)
    files.replace(path, packed(b"1\n12", path))
    source = FileSource(path, "text")
    reader = await open_reader(source, source_context(world))
    position = [chunk.position async for chunk in chunks_of(reader)][-1]

    files.replace(path, packed(b"1\n12" + newline + b"\n3\n", path))
    reader = await open_reader(source, source_context(world), position)
    chunks = [chunk async for chunk in chunks_of(reader)]
    assert [value for chunk in chunks for value in chunk.values] == ["", "3"]

    files.replace(path, packed(b"1\n12" + newline + b"\n3\n4", path))
    values = await read_all(source, source_context(world), position=chunks[-1].position)
    assert values == ["4"]


@PATHS
@BLOCKS
@pytest.mark.parametrize("more", [b"34\n", b"\r34\n", b"\r"])
async def test_a_last_line_that_goes_on_is_an_error(
    monkeypatch: pytest.MonkeyPatch, path: str, size: int, more: bytes
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    world = manual_world()
    files, _ = controls(world)
    files.replace(path, packed(b"1\n12", path))
    source = FileSource(path)
    reader = await open_reader(source, source_context(world))
    position = [chunk.position async for chunk in chunks_of(reader)][-1]

    files.replace(path, packed(b"1\n12" + more, path))
    with pytest.raises(InputError, match=f"{path}: when it was read to its end, at byte 4, the la"):
        await read_all(source, source_context(world), position=position)


@PATHS
@pytest.mark.parametrize("lines", [1, 1_500])
async def test_another_longer_file_is_an_error(path: str, lines: int) -> None:
    world = manual_world()
    files, _ = controls(world)
    files.replace(path, packed(b"a\n" + b"b\n" * lines, path))
    source = FileSource(path, "text")
    reader = await open_reader(source, source_context(world))
    position = [chunk.position async for chunk in chunks_of(reader)][-1]

    files.replace(path, packed(b"c\n" + b"b\n" * (lines + 1), path))
    size = min(1024, 2 + 2 * lines)
    with pytest.raises(InputError, match=f"{path} was replaced: its first {size} bytes are not"):
        await read_all(source, source_context(world), position=position)


@PATHS
@pytest.mark.parametrize("lines", [1, 1_500])
async def test_a_file_that_comes_back_goes_on_if_it_begins_as_it_did(path: str, lines: int) -> None:
    world = manual_world()
    files, _ = controls(world)
    before = b"a\n" + b"b\n" * lines
    files.replace(path, packed(before, path))
    source = FileSource(path, "text")
    reader = await open_reader(source, source_context(world))
    position = [chunk.position async for chunk in chunks_of(reader)][-1]

    async def goes_on(content: bytes) -> bool:
        files.replace(path, content)
        (split,) = await source.splits(source_context(world))
        return await source.goes_on(split, position, source_context(world))

    assert await goes_on(packed(before, path))
    assert await goes_on(packed(before + b"more\n", path))
    assert not await goes_on(packed(b"c\n" + b"b\n" * (lines + 1), path))
    assert not await goes_on(packed(before[:-1], path))
    assert not await goes_on(b"no gzip" * 1_000)


async def test_of_a_file_that_is_gone_or_was_not_read_nothing_is_known() -> None:
    world = manual_world()
    files, _ = controls(world)
    files.replace("log", b"1\n")
    source, ctx = FileSource("log"), source_context(world)
    (split,) = await source.splits(ctx)

    assert not await source.goes_on(split, None, ctx)
    assert not await source.goes_on(split, 2, ctx)
    files.forget("log")
    assert not await source.goes_on(split, {"byte": 2, "start": 0}, ctx)


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
