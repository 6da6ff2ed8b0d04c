"""State with a time to live in an operator: the laws hold while entries expire."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt import Context, ListState, MapState, OnError, Operator, Ttl, ValueState
from flowrt.operators.process import process
from flowrt.testing import check_operator, processing_time, record, watermark

pytestmark = pytest.mark.anyio


def itself(value: Any) -> Any:
    return value


class ByTheClock(Operator[str, Any]):
    """Tells what it knows of a word from the last 10 ms."""

    count = ValueState(int, default=0, ttl="10ms")
    times = ListState(int, ttl="10ms")

    def process(self, word: str, ctx: Context) -> None:
        self.count.set(self.count.get() + 1)
        self.times.add(self.count.get())
        ctx.emit((word, self.count.get(), self.times.get()))


async def test_by_the_clock() -> None:
    a, b = record("a"), record("b")
    given = [a, b, processing_time(6), a, processing_time(11), b, a, processing_time(30), a]
    expect = [
        record(("a", 1, [1])),
        record(("b", 1, [1])),
        record(("a", 2, [1, 2])),
        record(("b", 1, [1])),
        record(("a", 3, [2, 3])),
        record(("a", 1, [1])),
    ]

    await check_operator(process(ByTheClock), given, expect, key=itself)


class InEventTime(Operator[str, Any]):
    """Tells which letters followed a word's first one within 10 ms."""

    letters = MapState(str, int, ttl=Ttl("10ms", time="event"))

    def process(self, word: str, ctx: Context) -> None:
        assert ctx.timestamp is not None
        self.letters.put(word[1], ctx.timestamp)
        ctx.emit((word[0], sorted(self.letters.items())))


async def test_in_event_time() -> None:
    given = [
        record("ab", at=1),
        record("ac", at=5),
        watermark(11),
        record("ad", at=12),
        record("ae", at=2),
        watermark(15),
        record("bf", at=16),
        record("ag", at=17),
    ]
    expect = [
        record(("a", [("b", 1)]), at=1),
        record(("a", [("b", 1), ("c", 5)]), at=5),
        watermark(11),
        record(("a", [("c", 5), ("d", 12)]), at=12),
        record(("a", [("c", 5), ("d", 12), ("e", 2)]), at=2),
        watermark(15),
        record(("b", [("f", 16)]), at=16),
        record(("a", [("d", 12), ("e", 2), ("g", 17)]), at=17),
    ]

    await check_operator(process(InEventTime), given, expect, key=lambda word: word[0])


class Failing(ByTheClock):
    """As by the clock, and fails at some records once it has changed everything."""

    by_letter = MapState(str, int, ttl=Ttl("10ms", refresh="read"))

    def process(self, word: str, ctx: Context) -> None:
        self.by_letter.put(word, (self.by_letter.get(word) or 0) + 1)
        super().process(word[0], ctx)
        if word.endswith("!"):
            self.count.clear()
            self.times.clear()
            self.by_letter.clear()
            raise ValueError(word)
        ctx.emit(sorted(self.by_letter.items()))


async def test_a_record_that_failed_leaves_no_trace() -> None:
    a, bad = record("a"), record("a!")
    given = [bad, a, processing_time(6), bad, a, bad, processing_time(11), bad, a]
    expect = [
        record(("a", 1, [1])),
        record([("a", 1)]),
        record(("a", 2, [1, 2])),
        record([("a", 2)]),
        record(("a", 3, [2, 3])),
        record([("a", 3)]),
    ]

    await check_operator(
        process(Failing), given, expect, key=lambda word: word[0], on_error=OnError.skip()
    )
