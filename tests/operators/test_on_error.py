"""The laws of operators, where records fail and are passed over."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.on_error import DeadLetter, OnError
from flowrt.contract.operator import Context, CoOperator, Operator, OutputTag
from flowrt.contract.retry import FixedDelay
from flowrt.contract.state import BroadcastState, ListState, MapState, ValueState
from flowrt.operators.aggregate import aggregate
from flowrt.operators.connect import connect_map
from flowrt.operators.filter import filter as filter_step
from flowrt.operators.flat_map import flat_map
from flowrt.operators.key_by import key_by
from flowrt.operators.map import map as map_step
from flowrt.operators.map_async import map_async
from flowrt.operators.process import process
from flowrt.operators.reduce import reduce
from flowrt.operators.static_join import join_static
from flowrt.operators.sum import sum as sum_step
from flowrt.testing import END, LawBroken, check_operator, drive, left, record, right, watermark

pytestmark = pytest.mark.anyio

SKIP = OnError.skip()
RETRY = OnError.retry(FixedDelay("1s", attempts=2), then=SKIP)


def inverse(value: int) -> float:
    return 6 / value


async def asked(value: int) -> float:
    return 6 / value


def halves(value: int) -> Any:
    yield value
    yield 6 // value


GIVEN = [record(1, at=1), record(0, at=2), record(2, at=3), watermark(3), record(0), record(3)]
INVERSE = [record(6, at=1), record(3, at=3), watermark(3), record(2)]


@pytest.mark.parametrize("policy", [SKIP, RETRY])
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (map_step(inverse), INVERSE),
        (map_step(asked), INVERSE),
        (map_async(asked, capacity=2), INVERSE),
        (
            filter_step(lambda v: 1 / v),
            [record(1, at=1), record(2, at=3), watermark(3), record(3)],
        ),
        (
            flat_map(halves),
            [
                *(record(1, at=1), record(6, at=1), record(2, at=3), record(3, at=3)),
                *(watermark(3), record(3), record(2)),
            ],
        ),
        (
            join_static({1: 6, 0: 0, 2: 1, 3: 2}, on=lambda v: v, merge=lambda v, row: v // row),
            [record(0, at=1), record(2, at=3), watermark(3), record(1)],
        ),
        ([key_by(inverse), sum_step()], [record((6, 1), at=1), record((3, 2), at=3)]),
    ],
)
async def test_steps_without_keys_keep_the_laws(step: Any, expected: Any, policy: OnError) -> None:
    if isinstance(step, list):
        expected = [*expected, watermark(3), record((2, 3))]

    await check_operator(step, GIVEN, expected, on_error=policy)


@pytest.mark.parametrize("policy", [SKIP, RETRY])
@pytest.mark.parametrize(
    ("step", "figures"),
    [
        (sum_step(inverse), [6, 3, 9, 5]),
        (reduce(lambda a, b: a + 6 // b), [1, 2, 4, 4]),
        (aggregate(list, lambda a, v: [*a, 6 // v], len), [1, 1, 2, 2]),
    ],
)
async def test_folds_keep_the_laws(step: Any, figures: list[Any], policy: OnError) -> None:
    given = [record(1, key="a"), record(0, key="a"), record(2, key="b"), record(0, key="b")]
    given += [record(2, key="a"), record(3, key="b")]
    keys = ["a", "b", "a", "b"]

    await check_operator(
        step,
        given,
        [record((key, figure)) for key, figure in zip(keys, figures, strict=True)],
        on_error=policy,
    )


class Everything(Operator[int, Any]):
    """Writes to all there is, and fails at negative values, and at the timers of ten and more."""

    count = ValueState(int, default=0)
    seen = ListState(int)
    named = MapState(int, int)

    def process(self, value: int, ctx: Context) -> None:
        self.count.set(self.count.get() + 1)
        self.seen.add(value)
        self.named.put(abs(value), self.count.get())
        ctx.timers.register_event_time(abs(value))
        ctx.emit((value, self.count.get(), self.seen.get(), list(self.named.items())))
        if value < 0:
            self.named.remove(1)
            ctx.timers.delete_event_time(5)
            raise ValueError(value)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        self.seen.clear()
        ctx.emit(("timer", timestamp))
        if timestamp >= 10:
            raise ValueError(timestamp)


@pytest.mark.parametrize("policy", [SKIP, RETRY])
async def test_an_operator_with_state_and_timers_keeps_the_laws(policy: OnError) -> None:
    await check_operator(
        Everything,
        [record(1), record(-7), record(5), record(-1), watermark(4), record(12), watermark(20)],
        [
            record((1, 1, [1], [(1, 1)])),
            record((5, 2, [1, 5], [(1, 1), (5, 2)])),
            record(("timer", 1), at=1),
            watermark(4),
            record((12, 3, [12], [(1, 1), (5, 2), (12, 3)])),
            record(("timer", 5), at=5),
            watermark(20),
        ],
        key=lambda value: "k",
        on_error=policy,
    )


class Rules(CoOperator[int, int, Any]):
    """Keeps what the broadcast side says, and fails at negative values of either side."""

    rules = BroadcastState(int, int)

    def process_left(self, value: int, ctx: Context) -> None:
        ctx.emit((value, sorted(self.rules.keys())))
        if value < 0:
            raise ValueError

    def process_right(self, value: int, ctx: Context) -> None:
        self.rules.put(abs(value), value)
        if value < 0:
            raise ValueError


async def test_broadcast_state_keeps_the_laws() -> None:
    await check_operator(
        Rules,
        [left(1), right(3), right(-4), left(2), left(-2), END],
        [record((1, [])), record((2, [3])), END],
        key=lambda value: value,
        on_error=SKIP,
    )


async def test_connected_functions_keep_the_laws() -> None:
    await check_operator(
        connect_map(inverse, inverse),
        [left(1), right(2), left(0), right(0), left(3)],
        [record(6.0), record(3.0), record(2.0)],
        on_error=SKIP,
    )


async def test_state_beside_handles_breaks_the_law() -> None:
    class Leaks(Operator[int, int]):
        total = 0

        def process(self, value: int, ctx: Context) -> None:
            self.total += abs(value)
            if value < 0:
                raise ValueError
            ctx.emit(self.total)

        def snapshot(self) -> int:
            return self.total

        def restore(self, data: list[int]) -> None:
            self.total = sum(data)

    with pytest.raises(LawBroken, match="a record that the operator fails at leaves no trace"):
        await check_operator(
            Leaks, [record(1), record(-5), record(1)], [record(1), record(7)], on_error=SKIP
        )


async def test_drive_gives_letters_as_side_outputs() -> None:
    bad = OutputTag[DeadLetter]("bad")
    policy = OnError.retry(FixedDelay("1m", attempts=2), then=OnError.dead_letter(bad))

    def first(value: int, ctx: Context) -> None:
        ctx.emit(6 / value)

    out = await drive(process(first), [record(0, at=4), record(3)], on_error=policy)

    letter = out[0].value
    assert (letter.value, letter.attempts, letter.timestamp) == (0, 3, 4)
    assert out[1:] == [record(2.0)]
