"""A folder is watched: files come, are away for a while, and come back."""

from __future__ import annotations

import pytest

from flowrt import ConfigError, FileSink, FileSource, Flow, MemorySink
from flowrt.testing.memory_files import MemoryFiles
from tests.journeys.kit import EPOCH_MS, Place, turns, until

pytestmark = pytest.mark.anyio

DAY_MS = 24 * 60 * 60 * 1_000


def lines(sink: MemorySink[str], *, watch: bool = False) -> Flow:
    flow = Flow("lines")
    flow.source(FileSource("/in", "text", watch=watch), name="files").sink(sink, name="out")
    return flow


def put(files: MemoryFiles, **content: str) -> None:
    for name, text in content.items():
        files.replace(f"/in/{name}", text.encode())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one\n", ["one"]),
        ("one\ntwo\n", ["one", "two"]),
        ("uno\ndos\n", ["one", "uno", "dos"]),
        ("1\n", ["one", "1"]),
    ],
)
async def test_a_file_that_was_away_goes_on_unless_it_is_another_one(
    content: str, expected: list[str]
) -> None:
    place, sink = Place(), MemorySink[str]()
    put(place.files, a="one\n")
    async with place.start(lines(sink, watch=True)) as job:
        await until(lambda: job.metrics().records_in == 1)
        await turns()
        for gone in (True, False):
            if gone:
                place.files.forget("/in/a")
            else:
                put(place.files, a=content)
            await place.epoch(job)
            await place.epoch(job)
        await turns()

    assert sink.rows == expected


@pytest.mark.parametrize(
    ("away_ms", "expected"),
    [(EPOCH_MS, ["one", "other", "two"]), (DAY_MS, ["one", "other", "one", "two"])],
)
async def test_a_file_that_was_away_for_some_runs_goes_on_within_a_day(
    away_ms: int, expected: list[str]
) -> None:
    place, sink = Place(), MemorySink[str]()
    put(place.files, a="one\n")
    await place.run(lines(sink))
    place.files.forget("/in/a")
    put(place.files, b="other\n")
    await place.run(lines(sink))
    place.clock.advance(away_ms)
    await place.run(lines(sink))
    put(place.files, a="one\ntwo\n")
    await place.run(lines(sink))

    assert sink.rows == expected


async def test_a_flow_that_cannot_start_leaves_nothing_in_its_folder() -> None:
    place = Place()

    def flow(source: str, name: str) -> Flow:
        copying = Flow("copying")
        copying.source(FileSource(source, "text"), name="files").sink(FileSink("/out"), name=name)
        return copying

    with pytest.raises(ConfigError, match="the input '/nowhere' does not exist"):
        await place.run(flow("/nowhere", "results"))
    assert not [path for path in place.files.paths() if path.startswith("/out")]

    put(place.files, a="one\n")
    await place.run(flow("/in", "renamed"), checkpoints="/other")
    (part,) = [path for path in place.files.paths() if path.startswith("/out/part-")]
    assert place.files.contents(part) == b'"one"\n'
