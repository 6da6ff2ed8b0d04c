"""A start that is refused: a new checkpoint folder is as it was, any other keeps what it has."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import flowrt
from flowrt import (
    CheckpointError,
    ConfigError,
    Context,
    FileSink,
    Flow,
    LeaseError,
    MemorySink,
    Operator,
)
from flowrt.checkpoint.lease import Lease
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import FOLDER, Place, until

pytestmark = pytest.mark.anyio


def flow(sink: flowrt.Sink[Any] | None = None, *, step: str = "count") -> Flow:
    flow = Flow("counting")
    flow.source(ScriptedSource(["a"]), name="words").key_by(str).count(name=step).sink(
        sink or MemorySink(), name="out"
    )
    return flow


class RefusingSink(MemorySink[Any]):
    """Is set up wrongly, and says so once it is opened."""

    async def recover(self, *arguments: Any) -> None:
        raise ConfigError("no such table")


class FailingSink(MemorySink[Any]):
    """Cannot be opened just now."""

    async def recover(self, *arguments: Any) -> None:
        raise ConnectionError("nobody answers")


class Waiting(Operator[Any, Any]):
    """Never done with its opening."""

    async def open(self, ctx: Context) -> None:
        await anyio.sleep_forever()

    def process(self, value: Any, ctx: Context) -> None: ...


def kept(place: Place) -> list[str]:
    return [path for path in place.files.paths() if path.startswith(FOLDER)]


async def test_a_sink_that_is_refused_leaves_nothing() -> None:
    place = Place()

    with pytest.raises(ConfigError, match="no such table"):
        await place.run(flow(RefusingSink()))

    assert kept(place) == []
    assert await place.files.names(FOLDER) == []


async def test_nor_does_a_folder_of_results_that_is_not_its_own() -> None:
    place = Place()
    await place.run(flow(FileSink("/out")), checkpoints="/elsewhere")

    with pytest.raises(ConfigError, match="1 part of an earlier life"):
        await place.run(flow(FileSink("/out")))

    assert kept(place) == []


async def test_nor_does_a_savepoint_that_is_not_there() -> None:
    place = Place()

    with pytest.raises(ConfigError, match="no savepoint in /nowhere"):
        await place.run(flow(), restore="/nowhere")

    assert kept(place) == []


async def test_a_savepoint_that_cannot_be_looked_for_is_not_said_to_be_missing() -> None:
    place = Place()
    place.files.fail("is_folder", "savepoint", OSError(5, "Input/output error"))

    with pytest.raises(CheckpointError, match=r"look for a savepoint in /savepoint.*Input/output"):
        await place.run(flow(), restore="/savepoint")

    assert kept(place) == []


async def test_nor_does_a_sink_that_could_not_be_opened_several_times() -> None:
    place = Place()

    with pytest.raises(flowrt.SinkError, match="nobody answers"):
        await place.run(flow(FailingSink()), restart=flowrt.FixedDelay("1s", 2))

    assert kept(place) == []


async def test_nor_does_a_start_that_is_cancelled() -> None:
    place = Place()
    waiting = Flow("waiting")
    waiting.source(ScriptedSource(["a"])).process(Waiting).sink(MemorySink())

    async def start() -> None:
        async with place.start(waiting):
            pytest.fail("the body must not run")

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await until(lambda: any("fence" in path for path in kept(place)))
        group.cancel_scope.cancel()

    assert kept(place) == []


async def test_the_next_start_begins_as_if_there_had_been_none() -> None:
    place, sink = Place(), MemorySink[Any]()
    with pytest.raises(ConfigError):
        await place.run(flow(RefusingSink()))

    job = await place.run(flow(sink))

    assert sink.rows == [("a", 1)]
    assert job.status().generation == 1


async def test_a_folder_with_a_checkpoint_keeps_all_that_it_has() -> None:
    place = Place()
    await place.run(flow())
    before = {path: place.files.contents(path) for path in kept(place) if "lease" not in path}

    for wrong in (flow(RefusingSink()), flow(step="other")):
        with pytest.raises(ConfigError):
            await place.run(wrong)

    after = {path: place.files.contents(path) for path in kept(place) if "lease" not in path}
    assert {path: after.get(path) for path in before} == before
    assert f"{FOLDER}/lease.json" in kept(place)


async def test_a_savepoint_that_was_brought_in_stays() -> None:
    place, sink = Place(), MemorySink[Any]()
    async with place.passing_time(), place.start(flow(), checkpoints="/elsewhere") as job:
        await job.savepoint("/saved")

    with pytest.raises(ConfigError, match="no such table"):
        await place.run(flow(RefusingSink()), restore="/saved")
    job = await place.run(flow(sink), restore="/saved")

    assert job.status().restored_epoch is not None


async def test_of_two_that_start_at_once_the_other_is_not_harmed() -> None:
    for turns in range(60):
        place, sink = Place(), MemorySink[Any]()
        refused = False

        async def start_wrong(place: Place = place) -> None:
            with pytest.raises((ConfigError, LeaseError)):
                await place.run(flow(RefusingSink()))

        async with anyio.create_task_group() as group:
            group.start_soon(start_wrong)
            for _ in range(turns):
                await checkpoint()
            try:
                await place.run(flow(sink))
            except LeaseError:
                refused = True

        if refused:
            await place.run(flow(sink))
        assert sink.rows == [("a", 1)]
        assert f"{FOLDER}/lease.json" in kept(place)


async def test_whoever_takes_the_folder_over_meanwhile_keeps_it() -> None:
    place = Place()
    old = await Lease.take(place.world(), FOLDER)
    new = await Lease.take(place.world(), FOLDER, take_over=True)

    await old.withdraw()

    await new.check()
    with pytest.raises(LeaseError, match="in use by process 2"):
        await Lease.take(place.world(), FOLDER)


async def test_a_disk_that_fails_meanwhile_harms_nothing() -> None:
    place, sink = Place(), MemorySink[Any]()
    place.files.fail("delete", "lease.json", PermissionError(13, "Permission denied"))

    with pytest.raises(ConfigError, match="no such table"):
        await place.run(flow(RefusingSink()))
    await place.run(flow(sink))

    assert sink.rows == [("a", 1)]
