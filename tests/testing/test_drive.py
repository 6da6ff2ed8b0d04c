"""drive: an operator, a script, and all that comes out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from flowrt.contract.errors import ConfigError, OperatorError, StateError
from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.state import ValueState
from flowrt.contract.steps import Filter, KeyBy, Map
from flowrt.contract.time import WatermarkStrategy
from flowrt.operators.assign_timestamps import assign_timestamps
from flowrt.operators.count import count
from flowrt.operators.map_async import map_async
from flowrt.operators.map_async_batch import map_async_batch
from flowrt.testing import (
    END,
    IDLE,
    RESTART,
    barrier,
    drive,
    manual_world,
    processing_time,
    record,
    records,
    side,
    watermark,
)

pytestmark = pytest.mark.anyio

LATE: OutputTag[str] = OutputTag("late")


class Once(Operator[str, Any]):
    """Emits a key's first value, and later, as watermark and clock say, how many there were."""

    seen = ValueState(int, default=0)

    def process(self, value: str, ctx: Context) -> None:
        if self.seen.get():
            ctx.side(LATE, value)
        else:
            ctx.emit(value)
            ctx.timers.register_event_time(20)
            ctx.timers.register_processing_time(50)
        self.seen.set(self.seen.get() + 1)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit((ctx.key, self.seen.get()))


def itself(value: Any) -> Any:
    return value


# ------------------------------------------------------------------ what comes out


async def test_records_watermarks_and_the_end_come_out_in_order() -> None:
    out = await drive(Map(str), [record(1, at=3), watermark(10), record(2), IDLE, END])

    assert out == [record("1", at=3), watermark(10), record("2"), IDLE, END]


async def test_side_outputs_and_timers_of_both_kinds() -> None:
    script = [record("a", at=4), record("a", at=5), watermark(20), processing_time(50), END]

    out = await drive(Once, script, key=itself)

    assert out == [
        record("a", at=4),
        side(LATE, "a", at=5),
        record(("a", 2), at=20),
        watermark(20),
        record(("a", 2), at=50),
        END,
    ]


async def test_at_the_end_all_event_time_timers_fire() -> None:
    out = await drive(Once, [record("a"), END], key=itself)

    assert out == [record("a"), record(("a", 1), at=20), END]


async def test_without_an_end_nothing_more_happens() -> None:
    assert await drive(Once, [record("a")], key=itself) == [record("a")]


async def test_a_key_by_gives_records_their_keys() -> None:
    assert await drive(KeyBy(len), records("be", "not")) == [
        record("be", key=2),
        record("not", key=3),
    ]


async def test_a_strategy_makes_watermarks_of_its_own() -> None:
    strategy: WatermarkStrategy[int] = WatermarkStrategy.bounded_out_of_orderness("1ms")
    step = assign_timestamps(strategy.with_timestamps(int))

    out = await drive(step, [record(5), watermark(100), record(9), END])

    assert out == [record(5, at=5), watermark(3), record(9, at=9), watermark(7), END]


# ------------------------------------------------------------------ what can be driven


def emit_both(value: Any, ctx: Context) -> None:
    ctx.emit(value)
    ctx.emit(value)


async def emit_later(value: Any, ctx: Context) -> None:
    await checkpoint()
    emit_both(value, ctx)


def make_once() -> Once:
    return Once()


@pytest.mark.parametrize("subject", [Once, Once(), make_once, lambda: Once, [Once()]])
async def test_a_class_an_instance_or_a_factory(subject: Any) -> None:
    assert await drive(subject, [record("a")], key=itself) == [record("a")]


@pytest.mark.parametrize("subject", [emit_both, emit_later])
async def test_a_function_of_value_and_context(subject: Any) -> None:
    assert await drive(subject, records("a")) == records("a", "a")


async def test_a_line_of_steps_runs_as_one_task() -> None:
    line = [Map(str.lower), Filter(str.isalpha), KeyBy(itself), count()]

    assert await drive(line, records("A", "1", "a")) == records(("a", 1), ("a", 2))


async def test_an_instance_is_not_used_itself() -> None:
    class Grows(Operator[int, int]):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def process(self, value: int, ctx: Context) -> None:
            self.seen.append(value)
            ctx.emit(len(self.seen))

    grows = Grows()

    assert await drive(grows, records(1, 2)) == records(1, 2)
    assert await drive(grows, records(1)) == records(1)


# ------------------------------------------------------------------ snapshots


async def test_a_restart_loses_all_but_the_state() -> None:
    class Forgets(Operator[str, Any]):
        kept = ValueState(int, default=0)

        def open(self, ctx: Context) -> None:
            self.lost = 0

        def process(self, value: str, ctx: Context) -> None:
            self.lost += 1
            self.kept.set(self.kept.get() + 1)
            ctx.emit((self.kept.get(), self.lost))

    script = [record("a"), record("a"), RESTART, record("a")]

    assert await drive(Forgets, script, key=itself) == records((1, 1), (2, 2), (3, 1))


async def test_timers_and_the_watermark_outlive_a_restart() -> None:
    class Tells(Once):
        def process(self, value: str, ctx: Context) -> None:
            ctx.emit((value, ctx.watermark))
            ctx.timers.register_event_time(20)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            ctx.emit((timestamp, ctx.key))

    script = [watermark(5), record("a"), RESTART, record("b"), watermark(20)]

    assert await drive(Tells, script, key=itself) == [
        watermark(5),
        record(("a", 5)),
        record(("b", 5)),
        record((20, "a"), at=20),
        record((20, "b"), at=20),
        watermark(20),
    ]


