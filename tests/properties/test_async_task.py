"""Cuts at any moment, records in flight, other parallelism after: nothing lost, twice or late."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import MIN_TIMESTAMP, Barrier, Idle, Records, Watermark
from flowrt.contract.snapshot import OpenEpoch
from flowrt.dataflow.tasks.async_task import PATIENCE_MS
from flowrt.dataflow.tasks.in_flight_snapshot import share_of
from tests.dataflow.async_kit import Stage
from tests.dataflow.kit import settle

PARALLELISM = st.integers(1, 3)
STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 4)),
    st.tuples(st.just("send"), st.integers(1, 4)),
    st.tuples(st.just("answer"), st.integers(0, 9)),
    st.tuples(st.just("answer"), st.integers(0, 9)),
    st.tuples(st.just("watermark"), st.just(0)),
    st.tuples(st.just("idle"), st.just(0)),
    st.tuples(st.just("cut"), st.just(0)),
    st.tuples(st.just("crash"), PARALLELISM),
)
STEPS = st.lists(STEP, min_size=8, max_size=30)


class Job:
    """Subtasks that ask, fed with numbers; the number is the event time too."""

    def __init__(self, capacity: int, ordered: bool, parallelism: int) -> None:
        self.capacity = capacity
        self.ordered = ordered
        self.parallelism = parallelism
        self.stages: list[Stage] = []
        self.life = AsyncExitStack()
        self.sent = 0
        self.watermark = -1
        self.epoch = 0
        self.out: list[list[Any]] = []
        """What came out and counts, for each subtask of each life."""
        self.committed: tuple[list[Any], int, int] = ([], 0, -1)
        """The last cut: parts, how much had been sent, the watermark."""

    async def start(self) -> None:
        parts, self.sent, self.watermark = self.committed
        self.stages = [
            Stage(
                capacity=self.capacity,
                ordered=self.ordered,
                restored=share_of(parts, subtask, self.parallelism) if parts else [],
            )
            for subtask in range(self.parallelism)
        ]
        for stage in self.stages:
            await self.life.enter_async_context(stage.running())
            if self.watermark >= 0:
                await stage.control(Watermark(self.watermark))

    async def step(self, what: str, amount: int) -> None:
        match what:
            case "send":
                for _ in range(amount):
                    # The same subtask as the last time, where their number has not changed.
                    await self.stages[self.sent % self.parallelism].send(self.sent, at=[self.sent])
                    self.sent += 1
            case "answer":
                stage = self.stages[amount % self.parallelism]
                under_way = stage.service.under_way
                if under_way:
                    await stage.service.answer(under_way[amount % len(under_way)])
            case "watermark":
                self.watermark = self.sent - 1
                for stage in self.stages:
                    await stage.control(Watermark(self.watermark))
            case "idle":
                for stage in self.stages:
                    await stage.control(Idle())
            case "cut":
                await self.cut()
            case "crash":
                await self.life.aclose()
                self.parallelism = amount
                await self.start()

    async def cut(self, *, final: bool = False) -> None:
        self.epoch += 1
        parts = []
        for stage in self.stages:
            stage.task.receive(OpenEpoch(self.epoch))
            await settle()
            stage.letters.clock.advance(PATIENCE_MS)
            await stage.control(Barrier(self.epoch, final=final))
            if final:
                await stage.service.answer_all()
            (part,) = stage.letters.parts(self.epoch)
            parts.append(part.data)
            elements = stage.out.take()
            assert elements[-1] == Barrier(self.epoch, final=final)
            self.out.append(elements[:-1])
        self.committed = parts, self.sent, self.watermark

    async def run(self, steps: list[tuple[str, int]]) -> None:
        await self.start()
        for what, amount in steps:
            await self.step(what, amount)
        await self.cut(final=True)
        await self.life.aclose()

    def values(self) -> list[int]:
        runs = [one for out in self.out for one in out if isinstance(one, Records)]
        return [int(value) for run in runs for value in run.values]


@given(STEPS, st.integers(1, 3), st.booleans(), PARALLELISM)
def test_nothing_is_lost_or_twice_or_late(
    steps: list[tuple[str, int]], capacity: int, ordered: bool, parallelism: int
) -> None:
    job = Job(capacity, ordered, parallelism)
    anyio.run(job.run, steps)

    assert sorted(job.values()) == list(range(job.sent))
    for out in job.out:
        watermark = MIN_TIMESTAMP
        for one in out:
            if isinstance(one, Watermark):
                assert one.timestamp >= watermark
                watermark = one.timestamp
            elif isinstance(one, Records):
                assert one.timestamps == [int(value) for value in one.values]
                assert min(map(int, one.values)) > watermark


@given(STEPS, st.integers(1, 3))
def test_order_is_kept_through_restores(steps: list[tuple[str, int]], capacity: int) -> None:
    job = Job(capacity, ordered=True, parallelism=1)
    anyio.run(job.run, [(what, 1 if what == "crash" else amount) for what, amount in steps])

    assert job.values() == list(range(job.sent))
