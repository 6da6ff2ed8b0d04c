"""A job that fails and tries again within the process: from its last epoch, with nothing twice."""

from __future__ import annotations

from errno import ENOSPC
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import flowrt
from flowrt import (
    ConfigError,
    ExponentialBackoff,
    FixedDelay,
    Flow,
    InputError,
    MemorySink,
    SinkError,
    ValueState,
)
from flowrt.contract.failpoints import FAILPOINTS, arm_failpoints
from flowrt.testing.recording_sink import RecordingSink
from flowrt.testing.script import FAIL, PAUSE, fail
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import FOLDER, Place, turns, until

pytestmark = pytest.mark.anyio


class Count(flowrt.Operator[str, tuple[str, int]]):
    """Counts each word."""

    count = ValueState(int, default=0)

    def process(self, word: str, ctx: flowrt.Context) -> None:
        self.count.set(self.count.get() + 1)
        ctx.emit((word, self.count.get()))


def counting(source: flowrt.Source[str], sink: flowrt.Sink[Any]) -> Flow:
    flow = Flow("counting")
    flow.source(source, name="words").key_by(str).process(Count, name="count").sink(
        sink, name="out"
    )
    return flow


async def test_a_restart_goes_on_from_the_last_epoch_and_counts_each_record_once() -> None:
    place, sink = Place(), MemorySink[Any]()
    source = ScriptedSource[str](["a", "b", PAUSE, "a", PAUSE, FAIL, "a", "b"])
    async with place.start(counting(source, sink), restart=FixedDelay("1s")) as job:
        await source.paused()
        await place.epoch(job)
        source.release()
        await until(lambda: job.metrics().records_in == 3)  # read, and not committed
        source.release()
        await until(lambda: job.status().state == "restarting")
        place.clock.advance(1_000)
        await place.finish(job)

    assert sink.rows == [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)]
    assert job.status().restarts == 1
    assert job.status().restored_epoch == 1
    assert job.status().generation == 2


async def test_a_job_waits_as_long_as_its_strategy_says() -> None:
    place, source = Place(), ScriptedSource[str]([FAIL, "a"])
    async with place.start(counting(source, MemorySink()), restart=FixedDelay("10s")) as job:
        await until(lambda: job.status().state == "restarting")

        place.clock.advance(9_999)
        await turns()
        assert job.status().state == "restarting"

        place.clock.advance(1)
        await until(lambda: job.status().state != "restarting")
        await place.finish(job)

    assert job.status().state == "finished"


async def test_a_job_gives_up_after_so_many_failures_in_a_row() -> None:
    place, source = Place(), ScriptedSource[str]([FAIL, FAIL, FAIL, "a"])

    with pytest.raises(InputError, match="could not read split '0'"):
        await place.run(
            counting(source, MemorySink()), restart=FixedDelay("1s", 2), on_failure="keep"
        )


async def test_a_committed_epoch_begins_the_count_of_failures_anew() -> None:
    place, sink = Place(), MemorySink[Any]()
    source = ScriptedSource[str]([FAIL, FAIL, "a", PAUSE, FAIL, FAIL, "b"])
    async with place.start(counting(source, sink), restart=FixedDelay("1s", attempts=2)) as job:
        for _ in range(2):
            await until(lambda: job.status().state == "restarting")
            place.clock.advance(1_000)
            await until(lambda: job.status().state == "running")
        await source.paused()
        await place.epoch(job)
        source.release()
        await place.finish(job)

    assert sink.rows == [("a", 1), ("b", 1)]
    assert job.status().restarts == 4


async def test_backoff_waits_longer_each_time() -> None:
    place, source = Place(), ScriptedSource[str]([FAIL, FAIL, FAIL, "a"])
    waited = []
    restart = ExponentialBackoff("1s", longest="1h")
    async with place.start(counting(source, MemorySink()), restart=restart) as job:
        for restarts in (1, 2, 3):
            while job.status().restarts < restarts:
                await checkpoint()
            await turns(50)
            due_ms = place.clock.next_alarm_ms()
            assert due_ms is not None
            waited.append(round(due_ms - place.clock.now_ms(), -3))
            place.clock.set_to(due_ms)
        await place.finish(job)

    assert waited == [1_000, 2_000, 4_000]


