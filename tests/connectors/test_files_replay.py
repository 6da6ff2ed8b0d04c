"""However blocks, limits and positions fall, a file gives the same records."""

from __future__ import annotations

import csv
import gzip
import io
from typing import Any, Literal
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.connectors.files import blocks
from flowrt.connectors.files.source import FileSource
from flowrt.contract.errors import InputError
from flowrt.testing.world import MemoryFiles, manual_world
from tests.connectors.kit import (
    check_replay,
    chunks_of,
    offset,
    open_reader,
    read_all,
    source_context,
)

pytestmark = pytest.mark.anyio

Formats = Literal["jsonl", "csv", "text"]
CELLS = st.text(alphabet='ab,"\n\r é', max_size=5)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=8)
LINES = st.lists(st.sampled_from(["1", '{"a": [2]}', '"é"', "", " ", "[]", "null"]), max_size=12)


async def check(
    data: bytes, format: Formats, block: int, limit: int, *, compressed: bool = False
) -> list[Any]:
    """Read a file in blocks of a size, and again from each position; return its records."""
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    path = "data.gz" if compressed else "data"
    world.files.replace(path, gzip.compress(data) if compressed else data)
    with patch.object(blocks, "BLOCK_BYTES", block):
        source: FileSource[Any] = FileSource(path, format)
        return await check_replay(source, source_context(world), limit)


@given(
    rows=ROWS,
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    ends_in_newline=st.booleans(),
    block=st.integers(1, 40),
    limit=st.integers(1, 4),
    compressed=st.booleans(),
)
async def test_csv(
    rows: list[tuple[str, str, str]],
    quoting: Literal[0, 1],
    ends_in_newline: bool,
    block: int,
    limit: int,
    compressed: bool,
) -> None:
    text = io.StringIO()
    # Each kind of newline makes the writer quote that kind.
    csv.writer(text, quoting=quoting, lineterminator="\r\n").writerows([("x", "y", "z"), *rows])
    data = text.getvalue().encode()
    if not ends_in_newline:
        data = data[:-2]

    values = await check(data, "csv", block, limit, compressed=compressed)

    assert values == [dict(zip("xyz", row, strict=True)) for row in rows]


@given(lines=LINES, block=st.integers(1, 20), limit=st.integers(1, 4))
async def test_json_lines(lines: list[str], block: int, limit: int) -> None:
    meaning = {"1": 1, '{"a": [2]}': {"a": [2]}, '"é"': "é", "[]": [], "null": None}

    values = await check("\r\n".join(lines).encode(), "jsonl", block, limit)

    assert values == [meaning[line] for line in lines if line.strip()]


@given(
    lines=st.lists(st.text(alphabet="aé €", max_size=4), max_size=8),
    block=st.integers(1, 20),
    limit=st.integers(1, 4),
)
async def test_text_positions_are_the_offsets_of_lines(
    lines: list[str], block: int, limit: int
) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    world.files.replace("data", data)
    read: list[str] = []

    with patch.object(blocks, "BLOCK_BYTES", block):
        reader = await open_reader(FileSource("data", "text"), source_context(world))
        async for chunk in chunks_of(reader, limit):
            read += chunk.values
            assert offset(chunk) == len("".join(line + "\n" for line in read).encode())

    assert read == lines
    assert await check(data, "text", block, limit, compressed=True) == lines


@given(
    parts=st.lists(
        st.lists(st.sampled_from(["1,a", '2,"b\nc"', "é,", "x" * 600 + ","]), max_size=4)
    ),
    format=st.sampled_from(["text", "csv"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    block=st.sampled_from([1, 2, 7, 5_000]),
    limit=st.integers(1, 4),
    compressed=st.booleans(),
)
async def test_a_file_that_grows_between_readings_gives_what_it_gives_as_a_whole(
    parts: list[list[str]],
    format: Literal["text", "csv"],
    newline: str,
    mark: bool,
    block: int,
    limit: int,
    compressed: bool,
) -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    path = "data.gz" if compressed else "data"
    source: FileSource[Any] = FileSource(path, format)
    data = b"\xef\xbb\xbf" * mark
    position = None
    values: list[Any] = []

    with patch.object(blocks, "BLOCK_BYTES", block):
        for part in [["x,y"], *parts]:
            data += "".join(line + newline for line in part).encode()
            world.files.replace(path, gzip.compress(data) if compressed else data)
            reader = await open_reader(source, source_context(world), position)
            async for chunk in chunks_of(reader, limit):
                values += chunk.values
                position = chunk.position
        assert values == await read_all(source, source_context(world))


@given(
    lines=st.lists(st.sampled_from(['1,"a"', '2,"b\nc"', '3,"d"x', "4", ""]), max_size=8),
    block=st.integers(1, 40),
    limit=st.integers(1, 4),
)
async def test_a_broken_row_is_met_at_the_same_place(
    lines: list[str], block: int, limit: int
) -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    world.files.replace("data", "\n".join(["x,y", *lines]).encode())
    broken = [index for index, line in enumerate(lines) if line in ('3,"d"x', "4")]
    good = [line[0] for line in lines[: broken[0] if broken else None] if line]
    offset = len("\n".join(["x,y", *lines[: broken[0]], ""])) if broken else None
    read: list[str] = []
    error = None

    with patch.object(blocks, "BLOCK_BYTES", block):
        reader = await open_reader(FileSource("data", "csv"), source_context(world))
        try:
            async for chunk in chunks_of(reader, limit):
                read += [row["x"] for row in chunk.values]
        except InputError as raised:
            error = str(raised)
        source = FileSource("data", "csv", on_error="skip")
        skipping = await check_replay(source, source_context(world), limit)

    assert read == good
    assert (error is not None) == bool(broken)
    assert offset is None or f"the line at byte {offset} cannot be read" in (error or "")
    assert [row["x"] for row in skipping] == [
        line[0] for line in lines if line[:1] in "12" and line
    ]
