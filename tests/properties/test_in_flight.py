"""Records in flight against a plain model: nothing lost, nothing past a mark, order where due."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import Idle, Records, Watermark
from flowrt.dataflow.tasks.in_flight import Call, Failed, InFlight, Mark

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4)),
        st.tuples(st.just("watermark"), st.integers(0, 3)),
        st.just(("idle", 0)),
        st.just(("begin", 0)),
        st.tuples(st.just("finish"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.just(("take", 0)),
    ),
    min_size=10,
    max_size=60,
)


class Run:
    """Drives an `InFlight` and notes what went in and what came out."""

    def __init__(self, ordered: bool, limit: int = 1_000) -> None:
        self.limit = limit
        self.flight = InFlight(ordered=ordered, limit=limit)
        self.calls: list[Call] = []
        self.came: list[int | Mark] = []
        self.left: list[int | Mark] = []
        self.numbers = 0
        self.time = 0

    def step(self, what: str, amount: int) -> None:
        match what:
            case "add":
                values: list[Any] = list(range(self.numbers, self.numbers + amount))
                self.numbers += amount
                self.came += values
                self.flight.add(Records(values, [value * 10 for value in values]))
            case "watermark":
                self.time += amount
                self.came.append(Watermark(self.time))
                self.flight.mark(Watermark(self.time))
            case "idle":
                self.came.append(Idle())
                self.flight.mark(Idle())
            case "begin":
                call = self.flight.next()
                if call is not None:
                    self.calls.append(call)
            case "finish" if self.calls:
                call = self.calls.pop(amount % len(self.calls))
                self.flight.finish(call, call.value)
            case "fail" if self.calls:
                call = self.calls.pop(amount % len(self.calls))
                self.flight.fail(call, ValueError(call.value))
            case "take":
                self.take()

    def take(self) -> None:
        for one in self.flight.take():
            if isinstance(one, Records):
                assert one.timestamps == [value * 10 for value in one.values]
                self.left += one.values
            elif isinstance(one, Failed):
                assert str(one.error) == str(one.call.value)
                self.left.append(one.call.value)
            else:
                self.left.append(one)

    def end(self, chance: random.Random) -> None:
        while self.flight.size:
            while (call := self.flight.next()) is not None:
                self.calls.append(call)
            chance.shuffle(self.calls)
            while self.calls:
                call = self.calls.pop()
                self.flight.finish(call, call.value)
            self.take()
        self.take()


def segments(story: list[int | Mark]) -> list[tuple[list[int], Mark | None]]:
    """The records between marks, with the last mark behind them; records in a fixed order."""
    found: list[tuple[list[int], Mark | None]] = []
    records: list[int] = []
    for one in [*story, None]:
        if isinstance(one, int):
            records.append(one)
        elif records or not found:
            found.append((sorted(records), one))
            records = []
        elif one is not None:
            found[-1] = (found[-1][0], one)
    return found


@given(STEPS, st.booleans(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_all_leaves_once_and_no_record_passes_a_mark(
    steps: list[tuple[str, int]], ordered: bool, limit: int, chance: random.Random
) -> None:
    run = Run(ordered, limit)
    for what, amount in steps:
        run.step(what, amount)
        may_begin, waiting = run.flight.may_begin, run.flight.waiting
        assert 0 <= may_begin <= waiting
        assert run.flight.size - waiting + may_begin <= limit
    run.end(chance)

    assert segments(run.left) == segments(run.came)
    assert run.flight.size == 0
    assert list(run.flight.entries()) == []
    if ordered:
        numbers = [one for one in run.left if isinstance(one, int)]
        assert numbers == sorted(numbers)


@given(STEPS, st.booleans())
def test_what_has_not_left_is_in_the_snapshot_in_order(
    steps: list[tuple[str, int]], ordered: bool
) -> None:
    run = Run(ordered)
    for what, amount in steps:
        run.step(what, amount)
    rest = [one.value if isinstance(one, Call) else one for one in run.flight.entries()]

    assert segments([*run.left, *rest]) == segments(run.came)
    assert run.flight.size == sum(isinstance(one, int) for one in rest)


@given(STEPS, st.booleans())
def test_what_is_ready_leaves_at_once(steps: list[tuple[str, int]], ordered: bool) -> None:
    run = Run(ordered)
    for what, amount in steps:
        run.step(what, amount)
        ready, before = run.flight.ready, len(run.left)
        run.take()
        assert (len(run.left) > before) is ready
        assert not run.flight.ready


@given(st.lists(st.sampled_from(["watermark", "idle"])), st.booleans())
def test_marks_do_not_pile_up_behind_a_call_that_hangs(marks: list[str], ordered: bool) -> None:
    run = Run(ordered)
    run.step("add", 1)
    run.step("begin", 0)
    for mark in marks:
        run.step(mark, 1)

    assert len(list(run.flight.entries())) <= 3