async def test_a_wrong_configuration_is_not_tried_again() -> None:
    place = Place()
    source = ScriptedSource[str]([fail(ConfigError("no such topic"))])

    with pytest.raises(ConfigError, match="no such topic"):
        await place.run(counting(source, MemorySink()), restart=ExponentialBackoff())


async def test_draining_while_it_waits_ends_the_job_where_its_last_epoch_left_it() -> None:
    place, sink = Place(), MemorySink[Any]()
    source = ScriptedSource[str](["a", PAUSE, "b", FAIL, "c"])
    async with place.start(counting(source, sink), restart=FixedDelay("1h")) as job:
        await source.paused()
        await place.epoch(job)
        source.release()
        await until(lambda: job.status().state == "restarting")

        await job.drain()

    assert job.status().state == "cancelled"
    assert sink.rows == [("a", 1)]


async def test_cancelling_while_it_waits_ends_the_job_at_once() -> None:
    place, source = Place(), ScriptedSource[str]([FAIL])
    async with place.start(counting(source, MemorySink()), restart=FixedDelay("1h")) as job:
        await until(lambda: job.status().state == "restarting")
        await job.cancel()

    assert job.status().state == "cancelled"
    assert place.clock.next_alarm_ms() is None


async def test_everything_is_closed_before_the_next_try_and_made_anew_for_it() -> None:
    calls: list[str] = []

    class Noted(flowrt.Operator[str, str]):
        def __init__(self) -> None:
            self.seen = 0

        async def open(self, ctx: flowrt.Context) -> None:
            calls.append(f"open, {self.seen} seen")

        async def process(self, word: str, ctx: flowrt.Context) -> None:
            await checkpoint()
            self.seen += 1
            ctx.emit(word)

        async def close(self) -> None:
            calls.append(f"close, {self.seen} seen")

    place, sink = Place(), RecordingSink[str]()
    source = ScriptedSource[str](["a", FAIL, "b"])
    flow = Flow("noted")
    flow.source(source).process(Noted()).sink(sink)

    await place.run(flow, restart=FixedDelay("1s"))

    assert calls == ["open, 0 seen", "close, 1 seen", "open, 0 seen", "close, 2 seen"]
    assert source.closed == 2
    assert sink.calls.count("writer close") == sink.calls.count("close") == 2


@pytest.mark.parametrize("step", ["recover", "writer", "write", "prepare", "commit", "committed"])
async def test_a_sink_that_fails_once_in_any_step_has_each_row_once(step: Any) -> None:
    place, sink = Place(), RecordingSink[Any](fail_on=[(step, 1)])
    source = ScriptedSource[str](["a", "b", "a"])

    job = await place.run(counting(source, sink), restart=FixedDelay("1s"))

    assert sink.rows == [("a", 1), ("b", 1), ("a", 2)]
    assert job.status().restarts == 1


@pytest.mark.parametrize("step", ["write", "prepare", "commit"])
async def test_without_a_restart_a_failing_sink_ends_the_job_with_its_error(step: Any) -> None:
    sink = RecordingSink[Any](fail_on=[(step, 1)])

    with pytest.raises(SinkError, match=f"{step} number 1 fails"):
        await Place().run(counting(ScriptedSource[str](["a"]), sink))


class Unreachable(RecordingSink[Any]):
    """Raises an error that is none of flowrt's, in one step."""

    def __init__(self, step: str) -> None:
        super().__init__(kind="deciding")
        self._step = step

    async def last_committed(self, ctx: flowrt.SinkContext) -> int | None:
        self._reach_out("last_committed")
        return await super().last_committed(ctx)

    async def recover(self, epoch: int | None, committables: Any, ctx: Any) -> None:
        self._reach_out("recover")

    async def writer(self, ctx: flowrt.SinkContext, prepared: Any) -> flowrt.Writer[Any]:
        self._reach_out("writer")
        return await super().writer(ctx, prepared)

    async def commit(self, epoch: int, committables: Any) -> None:
        self._reach_out("commit")

    def _reach_out(self, step: str) -> None:
        if step == self._step:
            raise ConnectionRefusedError("nobody there")


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("last_committed", "say which epoch it committed last"),
        ("recover", "recover epoch None"),
        ("writer", "open its writer 0"),
        ("commit", "commit epoch 1"),
    ],
)
async def test_what_a_sink_raises_is_told_with_its_name(step: str, what: str) -> None:
    text = f"sink 'out' could not {what}: ConnectionRefusedError: nobody there"
    with pytest.raises(SinkError, match=text) as error:
        await Place().run(counting(ScriptedSource[str](["a"]), Unreachable(step)))

    assert isinstance(error.value.__cause__, ConnectionRefusedError)


