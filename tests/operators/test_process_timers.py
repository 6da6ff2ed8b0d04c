"""process with timers and side outputs: in event time and in processing time."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.state import ListState, ValueState
from flowrt.operators.process import process
from flowrt.testing import END, check_operator, processing_time, record, side, watermark

pytestmark = pytest.mark.anyio

LATE: OutputTag[str] = OutputTag("late")


def itself(value: Any) -> Any:
    return value


class TenMilliseconds(Operator[str, Any]):
    """Counts a key's records in each ten ms of event time: a window, by hand."""

    counts = ValueState(dict[int, int])

    def process(self, value: str, ctx: Context) -> None:
        assert ctx.timestamp is not None
        end = ctx.timestamp // 10 * 10 + 9
        if end <= ctx.watermark:
            ctx.side(LATE, value)
            return
        counts = self.counts.get() or {}
        counts[end] = counts.get(end, 0) + 1
        self.counts.set(counts)
        ctx.timers.register_event_time(end)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        counts = self.counts.get() or {}
        ctx.emit((ctx.key, counts.pop(timestamp)))
        if counts:
            self.counts.set(counts)
        else:
            self.counts.clear()


async def test_event_time() -> None:
    given = [
        record("a", at=3),
        record("b", at=5),
        record("a", at=12),
        record("a", at=7),
        watermark(9),
        record("b", at=8),
        record("b", at=19),
        watermark(12),
        END,
    ]

    expect = [
        record(("a", 2), at=9),
        record(("b", 1), at=9),
        watermark(9),
        side(LATE, "b", at=8),
        watermark(12),
        record(("a", 1), at=19),
        record(("b", 1), at=19),
        END,
    ]

    await check_operator(process(TenMilliseconds), given, expect, key=itself)


class Quiet(Operator[str, Any]):
    """Emits what a key brought once it has been quiet for 100 ms."""

    words = ListState(str)
    alarm = ValueState(int)

    async def process(self, value: str, ctx: Context) -> None:
        set_before = self.alarm.get()
        if set_before is not None:
            ctx.timers.delete_processing_time(set_before)
        due = ctx.world.clock.now_ms() + 100
        self.alarm.set(due)
        self.words.add(value)
        ctx.timers.register_processing_time(due)

    async def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit("".join(self.words))
        self.words.clear()
        self.alarm.clear()


async def test_processing_time() -> None:
    given = [
        record("a1"),
        processing_time(50),
        record("b1"),
        record("a2"),
        processing_time(120),
        record("a3"),
        processing_time(150),
        watermark(5),
        processing_time(400),
        END,
    ]

    expect = [record("b1", at=150), watermark(5), record("a1a2a3", at=220), END]

    await check_operator(process(Quiet), given, expect, key=lambda word: word[0])


class Chained(Operator[int, Any]):
    """A timer that sets the next, until there were three."""

    def process(self, value: int, ctx: Context) -> None:
        ctx.timers.register_event_time(value)
        ctx.timers.register_event_time(value)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit(ctx.key)
        if timestamp % 10 < 3:
            ctx.timers.register_event_time(timestamp + 1)


async def test_timers_that_set_timers_come_in_order_of_time() -> None:
    given = [record(1), record(11), watermark(2), record(21), watermark(12), END]

    expect = [
        record(1, at=1),
        record(1, at=2),
        watermark(2),
        record(1, at=3),
        record(11, at=11),
        record(11, at=12),
        watermark(12),
        record(11, at=13),
        record(21, at=21),
        record(21, at=22),
        record(21, at=23),
        END,
    ]

    await check_operator(process(Chained), given, expect, key=itself)


class Sides(Operator[int, int]):
    def process(self, value: int, ctx: Context) -> None:
        tag: OutputTag[int] = OutputTag("odd" if value % 2 else "even")
        ctx.side(tag, value)
        if value > 2:
            ctx.emit(value, timestamp=value)
            ctx.side(tag, -value, timestamp=7)


async def test_side_outputs() -> None:
    given = [record(1, at=3), record(2), watermark(5), record(3, at=9), END]

    expect = [
        side("odd", 1, at=3),
        side("even", 2),
        watermark(5),
        record(3, at=3),
        side("odd", 3, at=9),
        side("odd", -3, at=7),
        END,
    ]

    await check_operator(process(Sides), given, expect)