@pytest.mark.parametrize("parallelism", [1, 2, 3])
async def test_a_snapshot_goes_on_in_another_drive_at_any_parallelism(parallelism: int) -> None:
    before = await drive(count(), [*records(*"abc"), barrier(1), *records(*"abc")], key=itself)

    after = await drive(
        count(), records(*"abc"), key=itself, restore=before.snapshots[1], parallelism=parallelism
    )

    assert before[3] == barrier(1)
    assert after == records(("a", 2), ("b", 2), ("c", 2))


async def test_a_snapshot_is_what_was_at_the_barrier_though_it_is_written_later() -> None:
    out = await drive(
        count(), [record("a"), barrier(1), record("a"), barrier(2), record("a")], key=itself
    )

    for epoch in (1, 2):
        resumed = await drive(count(), [record("a")], key=itself, restore=out.snapshots[epoch])
        assert resumed == [record(("a", epoch + 1))]


async def test_several_subtasks_have_the_keys_between_them() -> None:
    class Who(Operator[int, Any]):
        def process(self, value: int, ctx: Context) -> None:
            ctx.emit((value, ctx.subtask, ctx.parallelism))

    out: list[Any] = await drive(Who, records(*range(20)), key=itself, parallelism=2)

    assert sorted(one.value[0] for one in out) == list(range(20))
    assert {one.value[1:] for one in out} == {(0, 2), (1, 2)}


async def test_a_watermark_comes_out_once_all_subtasks_have_it() -> None:
    script = [*records(*"abcd"), watermark(20), IDLE, END]

    out = await drive(Once, script, key=itself, parallelism=3)

    assert [one for one in out if not hasattr(one, "value")] == [watermark(20), IDLE, END]
    assert out.index(watermark(20)) == 8


async def test_records_may_come_in_runs() -> None:
    assert await drive(Map(str), [*records(1, 2, 3), watermark(1)], batch=2) == [
        *records("1", "2", "3"),
        watermark(1),
    ]


# ------------------------------------------------------------------ time


async def test_a_timer_that_is_past_rings_at_once_after_a_restore() -> None:
    before = await drive(Once, [record("a"), barrier(1)], key=itself)

    after = await drive(
        Once, [], key=itself, restore=before.snapshots[1], world=manual_world(now_ms=60)
    )

    assert after == [record(("a", 1), at=50)]


async def test_an_idle_stream_rests_when_the_clock_says_so() -> None:
    strategy: WatermarkStrategy[int] = WatermarkStrategy.monotonous()
    step = assign_timestamps(strategy.with_timestamps(int).with_idleness("10ms"))

    out = await drive(step, [record(5), processing_time(9), processing_time(10)])

    assert out == [record(5, at=5), watermark(4), IDLE]


# ------------------------------------------------------------------ what cannot be


async def test_what_an_operator_raises_comes_out() -> None:
    with pytest.raises(OperatorError, match=r"ZeroDivisionError.* at the record 0"):
        await drive(Map(lambda value: 1 // value), records(0))


async def test_state_without_a_key_is_refused() -> None:
    with pytest.raises(StateError, match="put key_by before it"):
        await drive(Once, records("a"))
    with pytest.raises(ConfigError, match="keeps state for each key: pass key="):
        await drive(count(), records("a"))


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ([1], "element 0 of the script is 1: use record(...)"),
        ([END, record(1)], "nothing can follow it"),
        ([record(1, key="a"), record(2)], "record(2) has no key and others have"),
    ],
)
async def test_a_script_that_cannot_be_is_refused(script: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        await drive(Map(str), script)


@pytest.mark.parametrize("subject", [5, "map", object(), lambda value: value])
async def test_what_cannot_be_driven_is_refused(subject: Any) -> None:
    with pytest.raises(ConfigError, match="nothing that can be driven"):
        await drive(subject, [])


async def test_operators_are_closed_after_an_error_too() -> None:
    closed = []

    class Fails(Operator[int, int]):
        def process(self, value: int, ctx: Context) -> None:
            raise ValueError(value)

        def close(self) -> None:
            closed.append(self)

    with pytest.raises(OperatorError):
        await drive(Fails, records(1), parallelism=2)

    assert len(closed) == 2


# ----------------------------------------------------------------------- calls to services


async def test_calls_are_made_as_their_records_come() -> None:
    async def ask(value: int) -> int:
        return value * 10

    out = await drive([map_async(ask), Map(str)], [*records(1, 2), watermark(5), record(3), END])

    assert out == [*records("10", "20"), watermark(5), record("30"), END]


async def test_time_passes_while_calls_wait_for_it() -> None:
    world = manual_world()

    async def ask_many(values: list[int]) -> list[int]:
        return values

    step = map_async_batch(ask_many, max_size=3, max_wait="10s")

    assert await drive(step, records(1, 2), batch=2, world=world) == records(1, 2)
    assert world.clock.now_ms() == 10_000


async def test_what_a_call_raises_names_the_step_and_the_record() -> None:
    async def ask(value: int) -> int:
        raise ConnectionError("refused")

    with pytest.raises(OperatorError, match="operator 'step-1' raised ConnectionError: refused"):
        await drive(map_async(ask), records(1))


async def test_a_step_with_calls_is_the_first_of_its_task() -> None:
    async def ask(value: int) -> int:
        return value

    with pytest.raises(ConfigError, match="map_async begins a task of its own"):
        await drive([Map(str), map_async(ask)], records(1))