# An error behind lease.taken leaves nobody as the owner, and two epochs delete no checkpoint.
STEPS = [name for name in FAILPOINTS if name not in ("lease.taken", "checkpoint.deleted")]


@pytest.mark.parametrize("name", STEPS)
async def test_a_bug_at_any_step_of_an_epoch_or_recovery_costs_and_repeats_nothing(
    name: str,
) -> None:
    place, sink = Place(), MemorySink[Any]()
    words = ["a", "b", PAUSE, "a", PAUSE, "c", "a"]
    source = ScriptedSource[str](words)
    armed: list[str] = []

    def hit(passed: str) -> None:
        if passed in armed:
            armed.remove(passed)
            raise RuntimeError(f"a bug at {passed}")

    async def epoch(job: flowrt.Job) -> None:
        await until(lambda: job.status().state == "running")
        await place.epoch(job)

    arm_failpoints(hit)
    try:
        async with place.start(counting(source, sink), restart=FixedDelay("1ms", 9)) as job:
            await source.paused()
            await epoch(job)
            # A bug in a recovery needs a failure to recover from.
            armed.extend(["epoch.chosen", name] if FAILPOINTS[name].startswith("R") else [name])
            source.release()
            for _ in range(20):
                await turns(100)
                place.clock.advance(500)
            assert armed == []
            source.release()
            await place.finish(job)
    finally:
        arm_failpoints(None)

    assert sorted(sink.rows) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1)]
    assert job.status().restarts >= 1


async def test_a_failing_commit_is_made_up_for_by_the_recovery() -> None:
    place, sink = Place(), RecordingSink[Any](fail_on=[("commit", 2)])
    source = ScriptedSource[str](["a", PAUSE, "b", PAUSE])
    async with place.start(counting(source, sink), restart=FixedDelay("1s")) as job:
        await source.paused()
        await place.epoch(job)
        source.release()
        await until(lambda: job.metrics().records_out == 2)
        place.clock.advance(1_000)
        await until(lambda: job.status().state == "restarting")
        assert sink.rows == [("a", 1)]

        place.clock.advance(1_000)
        await until(lambda: job.status().state == "running")
        assert job.status().restored_epoch == 2
        assert sink.rows == [("a", 1), ("b", 1)]
        await job.cancel()


async def test_a_disk_that_is_full_when_the_job_restarts_is_one_more_failure() -> None:
    place, sink = Place(), MemorySink[Any]()
    source = ScriptedSource[str](["a", PAUSE, FAIL, "b"])
    async with place.start(counting(source, sink), restart=FixedDelay("1s", 3)) as job:
        await source.paused()
        place.files.fail("write", "lease.json", OSError(ENOSPC, "No space left"), times=2)
        source.release()
        await place.finish(job)

    assert sink.rows == [("a", 1), ("b", 1)]
    assert job.status().restarts == 3


async def test_a_restart_needs_its_folder_still_to_be_its_own() -> None:
    place, source = Place(), ScriptedSource[str](["a", FAIL])
    with pytest.raises(flowrt.LeaseError, match="was taken over by process 2"):
        async with place.start(counting(source, MemorySink()), restart=FixedDelay("1h")) as job:
            await until(lambda: job.status().state == "restarting")
            async with place.start(counting(ScriptedSource([]), MemorySink()), take_over=True):
                pass
            place.clock.advance(3_600_000)
            await anyio.sleep_forever()

    assert FOLDER in place.files.paths()[0]
