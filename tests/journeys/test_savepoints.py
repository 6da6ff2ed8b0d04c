"""Savepoints: a job's state taken along to another folder, another parallelism, another flow."""

from __future__ import annotations

import logging
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

import flowrt
from flowrt import CheckpointError, ConfigError, Flow, MemorySink, SinkError, WatermarkStrategy
from flowrt.testing.script import PAUSE, record
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import FOLDER, Place, until
from tests.journeys.wide import KEYS, START_MS, TICKS, Event, Running, Windows

pytestmark = pytest.mark.anyio

SPLITS = ("left0", "left1", "left2", "right0", "right1")
STAGES = 4
RECORDS_A_STAGE = 40


def script(*, pauses: bool) -> dict[str, list[Any]]:
    """Five splits in four stages, with a pause behind each stage but the last."""
    chance = random.Random(7)
    splits: dict[str, list[Any]] = {}
    for split in SPLITS:
        elements: list[Any] = []
        at = START_MS
        for stage in range(STAGES):
            for number in range(stage * RECORDS_A_STAGE, (stage + 1) * RECORDS_A_STAGE):
                at += chance.randrange(100)
                elements.append(record(Event(split, number, chance.randrange(KEYS), at), at))
            if pauses and stage < STAGES - 1:
                elements.append(PAUSE)
        splits[split] = elements
    return splits


class Sinks:
    """Where the rows of one journey go, through all its lives."""

    def __init__(self) -> None:
        self.running = MemorySink[Any]()
        self.windows = MemorySink[Any]()
        self.ticks = MemorySink[Any]()


def everything(source: ScriptedSource[Event], sinks: Sinks, parallelism: int) -> Flow:
    """Every kind of state, both kinds of timers, a side output; all at one parallelism."""
    flow = Flow("everything", parallelism=parallelism)
    events = flow.source(source, name="events", watermarks=WatermarkStrategy.monotonous())
    (
        events.key_by(lambda event: (event.file, event.key))
        .process(Running, name="running")
        .sink(sinks.running, name="running-rows")
    )
    windows = events.key_by(lambda event: event.key).process(Windows, name="windows")
    windows.sink(sinks.windows, name="window-rows")
    windows.side_output(TICKS).sink(sinks.ticks, name="tick-rows")
    return flow


async def uninterrupted() -> Sinks:
    sinks = Sinks()
    await Place().run(everything(ScriptedSource(script(pauses=False)), sinks, 1))
    return sinks


async def all_at_pause(source: ScriptedSource[Event]) -> None:
    for split in SPLITS:
        await source.paused(split)


# ------------------------------------------------------------------------------- the whole way


@pytest.mark.parametrize("way", [(1, 4, 3, 1), (4, 1, 2, 5), (3, 3, 3, 3)])
async def test_state_and_timers_come_along_to_any_parallelism(way: Sequence[int]) -> None:
    place, sinks = Place(), Sinks()
    source = ScriptedSource[Event](script(pauses=True))
    options: dict[str, Any] = {}
    for stage, parallelism in enumerate(way[:-1]):
        options["checkpoints"] = f"/checkpoints-{stage}"
        async with place.start(everything(source, sinks, parallelism), **options) as job:
            await all_at_pause(source)
            await place.epoch(job)
            await job.savepoint(f"/savepoint-{stage}")
            await job.cancel()
        source.release()
        options["restore"] = f"/savepoint-{stage}"
    options["checkpoints"] = "/last"
    job = await place.run(everything(source, sinks, way[-1]), **options)

    assert job.status().state == "finished"
    expected = await uninterrupted()
    assert Counter(sinks.running.rows) == Counter(expected.running.rows)
    assert sorted(sinks.windows.rows) == sorted(expected.windows.rows)
    assert max(Counter(sinks.ticks.rows).values()) == 1
    counts = defaultdict(list)
    for file, key, count, _ in sinks.running.rows:
        counts[file, key].append(count)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in counts.values())


