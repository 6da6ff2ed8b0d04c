"""What a job counts: times of tasks, records of operators, epochs, and who holds up the others."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowrt import (
    ExponentialBackoff,
    Flow,
    ForeachSink,
    Job,
    MemorySink,
    SinkContext,
    WatermarkStrategy,
    Writer,
    start,
)
from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.world import World
from flowrt.runtime.status import EpochMetrics, JobMetrics, OperatorMetrics, TaskMetrics
from flowrt.testing import ManualClock, ScriptedSource, manual_world
from flowrt.testing.script import FAIL
from tests.dataflow.kit import FedSource, Feed, settle

pytestmark = pytest.mark.anyio


def stopped_world() -> tuple[World, ManualClock]:
    world = manual_world()
    assert isinstance(world.clock, ManualClock)
    return world, world.clock


def task(metrics: JobMetrics, name: str) -> TaskMetrics:
    return next(task for task in metrics.tasks if task.task == name)


def operator(metrics: JobMetrics, name: str) -> OperatorMetrics:
    return next(one for one in metrics.operators if one.operator == name)


def seconds(task: TaskMetrics) -> tuple[float, float, float]:
    return task.busy_seconds, task.idle_seconds, task.blocked_seconds


def ratios(task: TaskMetrics) -> tuple[float, float, float]:
    return task.busy_ratio, task.idle_ratio, task.blocked_ratio


@asynccontextmanager
async def running(flow: Flow, world: World, **options: Any) -> AsyncIterator[Job]:
    """A job that is cancelled at the end of the body."""
    async with start(flow, world=world, **options) as job:
        await settle()
        yield job
        await job.cancel()


async def test_a_source_without_input_is_idle_and_so_is_all_behind_it() -> None:
    world, clock = stopped_world()
    flow = Flow("f")
    flow.source(FedSource({"a": Feed(), "b": Feed()}), name="in").sink(MemorySink(), name="out")

    async with running(flow, world) as job:
        clock.advance(700)
        metrics = job.metrics()

    assert seconds(task(metrics, "in")) == (0.0, 0.7, 0.0)
    assert seconds(task(metrics, "out")) == (0.0, 0.7, 0.0)
    assert ratios(task(metrics, "in")) == (0.0, 1.0, 0.0)
    assert metrics.bottleneck is None


async def test_a_step_at_work_is_busy() -> None:
    world, clock = stopped_world()
    feed = Feed()
    flow = Flow("f")
    flow.source(FedSource({"a": feed}), name="in").map(clock.advance, name="work").sink(
        MemorySink(), name="out"
    )

    async with running(flow, world) as job:
        clock.advance(100)
        feed.give(30, 70)
        await settle()
        clock.advance(300)
        metrics = job.metrics()

    source = task(metrics, "in")
    assert seconds(source) == (0.1, 0.4, 0.0)
    assert ratios(source) == (0.2, 0.8, 0.0)
    assert operator(metrics, "work").busy_seconds == 0.1
    assert operator(metrics, "in").busy_seconds == 0.0


async def test_a_sink_that_waits_is_busy_and_blocks_those_before_it() -> None:
    world, clock = stopped_world()
    go_on = anyio.Event()

    async def waits(value: str) -> None:
        await go_on.wait()

    flow = Flow("f")
    flow.source(range(100), name="in").start_new_chain().map(str, name="text").sink(
        ForeachSink(waits), name="slow"
    )
    async with running(flow, world, channel_capacity=4) as job:
        clock.advance(250)
        metrics = job.metrics()
        go_on.set()
        await job.wait()
        after = job.metrics()

    assert seconds(task(metrics, "in")) == (0.0, 0.0, 0.25)
    assert seconds(task(metrics, "text")) == (0.0, 0.0, 0.25)
    assert seconds(task(metrics, "slow")) == (0.25, 0.0, 0.0)
    assert task(metrics, "slow").holds_up_ratio == 1.0
    assert task(metrics, "slow").queued >= task(metrics, "slow").queue_capacity > 0
    assert metrics.bottleneck is not None
    assert metrics.bottleneck.operator == "slow"
    assert (metrics.bottleneck.busy_ratio, metrics.bottleneck.holds_up_ratio) == (1.0, 1.0)
    assert [one.records_in for one in after.operators] == [100, 100, 100]


async def test_calls_under_way_are_idle_while_there_is_room_and_busy_when_there_is_none() -> None:
    world, clock = stopped_world()
    answer, feed = anyio.Event(), Feed(1)

    async def call(value: int) -> int:
        await answer.wait()
        return value

    flow = Flow("f")
    flow.source(FedSource({"a": feed}), name="in").map_async(call, capacity=2, name="calls").sink(
        MemorySink(), name="out"
    )
    async with running(flow, world) as job:
        clock.advance(100)
        assert seconds(task(job.metrics(), "calls")) == (0.0, 0.1, 0.0)

        feed.give(*range(10))
        await settle()
        clock.advance(100)
        metrics = job.metrics()
        answer.set()
        await settle()
        after = job.metrics()

    assert seconds(task(metrics, "calls")) == (0.1, 0.1, 0.0)
    assert operator(metrics, "calls").busy_seconds == 0.1
    assert (operator(after, "calls").records_in, operator(after, "calls").records_out) == (11, 11)


async def test_ratios_are_those_of_the_last_second_and_totals_of_all_time() -> None:
    world, clock = stopped_world()
    flow = Flow("f")
    feed = Feed()
    flow.source(FedSource({"a": feed}), name="in").map(clock.advance, name="work").sink(
        MemorySink()
    )
    async with running(flow, world) as job:
        clock.advance(3_000)
        job.metrics()
        feed.give(1_000)
        await settle()
        metrics = job.metrics()

    assert seconds(task(metrics, "in")) == (1.0, 3.0, 0.0)
    assert ratios(task(metrics, "in")) == (1.0, 0.0, 0.0)
    assert operator(metrics, "work").busy_ratio == 1.0


async def test_side_outputs_and_filters_are_in_the_counts() -> None:
    flow = Flow("f")
    flow.source(range(10), name="in").map(abs, name="map").filter(
        lambda value: value > 6, name="some"
    ).map(str, name="text").sink(MemorySink(), name="out")
    async with start(flow) as job:
        await job.wait()
        metrics = job.metrics()

    assert [(one.operator, one.records_in, one.records_out) for one in metrics.operators] == [
        ("in", 10, 10),
        ("map", 10, 10),
        ("some", 10, 3),
        ("text", 3, 3),
        ("out", 3, 3),
    ]


async def test_the_watermark_and_its_lag_are_those_behind_the_step_that_makes_it() -> None:
    world, clock = stopped_world()
    clock.advance(1_000)
    times = WatermarkStrategy.monotonous().with_timestamps(lambda value: value)
    feed = Feed(400, 901)
    flow = Flow("f")
    flow.source(FedSource({"a": feed}), name="in").map(abs, name="before").assign_timestamps(
        times, name="times"
    ).map(abs, name="behind").sink(MemorySink(), name="out")

    async with running(flow, world) as job:
        metrics = job.metrics()

    assert operator(metrics, "before").watermark == MIN_TIMESTAMP
    assert operator(metrics, "before").watermark_lag_ms is None
    for name in ("times", "behind", "out"):
        assert (operator(metrics, name).watermark, operator(metrics, name).watermark_lag_ms) == (
            900,
            100,
        )
    assert task(metrics, "out").watermark_lag_ms == 100


# ------------------------------------------------------------------------------------ attempts


async def test_counters_go_on_through_restarts(tmp_path: Path) -> None:
    world, clock = stopped_world()
    flow = Flow("f")
    source: ScriptedSource[int] = ScriptedSource([1, 2, 3, FAIL, 4])
    flow.source(source, name="in").map(str, name="text").sink(MemorySink(), name="out")
    seen: list[JobMetrics] = []

    options: dict[str, Any] = {"checkpoints": tmp_path, "restart": ExponentialBackoff("1s")}
    async with start(flow, world=world, **options) as job:
        for _ in range(50):
            await settle()
            seen.append(job.metrics())
            clock.advance(1_000)
            if job.status().state == "finished":
                break
        await job.wait()
        seen.append(job.metrics())

    assert seen[-1].restarts == 1
    assert seen[-1].epochs.committed >= 1
    # What was read again after the restart counts again, in the process; not in the flow.
    assert operator(seen[-1], "in").records_out >= 4
    assert seen[-1].records_in == 4
    for before, after in pairwise(seen):
        for one, later in zip(before.operators, after.operators, strict=False):
            assert one.records_in <= later.records_in
            assert one.records_out <= later.records_out
            assert one.busy_seconds <= later.busy_seconds
        for earlier, now in zip(before.tasks, after.tasks, strict=False):
            assert sum(seconds(earlier)) <= sum(seconds(now)) + 1e-9
        assert before.epochs.committed <= after.epochs.committed


class Counting(MemorySink[int]):
    """A sink that counts its writers, until it is broken."""

    writers = 0
    is_broken = False

    async def writer(self, ctx: SinkContext, prepared: Sequence[Any]) -> Writer[int]:
        self.writers += 1
        return await super().writer(ctx, prepared)

    def counters(self) -> Mapping[str, int]:
        if self.is_broken:
            raise ValueError("no counters")
        return {"writers": self.writers}


async def test_what_a_sink_counts_by_itself_goes_on_through_restarts_but_not_jobs(
    tmp_path: Path,
) -> None:
    world, clock = stopped_world()
    sink = Counting()

    async def counted(script: list[Any], **options: Any) -> JobMetrics:
        flow = Flow("f")
        flow.source(ScriptedSource(script), name="in").sink(sink, name="out")
        async with start(flow, world=world, **options) as job:
            await settle()
            clock.advance(5_000)
            await job.wait()
        return job.metrics()

    first = await counted([1, FAIL, 2], checkpoints=tmp_path, restart=ExponentialBackoff("1s"))
    second = await counted([3])

    assert first.restarts == 1
    assert first.counters == {"out": {"writers": 2}}
    assert second.counters == {"out": {"writers": 1}}


async def test_counters_that_cannot_be_read_hide_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Counting()
    flow = Flow("f")
    flow.source([1, 2]).sink(sink, name="out")
    async with start(flow) as job:
        await job.wait()
    sink.is_broken = True

    with caplog.at_level(logging.ERROR, "flowrt"):
        seen = [job.metrics() for _ in range(2)]

    assert [(one.counters, one.records_out) for one in seen] == [({}, 2)] * 2
    assert [record.message for record in caplog.records] == ["the counters of 'out' cannot be read"]


async def test_an_epoch_that_was_under_way_when_the_flow_failed_has_failed(tmp_path: Path) -> None:
    world, clock = stopped_world()
    fails = True

    class Sink(MemorySink[int]):
        async def commit(self, epoch: int, prepared: Sequence[Any]) -> None:
            nonlocal fails
            if fails:
                fails = False
                raise ValueError("no")
            await super().commit(epoch, prepared)

    flow = Flow("f")
    flow.source(range(3)).sink(Sink())
    options: dict[str, Any] = {"checkpoints": tmp_path, "restart": ExponentialBackoff("1s")}
    async with start(flow, world=world, **options) as job:
        await settle()
        failed = job.metrics().epochs
        clock.advance(5_000)
        await job.wait()
        ended = job.metrics().epochs

    assert (failed.committed, failed.failed) == (0, 1)
    assert (ended.committed, ended.failed) == (1, 1)


async def test_epochs_are_told_to_whoever_listens(caplog: pytest.LogCaptureFixture) -> None:
    world, clock = stopped_world()
    heard: list[EpochMetrics] = []

    def fails(epoch: EpochMetrics) -> None:
        raise ValueError("a listener's own fault")

    flow = Flow("f")
    flow.source(FedSource({"a": Feed(1)}), name="in").sink(MemorySink(), name="out")
    with caplog.at_level(logging.ERROR, "flowrt"):
        async with running(flow, world) as job:
            job.on_epoch(fails)
            leave = job.on_epoch(heard.append)
            clock.advance(1_000)
            await settle()
            clock.advance(250)
            age = job.metrics().epoch_age_ms
            leave()
            leave()
            clock.advance(1_000)
            await settle()
            totals = job.metrics().epochs

    assert [(epoch.epoch, epoch.committed_ms) for epoch in heard] == [(1, 1_000)]
    assert {(part.task, part.subtask) for part in heard[0].tasks} == {("in", 0), ("out", 0)}
    assert age == 250
    assert totals.committed == 2
    assert [record.message for record in caplog.records] == [
        f"a listener for epochs failed at epoch {epoch}" for epoch in (1, 2)
    ]


async def test_metrics_may_be_asked_for_before_and_after() -> None:
    flow = Flow("f")
    flow.source(range(3)).sink(MemorySink())
    async with start(flow) as job:
        await job.wait()

    assert job.metrics().records_in == 3
    assert job.metrics().bottleneck is None
