"""Whole jobs with two inputs: joined by key, under rules that change, dealt out; restarted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from flowrt import (
    BroadcastState,
    CheckpointError,
    Context,
    CoOperator,
    Flow,
    MemorySink,
    StateError,
    ValueState,
    WatermarkStrategy,
)
from flowrt.contract.retry import FixedDelay
from flowrt.testing import FAIL, PAUSE, ScriptedSource, record
from tests.journeys.kit import Place, turns

pytestmark = pytest.mark.anyio

Order = tuple[str, int]
Rule = tuple[str, int]


class Priced(CoOperator[Order, Rule, tuple[str, int, int]]):
    """Prices orders by the rule that holds, and counts those of each customer."""

    factors = BroadcastState(str, int)
    count = ValueState(int, default=0)

    def process_left(self, value: Order, ctx: Context) -> None:
        self.count.set(self.count.get() + 1)
        ctx.emit((value[0], value[1] * self.factors.get("all", 1), self.count.get()))

    def process_right(self, value: Rule, ctx: Context) -> None:
        self.factors.put(*value)


class Joined(CoOperator[Order, Order, tuple[str, int]]):
    """Sums what comes for a name from both sides; tells when event time has passed it."""

    total = ValueState(int, default=0)

    def process_left(self, value: Order, ctx: Context) -> None:
        self.total.set(self.total.get() + value[1])
        ctx.timers.register_event_time(100)

    def process_right(self, value: Order, ctx: Context) -> None:
        self.process_left((value[0], -value[1]), ctx)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit((ctx.key, self.total.get()))


def priced(orders: Any, rules: Any, rows: MemorySink[Any], parallelism: int) -> Flow:
    flow = Flow("prices")
    (
        flow.source(orders, name="orders")
        .key_by(lambda order: order[0], name="by-name")
        .connect(flow.source(rules, name="rules").broadcast())
        .process(Priced, name="priced", parallelism=parallelism)
        .sink(rows, name="rows")
    )
    return flow


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (3, 2)])
async def test_a_restored_job_sees_the_rules_of_the_snapshot_before_any_record(
    before: int, after: int
) -> None:
    place, rows = Place(), MemorySink[Any]()
    names = [f"name {n}" for n in range(20)]
    rules = ScriptedSource[Rule]([("all", 5), ("all", 10), PAUSE])
    script = [PAUSE, *[(name, 1) for name in names], PAUSE, *[(name, 2) for name in names]]
    orders = ScriptedSource[Order](script)
    async with place.start(priced(orders, rules, rows, before)) as job:
        await turns()
        orders.release()
        await turns()
        await orders.paused()
    assert sorted(rows.rows) == [(name, 10, 1) for name in sorted(names)]

    orders = ScriptedSource[Order](script)
    orders.release()
    orders.release()
    async with place.start(priced(orders, rules, rows, after)) as job:
        await turns()

    assert job.status().restored_epoch is not None
    assert sorted(rows.rows)[1::2] == [(name, 20, 2) for name in sorted(names)]


async def test_records_count_once_on_both_sides_through_restarts() -> None:
    place, rows = Place(), MemorySink[Any]()
    left = ScriptedSource[Order](
        [record((f"n{n % 7}", n), at=n) for n in range(30)] + [FAIL, record(("n0", 1), at=50)]
    )
    right = ScriptedSource[Order](
        [record(("n1", 1), at=1), record(("n1", 2), at=2), PAUSE, FAIL, record(("n2", 3), at=3)]
    )
    flow = Flow("join")
    in_time = WatermarkStrategy.monotonous()
    streams = [
        flow.source(source, name=name, watermarks=in_time).key_by(
            lambda o: o[0], name=f"{name}-key"
        )
        for name, source in (("left", left), ("right", right))
    ]
    streams[0].connect(streams[1]).process(Joined, parallelism=2).sink(rows, name="rows")

    async with place.passing_time(), place.start(flow, restart=FixedDelay("1ms")) as job:
        await right.paused()
        await turns(1_000)
        right.release()
        await job.wait()

    sums = Counter({"n0": 1, "n1": -3, "n2": -3})
    for n in range(30):
        sums[f"n{n % 7}"] += n
    assert sorted(rows.rows) == sorted(sums.items())
    assert job.status().restarts == 2


async def test_event_time_goes_on_without_the_rules() -> None:
    class Late(Priced):
        def on_watermark(self, watermark: int, ctx: Context) -> None:
            ctx.emit(("watermark", watermark, 0))

    place, rows = Place(), MemorySink[Any]()
    flow = Flow("late")
    orders = ScriptedSource[Order]([record(("a", 1), at=5), record(("b", 1), at=9), PAUSE])
    rules = flow.source(ScriptedSource[Rule]([PAUSE]), name="rules")
    (
        flow.source(orders, name="orders", watermarks=WatermarkStrategy.monotonous())
        .key_by(lambda order: order[0])
        .connect(rules.broadcast())
        .process(Late)
        .sink(rows, name="rows")
    )
    async with place.start(flow) as job:
        await orders.paused()
        await place.epoch(job)
        assert ("watermark", 8, 0) in rows.rows


async def test_rules_that_nobody_reads_any_more_are_not_mistaken_for_something_else() -> None:
    class Plain(CoOperator[Order, Rule, Order]):
        def process_left(self, value: Order, ctx: Context) -> None:
            ctx.emit(value)

        def process_right(self, value: Rule, ctx: Context) -> None:
            ctx.emit(value)

    place, rows = Place(), MemorySink[Any]()
    await place.run(priced([("a", 1)], [("all", 2)], rows, 1))
    flow = Flow("prices")
    numbers, words = flow.source([("a", 1)], name="orders"), flow.source([("a", 1)], name="rules")
    numbers.connect(words).process(Plain, name="priced").sink(rows, name="rows")

    with pytest.raises(CheckpointError, match="broadcast state for operator 'priced', which reads"):
        await place.run(flow, allow_dropped_state=["by-name"])


async def test_writing_rules_on_the_left_fails_the_flow_and_says_what_to_do() -> None:
    class Wrong(Priced):
        def process_left(self, value: Order, ctx: Context) -> None:
            self.factors.put("all", 3)

    flow = Flow("wrong")
    rules = flow.source([("all", 2)], name="rules").broadcast()
    orders = flow.source([("a", 1)], name="orders").key_by(lambda order: order[0])
    orders.connect(rules).process(Wrong, name="priced").sink(MemorySink())

    with pytest.raises(StateError, match="'priced', state 'factors': it is written outside of"):
        await Place().run(flow)


async def test_rebalance_shares_one_run_of_records_at_equal_parallelism() -> None:
    rows = MemorySink[Any]()
    flow = Flow("busy", parallelism=4)
    (
        flow.source(range(400), name="numbers")
        .rebalance()
        .process(lambda value, ctx: ctx.emit(ctx.subtask), name="busy")
        .sink(rows)
    )

    await Place().run(flow)

    assert Counter(rows.rows) == {0: 100, 1: 100, 2: 100, 3: 100}


async def test_every_subtask_gets_every_broadcast_record_once_and_in_order() -> None:
    rows = MemorySink[Any]()
    flow = Flow("rules", parallelism=3)
    rules = flow.source(range(100), name="rules", parallelism=1).broadcast()
    (
        flow.source([0], name="one")
        .connect(rules)
        .process(lambda value, ctx: None, lambda value, ctx: ctx.emit((ctx.subtask, value)))
        .sink(rows)
    )

    await Place().run(flow)

    for subtask in range(3):
        assert [value for one, value in rows.rows if one == subtask] == list(range(100))
