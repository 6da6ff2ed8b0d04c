"""A flow whose input ended is started again: with nothing new, with more files, with grown ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import flowrt
from flowrt import FileSink, FileSource, Flow, MemorySink, SinkError, WatermarkStrategy
from flowrt.testing.script import PAUSE, record
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place
from tests.journeys.wide import START_MS, WINDOW_MS, Event, Windows

pytestmark = pytest.mark.anyio


def counting(folder: Path, **how: Any) -> Flow:
    flow = Flow("counting")
    words = flow.source(FileSource(folder / "in", "text", **how), name="words")
    words.key_by(str).count(name="count").sink(FileSink(folder / "out"), name="out")
    return flow


def write(folder: Path, name: str, *words: str) -> None:
    (folder / "in").mkdir(exist_ok=True)
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


async def test_without_its_checkpoints_the_output_is_not_written_a_second_time(
    tmp_path: Path,
) -> None:
    write(tmp_path, "1.txt", "a")
    await run(tmp_path)

    with pytest.raises(SinkError, match="starts from nothing: it would write the same results"):
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