async def test_what_was_committed_behind_the_savepoint_is_undone_where_the_sink_can() -> None:
    place, sinks = Place(), Sinks()
    source = ScriptedSource[Event](script(pauses=True))
    async with place.start(everything(source, sinks, 2)) as job:
        await all_at_pause(source)
        epoch = await job.savepoint("/savepoint")
        source.release()
        await all_at_pause(source)
        assert await place.epoch(job) > epoch
        rows = len(sinks.running.rows)
        await job.cancel()
    for _ in range(STAGES):
        source.release()

    job = await place.run(everything(source, sinks, 3), checkpoints="/new", restore="/savepoint")

    assert rows == 2 * len(SPLITS) * RECORDS_A_STAGE
    assert job.status().restored_epoch == epoch
    expected = await uninterrupted()
    assert Counter(sinks.running.rows) == Counter(expected.running.rows)


# ---------------------------------------------------------------------------- a simple flow's


def counting(
    source: flowrt.Source[str],
    sink: MemorySink[Any],
    *,
    name: str = "counting",
    step: str = "count",
    out: str = "out",
) -> Flow:
    flow = Flow(name)
    flow.source(source, name="words").key_by(str).count(name=step).sink(sink, name=out)
    return flow


def words() -> ScriptedSource[str]:
    return ScriptedSource(["a", "b", "a", PAUSE, "a"])


async def with_savepoint(place: Place, path: str = "/savepoint") -> None:
    """Leave a savepoint of the counting flow behind, after three words."""
    source = words()
    async with place.start(counting(source, MemorySink()), checkpoints="/old") as job:
        await source.paused()
        await job.savepoint(path)
        await job.cancel()


async def test_a_savepoint_holds_all_it_needs() -> None:
    place, sink = Place(), MemorySink[Any]()
    await with_savepoint(place)
    for path in place.files.paths():
        if path.startswith("/old/"):
            await place.files.delete(path)
    source = words()
    source.release()

    await place.run(counting(source, sink), restore="/savepoint")

    assert sink.rows == [("a", 3)]


async def test_a_restored_job_goes_on_from_its_own_checkpoints_the_next_time() -> None:
    place, sink = Place(), MemorySink[Any]()
    await with_savepoint(place)
    source = words()
    async with place.start(counting(source, sink), restore="/savepoint") as job:
        await source.paused()
    assert job.status().restored_epoch == 1
    source.release()

    job = await place.run(counting(source, sink))

    assert sink.rows == [("a", 3)]
    assert job.status().restored_epoch == 2


