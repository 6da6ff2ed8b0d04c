"""Files as a source, on a real disk."""

from __future__ import annotations

import gzip
import logging
import os
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from flowrt.connectors.files import blocks
from flowrt.connectors.files.csv_format import CsvFormat
from flowrt.connectors.files.source import FileSource
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.source import Source
from flowrt.testing.world import MemoryFiles, manual_world
from tests.connectors.kit import chunks_of, offset, open_reader, read_all, source_context

pytestmark = pytest.mark.anyio


class Click(msgspec.Struct, frozen=True):
    user: str
    at: int


@dataclass(frozen=True)
class Flight:
    carrier: str
    day: date
    delay: float | None
    diverted: bool = False


async def values_of(source: Source[Any]) -> dict[str, list[Any]]:
    """Read each split to its end: file name to values."""
    ctx = source_context()
    found: dict[str, list[Any]] = {}
    for split in await source.splits(ctx):
        reader = await source.reader(split, None, ctx)
        found[Path(split.id).name] = [v async for c in chunks_of(reader) for v in c.values]
    return found


# ------------------------------------------------------------------------------------ JSON lines


async def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    path.write_text('{"user": "ann", "at": 1}\n\n[2]\r\n"three"\n  \n4')

    assert await read_all(FileSource(path)) == [{"user": "ann", "at": 1}, [2], "three", 4]


