"""Files keep the laws of sources, in each format, packed or not, in a folder or by a pattern."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from flowrt.connectors.files import blocks
from flowrt.connectors.files.csv_format import CsvFormat
from flowrt.connectors.files.source import FileSource
from flowrt.contract.world import World
from flowrt.testing import MemoryFiles, check_source, manual_world

pytestmark = pytest.mark.anyio


class Click(msgspec.Struct, frozen=True):
    user: str
    at: int


@dataclass(frozen=True)
class Person:
    name: str
    age: int | None


@pytest.fixture(params=[3, blocks.BLOCK_BYTES], ids=["small blocks", "one block"], autouse=True)
def _block_bytes(request: pytest.FixtureRequest) -> Iterator[None]:
    with patch.object(blocks, "BLOCK_BYTES", request.param):
        yield


def world_with(**contents: bytes) -> World:
    """Return a world with these files in the folder "in"; `a_txt` is the file "in/a.txt"."""
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    for name, content in contents.items():
        world.files.replace(f"in/{name.replace('_', '.')}", content)
    return world


JSON = b'{"user": "ann", "at": 1}\n\n{"at": 2, "user": "b\\u00e9a"}\r\n{"user": "", "at": 3}'
CLICKS = [("ann", 1), ("béa", 2), ("", 3)]
CSV = 'name,age\nann,1\n"b\n""é""",2\n\nlast,'.encode()
PEOPLE = [("ann", "1"), ('b\n"é"', "2"), ("last", "")]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("arguments", "content", "expect"),
    [
        ({}, JSON, [{"user": user, "at": at} for user, at in CLICKS]),
        ({"type": Click}, JSON, [Click(user, at) for user, at in CLICKS]),
        ({"on_error": "skip"}, b"1\n{2\n3\n{4", [1, 3]),
        ({"format": "text"}, b"one\n\r\n\xc3\xa9\nfour", ["one", "", "é", "four"]),
        ({"format": "csv"}, CSV, [{"name": name, "age": age} for name, age in PEOPLE]),
        (
            {"format": "csv", "type": Person},
            CSV,
            [Person(name, int(age) if age else None) for name, age in PEOPLE],
        ),
        (
            {"format": CsvFormat(delimiter=";", fields=["x"])},
            b"\xef\xbb\xbf1\n2\n",
            [{"x": "1"}, {"x": "2"}],
        ),
    ],
    ids=["jsonl", "typed jsonl", "skipping", "text", "csv", "typed csv", "csv without header"],
)
async def test_a_file_of_each_format(
    arguments: dict[str, Any], content: bytes, expect: list[Any], packed: bool
) -> None:
    world = world_with(data=content, data_gz=gzip.compress(content))
    path = "in/data.gz" if packed else "in/data"

    await check_source(lambda: FileSource(path, **arguments), expect, world=world)


@pytest.mark.parametrize(("path", "below"), [("in", ""), ("in/*", ""), ("./i?/**", "in/")])
async def test_each_file_of_a_folder_is_a_split(path: str, below: str) -> None:
    world = world_with(b_txt=b"3\n4", a_gz=gzip.compress(b"1\n2\n"), c_txt=b"", _d=b"5\n")
    expect = {"a.gz": [1, 2], "b.txt": [3, 4], "c.txt": []}

    await check_source(
        lambda: FileSource(path),
        {f"{below}{name}": values for name, values in expect.items()},
        world=world,
    )


async def test_a_watched_folder_has_what_is_there_now() -> None:
    world = world_with(a_txt=b"one\ntwo\n", b_txt=b"three\n")

    await check_source(
        lambda: FileSource("in", "text", watch=True), ["one", "two", "three"], world=world
    )


@pytest.mark.parametrize("format", ["text", "csv"])
async def test_a_followed_file_has_its_whole_lines(format: Any) -> None:
    world = world_with(log=b"x\n1\n2\n3")
    expect = ["x", "1", "2"] if format == "text" else [{"x": "1"}, {"x": "2"}]

    await check_source(lambda: FileSource("in/log", format, follow=True), expect, world=world)