async def test_the_same_start_again_goes_on_from_the_checkpoints_since(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, sink = Place(), MemorySink[Any]()
    await with_savepoint(place)
    source = words()
    async with place.start(counting(source, sink), restore="/savepoint") as job:
        await source.paused()
    source.release()

    with caplog.at_level(logging.INFO, "flowrt"):
        job = await place.run(counting(source, sink), restore="/savepoint")

    assert sink.rows == [("a", 3)]
    assert job.status().restored_epoch == 2
    assert "which began with the savepoint in /savepoint" in caplog.text


async def test_another_output_folder_wants_another_sink_for_what_follows() -> None:
    place = Place()

    def flow(source: flowrt.Source[str], folder: str, out: str) -> Flow:
        flow = Flow("copying")
        flow.source(source, name="words").sink(flowrt.FileSink(folder), name=out)
        return flow

    source = words()
    async with place.start(flow(source, "/results", "out"), checkpoints="/old") as job:
        await source.paused()
        await job.savepoint("/savepoint")
        await job.cancel()
    source = words()
    source.release()

    with pytest.raises(SinkError, match=r"savepoint .* give the sink another name"):
        await place.run(flow(source, "/elsewhere", "out"), restore="/savepoint")
    await place.run(
        flow(source, "/empty", "out2"), restore="/savepoint", allow_dropped_state=["out"]
    )

    assert await place.files.read("/empty/part-00000002-0-000000.jsonl") == b'"a"\n'


class CountsInTotal(flowrt.Operator[str, Any]):
    total = flowrt.ValueState(int, default=0)

    def process(self, value: str, ctx: flowrt.Context) -> None:
        self.total.set(self.total.get() + 1)
        ctx.emit((value, self.total.get()))


class CountsInSum(flowrt.Operator[str, Any]):
    sum = flowrt.ValueState(int, default=0)

    def process(self, value: str, ctx: flowrt.Context) -> None:
        self.sum.set(self.sum.get() + 1)
        ctx.emit((value, self.sum.get()))


async def test_a_state_that_was_renamed_does_not_begin_anew_without_a_word() -> None:
    place = Place()

    def flow(operator: type[flowrt.Operator[str, Any]], words: list[str], sink: Any) -> Flow:
        flow = Flow("counting")
        source = ScriptedSource[str](words)
        keyed = flow.source(source, name="words").key_by(str)
        keyed.process(operator, name="count").sink(sink, name="out")
        return flow

    await place.run(flow(CountsInTotal, ["a", "a"], MemorySink()))

    with pytest.raises(ConfigError) as refused:
        await place.run(flow(CountsInSum, ["a", "a", "a"], MemorySink()))
    assert str(refused.value) == (
        "the snapshot has state 'total' of operator 'count', which declares none of that name: "
        "give it its old name back, with name='total', or let it go: "
        "allow_dropped_state=['count.total']"
    )

    await place.run(flow(CountsInTotal, ["a", "a"], MemorySink()))
    again = flow(CountsInSum, ["a", "a"], MemorySink())
    await place.run(again, allow_dropped_state=["count.total"])


async def test_restoring_into_a_folder_that_is_in_use_is_refused() -> None:
    place = Place()
    await with_savepoint(place)
    await place.run(counting(ScriptedSource(["x"]), MemorySink()))

    with pytest.raises(ConfigError, match=r"/checkpoints already holds checkpoints, and did not"):
        await place.run(counting(words(), MemorySink()), restore="/savepoint")

    # The folder is free again, and as it was.
    await place.run(counting(ScriptedSource(["x"]), MemorySink()))


async def test_a_savepoint_of_another_flow_is_refused_naming_both() -> None:
    place = Place()
    await with_savepoint(place)

    with pytest.raises(ConfigError, match=r"flow 'counting', not of 'other'"):
        await place.run(counting(words(), MemorySink(), name="other"), restore="/savepoint")


async def test_a_checkpoint_of_another_flow_is_refused_naming_both() -> None:
    place = Place()
    await place.run(counting(ScriptedSource(["a"]), MemorySink()))

    with pytest.raises(ConfigError, match=r"flow 'counting', not of 'other': give each flow"):
        await place.run(counting(ScriptedSource(["a"]), MemorySink(), name="other"))


async def test_an_empty_folder_holds_no_savepoint() -> None:
    with pytest.raises(ConfigError, match="there is no savepoint in /nothing"):
        await Place().run(counting(words(), MemorySink()), restore="/nothing")


async def test_state_without_an_operator_is_refused_by_name() -> None:
    place = Place()
    await with_savepoint(place)
    renamed = counting(words(), MemorySink(), step="tally", out="rows")

    with pytest.raises(ConfigError, match=r"no longer has: 'count', 'out'\. Give the op"):
        await place.run(renamed, restore="/savepoint")


async def test_state_without_an_operator_may_be_let_go_by_name() -> None:
    place, sink = Place(), MemorySink[Any]()
    await with_savepoint(place)
    source = words()
    source.release()
    renamed = counting(source, sink, step="tally")

    job = await place.run(renamed, restore="/savepoint", allow_dropped_state=["count"])

    assert sink.rows == [("a", 1)]
    assert job.status().notes == ("the state of operator 'count' is dropped",)


async def test_an_operator_that_is_new_begins_with_nothing() -> None:
    place, sink = Place(), MemorySink[Any]()
    await with_savepoint(place)
    source = words()
    source.release()
    flow = Flow("counting")
    counted = flow.source(source, name="words").key_by(str).count(name="count")
    counted.key_by(lambda keyed: keyed[0]).count(name="again").sink(sink, name="out")

    await place.run(flow, restore="/savepoint")

    assert sink.rows == [("a", 1)]


# ------------------------------------------------------------------------- taking one can fail


async def test_a_folder_with_something_in_it_is_not_overwritten_and_the_job_goes_on() -> None:
    place, source = Place(), words()
    await with_savepoint(place, "/taken")
    async with place.start(counting(source, MemorySink())) as job:
        await source.paused()
        with pytest.raises(CheckpointError, match="/taken is not empty: choose another"):
            await job.savepoint("/taken")

        assert job.status().state == "running"
        assert await job.savepoint("/free") > 0


@pytest.mark.parametrize("inside", ["", "/", "/state", "/saved", "/../checkpoints/x/y", "/./."])
async def test_a_folder_within_the_checkpoints_is_refused_before_anything_is_written(
    inside: str,
) -> None:
    place, source = Place(), words()
    async with place.start(counting(source, MemorySink())) as job:
        await source.paused()
        before = place.files.paths()
        with pytest.raises(ConfigError, match="lies in the checkpoint folder /checkpoints"):
            await job.savepoint(FOLDER + inside)

        assert place.files.paths() == before
        assert job.status().state == "running"
        assert await job.savepoint(FOLDER + "-saved") > 0


@pytest.mark.skipif(sys.platform == "win32", reason="links there need a right of their own")
async def test_a_folder_that_a_link_leads_into_the_checkpoints_is_refused(tmp_path: Path) -> None:
    source = words()
    (tmp_path / "link").symlink_to(tmp_path / "checkpoints", target_is_directory=True)
    flow = counting(source, MemorySink())
    async with flowrt.start(flow, checkpoints=tmp_path / "checkpoints") as job:
        await source.paused()
        for path in (tmp_path / "link", tmp_path / "link" / "saved"):
            with pytest.raises(ConfigError, match="a savepoint needs a folder of its own"):
                await job.savepoint(path)
        assert not (tmp_path / "checkpoints" / "saved").exists()


async def test_a_full_disk_fails_the_savepoint_and_not_the_job() -> None:
    place, sink, source = Place(), MemorySink[Any](), words()
    async with place.start(counting(source, sink)) as job:
        await source.paused()
        place.files.fail("write_at", "/full/", OSError(ENOSPC, "No space left on device"))
        with pytest.raises(CheckpointError, match="cannot write a savepoint in /full: the disk is"):
            await job.savepoint("/full")
        source.release()
        await job.wait()

    assert len(sink.rows) == 4


async def test_a_savepoint_needs_a_job_that_keeps_checkpoints_and_runs() -> None:
    place, source = Place(), words()
    async with place.start(counting(source, MemorySink()), checkpoints=None) as job:
        with pytest.raises(ConfigError, match=r"savepoint needs a job with checkpoints=\.\.\."):
            await job.savepoint("/savepoint")
        await job.cancel()

    async with place.start(counting(source, MemorySink())) as job:
        source.release()
        await job.wait()
        with pytest.raises(ConfigError, match="is finished: a savepoint needs a running job"):
            await job.savepoint("/savepoint")


async def test_a_savepoint_asked_for_at_the_end_of_the_input_is_taken_or_refused() -> None:
    place, source = Place(), ScriptedSource[str](["a", PAUSE])
    async with place.start(counting(source, MemorySink())) as job:
        await source.paused()
        source.release()
        await until(lambda: job.metrics().records_in)
        try:
            epoch = await job.savepoint("/savepoint")
        except (CheckpointError, ConfigError):
            assert await place.files.names("/savepoint") == []
        else:
            await place.run(
                counting(ScriptedSource(["a"]), MemorySink()),
                checkpoints="/new",
                restore="/savepoint",
            )
            assert epoch == 1
        await job.wait()

    assert FOLDER in place.files.paths()[0]
