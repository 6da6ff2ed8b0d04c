"""A sink whose transaction is the commit point: recovery goes by what it committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowrt
from flowrt import CheckpointError, FixedDelay, Flow, GraphError, MemorySink, SinkError
from flowrt.contract.failpoints import FAILPOINTS, arm_failpoints
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import FOLDER, Place, turns, until
from tests.journeys.sqlite_sink import SqliteSink, last_epoch_in, rows_in

pytestmark = pytest.mark.anyio

EPOCH_STEPS = [name for name, step in FAILPOINTS.items() if step.startswith("S")]
RECOVERY_STEPS = [name for name, step in FAILPOINTS.items() if step.startswith("R")]


class DiedError(BaseException):
    """The process dies here: no handler may catch it."""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm_failpoints(None)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def die_at(name: str, hit: int = 1) -> None:
    left = [hit]

    def passed(failpoint: str) -> None:
        left[0] -= failpoint == name
        if left[0] == 0:
            left[0] = -1
            raise DiedError(name)

    arm_failpoints(passed)


def words(stages: int = 4) -> ScriptedSource[str]:
    """Three words a stage, each stage an epoch's."""
    script: list[Any] = []
    for _ in range(stages):
        script += ["a", "b", "a", PAUSE]
    return ScriptedSource(script)


def all_rows(stages: int = 4) -> list[tuple[str, int]]:
    return [
        row for s in range(stages) for row in (("a", 2 * s + 1), ("b", s + 1), ("a", 2 * s + 2))
    ]


def counting(source: flowrt.Source[str], *sinks: flowrt.Sink[Any]) -> Flow:
    flow = Flow("counting")
    counts = flow.source(source, name="words").key_by(str).count(name="count")
    for number, sink in enumerate(sinks):
        counts.sink(sink, name=f"out-{number}")
    return flow


async def live(place: Place, source: ScriptedSource[str], *sinks: flowrt.Sink[Any]) -> bool:
    """Run stage by stage; say whether the process came to the end of the script before it died."""
    try:
        async with place.passing_time(), place.start(counting(source, *sinks)) as job:
            while job.status().state == "running":
                await turns(150)
                source.release()
            await job.wait()
    except BaseException as error:
        if not _died(error):
            raise
        place.files.kill()
        return False
    return True


def _died(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_died(part) for part in error.exceptions)
    return isinstance(error, DiedError)


async def test_rows_and_epoch_are_committed_together(database: Path) -> None:
    place, source = Place(), words(1)

    assert await live(place, source, SqliteSink(database))

    assert rows_in(database) == all_rows(1)
    assert last_epoch_in(database) is not None


@pytest.mark.parametrize("hit", [1, 2, 3])
@pytest.mark.parametrize("step", EPOCH_STEPS)
async def test_dying_at_any_step_of_an_epoch_loses_and_repeats_nothing(
    database: Path, step: str, hit: int
) -> None:
    place, other = Place(), MemorySink[Any]()
    die_at(step, hit)
    assert not await live(place, words(), SqliteSink(database), other)
    arm_failpoints(None)
    decided = last_epoch_in(database)
    source = words()
    async with place.start(counting(source, SqliteSink(database), other)) as job:
        assert job.status().restored_epoch == decided
        await job.cancel()

    assert await live(place, words(), SqliteSink(database), other)

    assert rows_in(database) == all_rows()


@pytest.mark.parametrize("step", RECOVERY_STEPS)
async def test_dying_in_a_recovery_changes_nothing(database: Path, step: str) -> None:
    place = Place()
    die_at("commit.acknowledged", 2)
    assert not await live(place, words(), SqliteSink(database))
    decided = last_epoch_in(database)

    for _ in range(2):
        die_at(step)
        assert not await live(place, words(), SqliteSink(database))
        assert last_epoch_in(database) == decided
    arm_failpoints(None)
    assert await live(place, words(), SqliteSink(database))

    assert rows_in(database) == all_rows()


