"""A flow whose input ended is started again: with nothing new, with more files, with grown ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import flowrt
from flowrt import (
    ConfigError,
    FileSink,
    FileSource,
    Flow,
    InputError,
    IterableSource,
    MemorySink,
    PositionedSource,
    Source,
    Split,
    WatermarkStrategy,
)
from flowrt.testing.script import PAUSE, record
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, until
from tests.journeys.wide import START_MS, WINDOW_MS, Event, Windows

pytestmark = pytest.mark.anyio


def counting(folder: Path, **how: Any) -> Flow:
    flow = Flow("counting")
    words = flow.source(FileSource(folder / "in", "text", **how), name="words")
    words.key_by(str).count(name="count").sink(FileSink(folder / "out"), name="out")
    return flow


def write(folder: Path, name: str, *words: str) -> None:
    (folder / "in").mkdir(parents=True, exist_ok=True)
    with (folder / "in" / name).open("a") as file:
        file.writelines(f"{word}\n" for word in words)


def rows(folder: Path) -> list[list[Any]]:
    parts = sorted((folder / "out").glob("part-*"))
    return [msgspec.json.decode(line) for part in parts for line in part.read_bytes().splitlines()]


async def run(folder: Path, **options: Any) -> flowrt.Job:
    async with flowrt.start(counting(folder), checkpoints=folder / "kept", **options) as job:
        await job.wait()
    return job


async def test_with_nothing_new_nothing_is_written_again(tmp_path: Path) -> None:
    write(tmp_path, "1.txt", "a", "b")
    await run(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    for life in (2, 3):
        job = await run(tmp_path)
        assert job.status().state == "finished"
        assert (job.status().restored_epoch, job.status().epoch) == (life - 1, life)
        assert job.metrics().records_in == 2
        assert job.metrics().records_out == 0

    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert after == before


async def test_new_files_are_read_and_old_ones_are_not_read_again(tmp_path: Path) -> None:
    write(tmp_path, "1.txt", "a", "b")
    await run(tmp_path)
    write(tmp_path, "2.txt", "a")
    await run(tmp_path)
    write(tmp_path, "0.txt", "b")

    job = await run(tmp_path)

    assert rows(tmp_path) == [["a", 1], ["b", 1], ["a", 2], ["b", 2]]
    assert job.metrics().records_in == 4


@pytest.mark.parametrize("how", [{}, {"watch": True}])
async def test_a_file_that_has_grown_is_read_on(tmp_path: Path, how: dict[str, Any]) -> None:
    write(tmp_path, "1.txt", "a", "b")
    write(tmp_path, "2.txt", "b")
    await run(tmp_path)
    write(tmp_path, "1.txt", "a", "c")

    async with flowrt.start(counting(tmp_path, **how), checkpoints=tmp_path / "kept") as job:
        with anyio.fail_after(30):
            while job.metrics().records_in < 5:  # noqa: ASYNC110 (a watched folder never ends)
                await anyio.sleep(0.001)

    assert rows(tmp_path) == [["a", 1], ["b", 1], ["b", 2], ["a", 2], ["c", 1]]
    assert (await run(tmp_path)).metrics().records_out == 0


@pytest.mark.parametrize("now", ["a\n", "a\nB\na\n"])
async def test_a_file_that_is_another_one_now_is_refused(tmp_path: Path, now: str) -> None:
    write(tmp_path, "1.txt", "a", "b")
    await run(tmp_path)
    (tmp_path / "in" / "1.txt").write_text(now)

    with pytest.raises(InputError, match=r"1.txt was replaced"):
        await run(tmp_path)


async def test_files_that_are_as_they_were_are_not_even_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        write(tmp_path, f"{number}.txt", "a")
    await run(tmp_path)
    opened: list[str] = []
    reader = FileSource.reader

    async def noted(source: FileSource[str], split: Split, *others: Any) -> Any:
        opened.append(split.id)
        return await reader(source, split, *others)

    monkeypatch.setattr(FileSource, "reader", noted)
    await run(tmp_path)
    assert opened == []
    write(tmp_path, "7.txt", "b")
    await run(tmp_path)
    assert opened == ["7.txt"]


async def test_a_folder_that_is_spelled_otherwise_or_was_moved_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "1.txt", "a", "b")
    for path in (Path("in"), tmp_path / "in", Path("in/*.txt"), Path("moved"), Path("moved/1.txt")):
        if path.name == "moved":
            (tmp_path / "in").rename("moved")
        flow = Flow("counting")
        words = flow.source(FileSource(path, "text"), name="words")
        words.key_by(str).count(name="count").sink(FileSink("out"), name="out")
        async with flowrt.start(flow, checkpoints="kept") as job:
            await job.wait()
        assert rows(tmp_path) == [["a", 1], ["b", 1]]


async def test_other_files_of_the_same_names_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "1.txt", "a", "b")
    await run(tmp_path)
    write(tmp_path / "tomorrow", "1.txt", "c", "d")
    flow = Flow("counting")
    words = flow.source(FileSource(tmp_path / "tomorrow" / "in", "text"), name="words")
    words.key_by(str).count(name="count").sink(FileSink(tmp_path / "out"), name="out")

    with pytest.raises(InputError, match=r"tomorrow/in/1.txt was replaced"):
        async with flowrt.start(flow, checkpoints=tmp_path / "kept") as job:
            await job.wait()


@pytest.mark.parametrize("path", ["in", "in/*.txt"])
async def test_watched_files_that_are_away_for_a_while_are_not_read_twice(path: str) -> None:
    place, sink = Place(), MemorySink[str]()
    files = {"in/1.txt": b"a\n", "in/2.txt": b"b\n"}
    for name, content in files.items():
        place.files.replace(name, content)
    flow = Flow("words")
    flow.source(FileSource(path, "text", watch=True), name="in").sink(sink, name="out")

    async with place.start(flow) as job:
        await until(lambda: job.metrics().records_in == 2)
        await place.epoch(job)
        place.files.forget("in/")
        await place.epoch(job)
    async with place.start(flow) as job:
        for name, content in files.items():
            place.files.replace(name, content)
        place.files.replace("in/3.txt", b"c\n")
        async with place.passing_time():
            await until(lambda: job.metrics().records_in > 2)

    assert sink.rows == ["a", "b", "c"]


@pytest.mark.parametrize(
    "make",
    [
        IterableSource,
        lambda values: IterableSource(dict.fromkeys(values)),
        lambda values: IterableSource(lambda: iter(values)),
        lambda values: PositionedSource(lambda at: ((v, v) for v in values if v > (at or 0))),
    ],
    ids=["list", "dict", "callable", "positioned"],
)
async def test_values_that_were_added_are_read(make: Callable[[list[int]], Source[int]]) -> None:
    place, sink = Place(), MemorySink[int]()
    for values in ([1, 2], [1, 2], [1, 2, 3], [1, 2, 3]):
        flow = Flow("values")
        flow.source(make(values), name="in").sink(sink, name="out")
        await place.run(flow)
    assert sink.rows == [1, 2, 3]


async def test_a_shorter_list_is_refused() -> None:
    place = Place()
    for values in ([1, 2], [1]):
        flow = Flow("values")
        flow.source(IterableSource(values), name="in").sink(MemorySink(), name="out")
        if values == [1, 2]:
            await place.run(flow)
        else:
            with pytest.raises(InputError, match="the iterable has 1 record, but the checkpoint"):
                await place.run(flow)


async def test_a_file_that_grows_is_followed_line_by_line(tmp_path: Path) -> None:
    write(tmp_path, "1.txt", "a")
    flow = counting(tmp_path, follow=True, discovery_interval="1ms")
    async with flowrt.start(flow, checkpoints=tmp_path / "kept") as job:
        write(tmp_path, "1.txt", "a")
        with anyio.fail_after(30):
            while job.metrics().records_in < 2:  # noqa: ASYNC110 (what another program writes)
                await anyio.sleep(0.001)
    assert job.status().state == "drained"
    write(tmp_path, "1.txt", "b")

    flow = counting(tmp_path, follow=True, discovery_interval="1ms")
    async with flowrt.start(flow, checkpoints=tmp_path / "kept") as job:
        with anyio.fail_after(30):
            while job.metrics().records_in < 3:  # noqa: ASYNC110
                await anyio.sleep(0.001)

    assert rows(tmp_path) == [["a", 1], ["a", 2], ["b", 1]]


async def test_a_file_that_was_read_to_its_end_can_be_followed_from_there(tmp_path: Path) -> None:
    write(tmp_path, "1.txt", "a")
    await run(tmp_path)

    flow = counting(tmp_path, follow=True, discovery_interval="1ms")
    async with flowrt.start(flow, checkpoints=tmp_path / "kept") as job:
        write(tmp_path, "1.txt", "b")
        with anyio.fail_after(30):
            while job.metrics().records_in < 2:  # noqa: ASYNC110
                await anyio.sleep(0.001)

    assert rows(tmp_path) == [["a", 1], ["b", 1]]


async def test_without_its_checkpoints_the_output_is_not_written_a_second_time(
    tmp_path: Path,
) -> None:
    write(tmp_path, "1.txt", "a")
    await run(tmp_path)

    with pytest.raises(ConfigError, match="starts from nothing: it would write the same results"):
        async with flowrt.start(counting(tmp_path), checkpoints=tmp_path / "other"):
            pytest.fail("the body must not run")

    assert rows(tmp_path) == [["a", 1]]


async def test_event_time_begins_anew_with_what_is_new() -> None:
    """The end of the input fired every window; what comes later has windows of its own."""
    place, sink = Place(), MemorySink[Any]()
    first = _timed("first", [0, 2])
    await place.run(_windows(ScriptedSource(first), sink))
    assert _fired(sink) == [1, 3]

    source = ScriptedSource[Event](first | _timed("second", [3, 5, 7]))
    async with place.start(_windows(source, sink)) as job:
        await source.paused()
        await place.epoch(job)
        # As time goes on, and not only when the input ends once more.
        assert _fired(sink) == [1, 3, 4, 6]
        source.release()
        await job.wait()

    assert _fired(sink) == [1, 3, 4, 6, 8]


def _timed(split: str, windows: list[int]) -> dict[str, list[Any]]:
    times = [START_MS + window * WINDOW_MS for window in windows]
    return {split: [*(record(Event(split, n, 1, at), at) for n, at in enumerate(times)), PAUSE]}


def _windows(source: ScriptedSource[Event], sink: MemorySink[Any]) -> Flow:
    source.release("first")
    flow = Flow("windows")
    events = flow.source(source, watermarks=WatermarkStrategy.monotonous())
    fired = events.key_by(lambda event: event.key).process(Windows)
    fired.filter(lambda row: row[0] == "window").sink(sink)
    return flow


def _fired(sink: MemorySink[Any]) -> list[int]:
    return [(end + 1 - START_MS) // WINDOW_MS for _, _, end, *_ in sink.rows]