async def test_json_lines_of_a_declared_type(tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    path.write_text('{"user": "ann", "at": 1, "page": "/"}\n{"at": 2, "user": "bob"}\n')

    clicks = await read_all(FileSource(path, type=Click))

    assert clicks == [Click("ann", 1), Click("bob", 2)]


@pytest.mark.parametrize(
    "broken", [b'{"user": "bob"', b"1 2", b'"\xff"', b"[" * 100_000, b'{"user": "b", "at": "x"}']
)
async def test_a_broken_line_is_named_with_file_and_offset(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "clicks.jsonl"
    good = b'{"user": "ann", "at": 1}\n'
    path.write_bytes(good + broken + b"\n" + good)
    reader = await open_reader(FileSource(path, type=Click), source_context())

    chunk = await reader.read(10)  # what comes before it is not lost
    with pytest.raises(InputError) as caught:
        await reader.read(10)

    assert chunk is not None
    assert (chunk.values, offset(chunk)) == ([Click("ann", 1)], len(good))
    message = str(caught.value)
    assert message.startswith(f"{path}: the line at byte {len(good)} cannot be read: ")
    assert f"starts with {broken[:80].decode(errors='backslashreplace')!r}" in message
    assert 'on_error="skip"' in message


async def test_broken_lines_can_be_skipped_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\nx\n2\n{\n3\n")
    source = FileSource(path, on_error="skip")

    with caplog.at_level(logging.WARNING, "flowrt.connectors.files"):
        assert await read_all(source) == [1, 2, 3]

    assert source.skipped == 2
    assert source.counters() == {"skipped_lines": 2}
    assert [f"{path}: the line at byte {at} " in caplog.text for at in (2, 6)] == [True, True]
    assert "on_error" not in caplog.text  # it is on already


async def test_no_header_row_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(b"a,\xff\n1,2\n")

    for how in ("fail", "skip"):
        with pytest.raises(InputError, match=r"at byte 0 cannot be read: .*first row") as caught:
            await read_all(FileSource(path, "csv", on_error="skip" if how == "skip" else "fail"))
        assert "on_error" not in str(caught.value)


async def test_values_that_do_not_stand_one_to_a_line_are_broken(tmp_path: Path) -> None:
    path = tmp_path / "pretty.json"
    path.write_text('{\n  "user": "ann"\n}\n')

    with pytest.raises(InputError, match=r"line at byte 0 cannot be read"):
        await read_all(FileSource(path))


async def test_a_line_without_end_is_an_error_not_a_full_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    path = tmp_path / "long.jsonl"
    path.write_text("1\n" + "2" * 1_000 + "\n")
    reader = await open_reader(FileSource(path, max_line_bytes=100), source_context())

    chunk = await reader.read(10)
    with pytest.raises(InputError, match=r"line at byte 2 is longer than max_line_bytes=100"):
        await reader.read(10)

    assert chunk is not None
    assert chunk.values == [1]


async def test_a_whole_line_that_is_too_long_is_an_error_too(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("1\n" + "2" * 1_000 + "\n")

    with pytest.raises(InputError, match=r"line at byte 2 is longer.*starts with '2222"):
        await read_all(FileSource(path, "text", max_line_bytes=100))


# ------------------------------------------------------------------------------------------ text


async def test_text_lines(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("één\r\n\ntwo\nthree".encode())

    assert await read_all(FileSource(path, "text")) == ["één", "", "two", "three"]


async def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"fine\n\xe9t\xe9\n")

    with pytest.raises(InputError, match=r"line at byte 5 .*utf-8.*'\\\\xe9t\\\\xe9'"):
        await read_all(FileSource(path, "text"))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_a_byte_order_mark_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    reader = await open_reader(FileSource(path, "text"), source_context())

    chunks = [(chunk.values, offset(chunk)) async for chunk in chunks_of(reader, 1)]

    assert chunks == [(["one"], 7), (["two"], 11)]
    assert await read_all(FileSource(path, "text"), position=7) == ["two"]


@pytest.mark.parametrize("format", ["jsonl", "csv", "text"])
async def test_an_empty_file_has_no_records(
    tmp_path: Path, format: Literal["jsonl", "csv", "text"]
) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")

    assert await read_all(FileSource(path, format)) == []


# ------------------------------------------------------------------------------------------- CSV


async def test_csv_rows_are_dicts_by_the_header(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    path.write_text('carrier,remark\r\nUA,"late, very"\r\n"B6","said ""no""\r\nand went"\r\n\r\n')

    assert await read_all(FileSource(path, "csv")) == [
        {"carrier": "UA", "remark": "late, very"},
        {"carrier": "B6", "remark": 'said "no"\r\nand went'},
    ]


async def test_csv_rows_of_a_declared_type(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    path.write_text("delay,gate,carrier,day\n-2.5,B1,UA,2013-01-01\nNA,,B6,2013-01-02\n")
    format = CsvFormat(nulls=("", "NA"))

    assert await read_all(FileSource(path, format, type=Flight)) == [
        Flight("UA", date(2013, 1, 1), -2.5),
        Flight("B6", date(2013, 1, 2), None),
    ]


async def test_csv_of_another_dialect(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    path.write_text("UA;'a;b'\nB6;c\n")
    format = CsvFormat(delimiter=";", quote="'", fields=["carrier", "note"])

    assert await read_all(FileSource(path, format)) == [
        {"carrier": "UA", "note": "a;b"},
        {"carrier": "B6", "note": "c"},
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("UA,1", "it has 2 fields, the header has 3"),
        ("UA,1,2,3", "it has 4 fields, the header has 3"),
        ('UA,"1"x,2', "',' expected after '\"'"),
        ("UA,2013-01-01,soon", "Expected `float | null`, got `str` - at `$.delay`"),
        ("UA,2013-13-01,1", "Invalid RFC3339 encoded date - at `$.day`"),
        ('UA,"1', "its quoted field never ends"),
    ],
)
async def test_a_broken_row_is_named_with_file_and_offset(
    tmp_path: Path, row: str, reason: str
) -> None:
    path = tmp_path / "flights.csv"
    head = 'carrier,day,delay\nUA,2013-01-01,"1"\n'
    path.write_text(f"{head}{row}\nB6,2013-01-02,2\n")

    with pytest.raises(InputError) as caught:
        await read_all(FileSource(path, "csv", type=Flight))
    assert f"{path}: the line at byte {len(head)} cannot be read: {reason}" in str(caught.value)

    rest = await read_all(FileSource(path, "csv", type=Flight, on_error="skip"))
    assert [flight.carrier for flight in rest] == ["UA", "B6"]


async def test_a_row_that_is_not_utf8_is_skipped_whole(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    path.write_bytes(b'a,b\n1,"x\n\xff\n2,y\n')

    assert await read_all(FileSource(path, "csv", on_error="skip")) == [{"a": "2", "b": "y"}]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("carrier,delay", "the CSV header lacks 'day', which the declared type Flight needs"),
        ("carrier,day,day,delay", "names 'day' twice"),
    ],
)
async def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, header: str, message: str
) -> None:
    path = tmp_path / "flights.csv"
    path.write_text(f"{header}\n")

    with pytest.raises(ConfigError, match=message) as caught:
        await read_all(FileSource(path, "csv", type=Flight))
    assert str(path) in str(caught.value)


async def test_a_header_that_never_ends_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    path.write_text('a,"b\n' + "1,2\n" * 100)

    with pytest.raises(InputError, match="longer than max_line_bytes=50"):
        await read_all(FileSource(path, "csv", max_line_bytes=50))
    with pytest.raises(InputError, match="byte 0 cannot be read: its quoted field never ends"):
        await read_all(FileSource(path, "csv"))


async def test_a_quoted_field_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    path = tmp_path / "flights.csv"
    path.write_text("a,b\n" + '1,"2\n' + "1,2\n" * 100)

    with pytest.raises(InputError, match="line at byte 4 is longer than max_line_bytes=50"):
        await read_all(FileSource(path, "csv", max_line_bytes=50), limit=1)


# ------------------------------------------------------------------------------------------ gzip


@pytest.mark.parametrize("size", [7, 256 * 1024])
async def test_gzip_of_several_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    path = tmp_path / "numbers.jsonl.gz"
    path.write_bytes(
        gzip.compress(b"1\n2") + gzip.compress(b"") + b"\0\0" + gzip.compress(b"3\n4\n")
    )
    reader = await open_reader(FileSource(path), source_context())

    chunks = [(chunk.values, offset(chunk)) async for chunk in chunks_of(reader, 1)]

    assert chunks == [([1], 2), ([23], 5), ([4], 7)]
    assert [await read_all(FileSource(path), position=at) for at in (2, 5, 7)] == [[23, 4], [4], []]


async def test_gzip_that_unpacks_to_much_more_is_read_block_by_block(tmp_path: Path) -> None:
    path = tmp_path / "zeros.txt.gz"
    line = b"0" * 99 + b"\n"
    path.write_bytes(gzip.compress(line * 20_000))

    assert len(await read_all(FileSource(path, "text"))) == 20_000
    assert len(await read_all(FileSource(path, "text"), position=19_990 * 100)) == 10


@pytest.mark.parametrize(("keep", "message"), [(-4, "was cut"), (-9, "was cut"), (5, "was cut")])
async def test_gzip_that_was_cut_is_an_error(tmp_path: Path, keep: int, message: str) -> None:
    path = tmp_path / "numbers.jsonl.gz"
    path.write_bytes(gzip.compress(b"1\n2\n3\n")[:keep])

    with pytest.raises(InputError, match=message):
        await read_all(FileSource(path))


async def test_gzip_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl.gz"
    path.write_bytes(b"not gzip at all")

    with pytest.raises(InputError, match=rf"{path} is damaged: .*incorrect header check"):
        await read_all(FileSource(path))


async def test_a_shorter_gzip_than_before_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl.gz"
    path.write_bytes(gzip.compress(b"1\n2\n"))

    with pytest.raises(InputError, match=r"replaced or cut: its end lies 6 bytes before"):
        await read_all(FileSource(path), position=10)


# ----------------------------------------------------------------------------------- which files


async def test_a_folder_is_read_by_name_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", ".hidden", "_SUCCESS"):
        (tmp_path / name).write_text("1\n")
    (tmp_path / "folder").mkdir()

    assert list(await values_of(FileSource(tmp_path))) == ["a.jsonl", "b.jsonl"]


async def test_patterns(tmp_path: Path) -> None:
    for name in ("2013/01/a.csv", "2013/02/b.csv", "2013/02/b.txt", "2014/c.csv", "d.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n1\n")

    async def found(pattern: str) -> list[str]:
        splits = await FileSource(tmp_path / pattern, "csv").splits(source_context())
        return [Path(split.data).relative_to(tmp_path).as_posix() for split in splits]

    assert await found("*.csv") == ["d.csv"]
    assert await found("2013/*/*.csv") == ["2013/01/a.csv", "2013/02/b.csv"]
    assert await found("2013/0[2-9]/b.*") == ["2013/02/b.csv", "2013/02/b.txt"]
    assert await found("**/*.csv") == ["2013/01/a.csv", "2013/02/b.csv", "2014/c.csv", "d.csv"]
    assert await found("2014/**") == ["2014/c.csv"]
    assert await found("*/02/b.csv") == ["2013/02/b.csv"]
    assert await found("*/02/*.csv") == ["2013/02/b.csv"]
    assert await found("2013/**/02/b.*") == ["2013/02/b.csv", "2013/02/b.txt"]
    for nothing in ("*/02", "*/d.csv/x", "*/*/b.csv/*", "*/none.csv"):
        with pytest.raises(ConfigError, match="has no file"):
            await found(nothing)


async def test_a_folder_is_looked_up_in_one_go_however_many_files_it_has() -> None:
    world = manual_world()
    asked: list[str] = []

    class Asked(MemoryFiles):
        def __getattribute__(self, name: str) -> Any:
            if name in ("entries", "is_folder", "names", "size"):
                asked.append(name)
            return super().__getattribute__(name)

    files = Asked()
    world = replace(world, files=files)
    for folder in ("in/1", "in/2"):
        for name in range(50):
            files.replace(f"{folder}/{name}.txt", b"x\n")

    for path, count, calls in (("in/1", 50, 1), ("in/1/*.txt", 50, 3), ("in/*/*", 100, 5)):
        asked.clear()
        assert len(await FileSource(path, "text").splits(source_context(world))) == count
        assert len(asked) == calls


async def test_an_unchanged_file_is_the_same_split_each_time() -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    for name in "ab":
        files.replace(f"in/{name}", b"x\n")
    source = FileSource("in", "text", watch=True)
    before = await source.splits(source_context(world))
    files.replace("in/b", b"x\ny\n")
    after = await source.splits(source_context(world))

    assert after[0] is before[0]
    assert (after[1].version, before[1].version) == (4, 2)


async def test_a_name_with_wildcards_that_exists_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("x\n")

    assert await read_all(FileSource(tmp_path / "a[1].txt", "text")) == ["x"]


async def test_the_id_of_a_split_does_not_depend_on_how_the_path_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/a.txt").write_text("x\n")

    for path in ("data", "data/", "data/*", "./data/a.txt", "./data//[a]*", "../data/../data"):
        monkeypatch.chdir(tmp_path if path[:2] != ".." else tmp_path / "data")
        for given in (path, Path.cwd() / path):
            (split,) = await FileSource(given, "text").splits(source_context())
            assert (split.id, split.version) == ("a.txt", 2)
            assert Path(split.data).samefile(tmp_path / "data" / "a.txt")


@pytest.mark.parametrize("path", ["nothing.jsonl", "nothing/*.jsonl", "empty", "empty/*"])
async def test_a_missing_input_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigError, match=rf"the input '{tmp_path}/.*an absolute one is safer"):
        await FileSource(tmp_path / path).splits(source_context())


async def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    os.close(os.open(bytes(tmp_path) + b"/\xff.txt", os.O_CREAT))

    with pytest.raises(
        ConfigError, match=r"the input b'.*/\\xff.txt' has a name that is not UTF-8"
    ):
        await FileSource(tmp_path).splits(source_context())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only Unix has named pipes")
async def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="cannot be looked up: a pipe or socket is no file"):
            await FileSource(path).splits(source_context())


async def test_a_path_through_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be looked up: Not a directory"):
        await FileSource(tmp_path / "file" / "a.jsonl").splits(source_context())


async def test_a_file_that_was_begun_and_is_gone_or_shorter_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\n2\n3\n")
    source, ctx = FileSource(path), source_context()
    (split,) = await source.splits(ctx)
    path.write_text("1\n")

    with pytest.raises(InputError, match=r"replaced or cut: its end, at byte 2, lies 4 bytes"):
        await (await source.reader(split, 6, ctx)).read(1)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read: the file is gone"):
        await (await source.reader(split, 2, ctx)).read(1)

    assert await (await source.reader(split, None, ctx)).read(1) is None
    assert caplog.messages == [f"{path} was deleted before it was read, and is left out"]


async def test_two_stars_do_not_follow_links_to_folders(tmp_path: Path) -> None:
    """One that leads up would give each file again and again, under ever longer names."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.jsonl").write_text("1\n")
    (tmp_path / "in" / "sub" / "b.jsonl").write_text("2\n")
    (tmp_path / "in" / "sub" / "back").symlink_to("..")
    (tmp_path / "in" / "sub" / "also").symlink_to("../..")

    source = FileSource(tmp_path / "in" / "**" / "*.jsonl")

    assert [split.id for split in await source.splits(source_context())] == [
        "a.jsonl",
        "sub/b.jsonl",
    ]


async def test_a_watched_folder_that_is_gone_for_a_while_may_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    source, ctx = FileSource(folder, watch=True), source_context()
    with pytest.raises(ConfigError, match="does not exist"):
        await source.splits(ctx)
    folder.mkdir()
    assert await source.splits(ctx) == []
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(InputError, match=r"does not exist: .* It was there when the flow looked"):
        await source.splits(ctx)


async def test_lag_is_the_bytes_that_are_left(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\n2\n3\n")
    reader = await open_reader(FileSource(path), source_context())

    assert await reader.lag(None) == (6, "bytes")
    chunk = await reader.read(2)
    assert chunk is not None
    assert await reader.lag(chunk.position) == (2, "bytes")


async def test_lag_of_a_compressed_file_is_in_proportion(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl.gz"
    path.write_bytes(gzip.compress(b"1\n2\n3\n"))
    reader = await open_reader(FileSource(path), source_context())

    size = path.stat().st_size
    assert await reader.lag(None) == (size, "bytes")
    await reader.read(1)
    assert await reader.lag(2) == (size - size * 2 // 6, "bytes")
    assert await reader.lag(6) == (0, "bytes")


# --------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "xml"}, "the format is"),
        ({"format": "text", "type": Click}, "it takes no type"),
        ({"format": "csv", "type": int}, "a CSV row is read as"),
        ({"type": object()}, "cannot be read from files"),
        ({"on_error": "ignore"}, "on_error is"),
        ({"path": "a.gz", "follow": True}, "cannot be followed"),
        ({"watch": True, "discovery_interval": "0s"}, "at least 1ms"),
        ({"path": ""}, "the path of a FileSource is empty text"),
    ],
)
async def test_wrong_options_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FileSource(**{"path": "a", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delimiter": ";;"}, "the delimiter of a CSV format is one ASCII character"),
        ({"quote": ","}, "both delimiter and quote"),
        ({"fields": []}, "names no column"),
        ({"fields": ["a", "a"]}, "names 'a' twice"),
    ],
)
async def test_a_wrong_csv_format_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CsvFormat(**arguments)


async def test_what_a_source_says_of_itself() -> None:
    source = FileSource("in/*.csv", "csv", watch=True, follow=True, discovery_interval="5s")

    assert source.describe() == "files in/*.csv (csv, watched, followed)"
    assert (source.bounded, source.replayable) == (False, True)
    assert (source.discovery_interval_ms, source.max_open_splits) == (5_000, 0)
    assert FileSource("a").bounded