@pytest.mark.parametrize("moment", ["before commit", "after commit"])
async def test_dying_around_the_commit_itself(database: Path, moment: str) -> None:
    place = Place()
    commits = []

    def hook(step: str) -> None:
        commits.append(step)
        if commits.count(moment) == 2:
            raise DiedError(step)

    assert not await live(place, words(), SqliteSink(database, hook))
    # The manifest of epoch 2 is there in both cases: the database alone decides.
    assert await place.files.size(f"{FOLDER}/manifest-2-1.json") is not None
    assert last_epoch_in(database) == (1 if moment == "before commit" else 2)

    async with place.start(counting(words(), SqliteSink(database))) as job:
        assert job.status().restored_epoch == last_epoch_in(database)
        await job.cancel()
    assert await live(place, words(), SqliteSink(database))

    assert rows_in(database) == all_rows()


async def test_a_commit_that_fails_is_asked_about_and_not_guessed(database: Path) -> None:
    """The answer is lost behind the commit: the row is there, and the epoch is not run again."""
    calls = []

    def hook(step: str) -> None:
        calls.append(step)
        if step == "after commit" and calls.count(step) == 2:
            raise OSError("the connection broke before the answer came")

    place = Place()
    source = words(3)
    flow = counting(source, SqliteSink(database, hook))
    async with place.passing_time(), place.start(flow, restart=FixedDelay("1s")) as job:
        while job.status().state in ("running", "restarting"):
            await turns(150)
            source.release()
        await job.wait()

    assert job.status().restarts == 1
    assert rows_in(database) == all_rows(3)


async def test_the_checkpoint_of_the_decided_epoch_must_be_there(database: Path) -> None:
    place = Place()
    assert await live(place, words(2), SqliteSink(database))
    epoch = last_epoch_in(database)
    manifest = f"{FOLDER}/manifest-{epoch}-1.json"
    await place.files.delete(manifest)

    with pytest.raises(CheckpointError, match=rf"last committed epoch is {epoch}, .* is missing"):
        await place.run(counting(words(2), SqliteSink(database)))

    assert rows_in(database) == all_rows(2)


async def test_the_checkpoint_of_the_decided_epoch_must_be_whole(database: Path) -> None:
    place = Place()
    assert await live(place, words(2), SqliteSink(database))
    epoch = last_epoch_in(database)
    manifest = f"{FOLDER}/manifest-{epoch}-1.json"
    whole = place.files.contents(manifest)
    place.files.replace(manifest, whole[:-20])

    with pytest.raises(CheckpointError, match=rf"last committed epoch is {epoch}") as error:
        await place.run(counting(words(2), SqliteSink(database)))
    assert "bring the files back" in str(error.value)

    place.files.replace(manifest, whole)
    assert await live(place, words(2), SqliteSink(database))
    assert rows_in(database) == all_rows(2)


async def test_an_emptied_database_is_noticed(database: Path) -> None:
    place = Place()
    assert await live(place, words(), SqliteSink(database))
    database.unlink()

    with pytest.raises(CheckpointError, match="the sink knows of no commit of this job"):
        await place.run(counting(words(), SqliteSink(database)))


async def test_an_instance_that_was_replaced_cannot_commit_to_the_database(database: Path) -> None:
    place, source = Place(), words()
    old = SqliteSink(database)
    with pytest.raises(flowrt.FlowrtError) as error:
        async with place.start(counting(source, old), on_failure="keep") as job:
            await source.paused()
            await place.epoch(job)
            async with place.start(
                counting(words(), SqliteSink(database)), take_over=True
            ) as other:
                await other.cancel()
            source.release()
            await until(lambda: job.metrics().records_out == 6)
            place.clock.advance(1_000)
            await job.wait()

    assert isinstance(error.value, flowrt.LeaseError | SinkError)
    assert rows_in(database) == all_rows(1)


def test_two_deciding_sinks_in_one_flow_are_refused(database: Path) -> None:
    flow = counting(words(), SqliteSink(database), SqliteSink(database))

    with pytest.raises(GraphError, match="'out-0' and 'out-1' both want to decide"):
        flow.build()


def test_the_sink_holds_its_transaction_as_a_transaction(database: Path) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.executescript("create table t (x); begin immediate; insert into t values (1);")
    connection.close()

    connection = sqlite3.connect(database)
    assert connection.execute("select count(*) from t").fetchone() == (0,)
    connection.close()
