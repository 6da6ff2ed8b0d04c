"""check_operator: an operator that breaks a law is found, and told which law and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from threading import Lock
from typing import Any

import pytest

from flowrt.contract.elements import Records
from flowrt.contract.errors import OperatorError
from flowrt.contract.on_error import OnError
from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.retry import FixedDelay
from flowrt.contract.snapshot import Block, Frozen
from flowrt.contract.state import ListState, ValueState
from flowrt.contract.steps import AssignTimestamps, FlatMap, Fold, KeyBy, Map
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.chains.chain import Chain, Cut
from flowrt.operators.map_async import map_async
from flowrt.testing import END, LawBroken, check_operator, record, records, side, watermark
from flowrt.testing.asking import Asking

pytestmark = pytest.mark.anyio

TAG: OutputTag[Any] = OutputTag("other")


def itself(value: Any) -> Any:
    return value


async def broken(make: Any, given: list[Any], expect: list[Any], **options: Any) -> LawBroken:
    with pytest.raises(LawBroken) as caught:
        await check_operator(make, given, expect, **options)
    return caught.value


async def test_a_lawful_operator_passes() -> None:
    class Total(Operator[int, int]):
        total = ValueState(int, default=0)

        def process(self, value: int, ctx: Context) -> None:
            self.total.set(self.total.get() + value)
            ctx.timers.register_event_time(100)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            ctx.emit((ctx.key, self.total.get()))

    given = [record(1, at=1), record(2, at=2), record(3, at=50), watermark(60), record(4), END]
    expect = [watermark(60), record((1, 4), at=100), record((0, 6), at=100), END]

    await check_operator(Total, given, expect, key=lambda value: value % 2)


async def test_another_result_is_shown_as_a_difference() -> None:
    error = await broken(Map(str), [record(1), watermark(5), END], [record("2"), watermark(5), END])

    assert error.law == "the script gives what is expected"
    assert str(error).splitlines()[2:] == [
        "  expected (-), got (+):",
        "  - record('2')",
        "  + record('1')",
        "    watermark(5)",
        "    END",
    ]


async def test_what_the_operator_raises_as_written_is_not_disguised() -> None:
    with pytest.raises(OperatorError):
        await check_operator(Map(lambda value: 1 // value), records(0), [])


def in_cents(order: dict[str, int]) -> dict[str, int]:
    order["amount"] *= 100
    if order["amount"] == 200:
        raise ValueError("two")
    return order


@pytest.mark.parametrize("amount", [1, 2])
@pytest.mark.parametrize(
    "policy",
    [OnError.skip(), OnError.retry(FixedDelay("1ms", attempts=1), then=OnError.skip())],
    ids=OnError.describe,
)
async def test_a_value_that_was_changed_in_place_is_found(amount: int, policy: OnError) -> None:
    error = await broken(Map(in_cents), [record({"amount": amount}, at=3)], [], on_error=policy)

    assert error.law == "an operator leaves what it is given as it was"
    assert error.where == f"at record({{'amount': {amount}}}, at=3), element 1 of 1"
    assert "handed on and not copied, so make a new value" in str(error)


async def test_a_call_that_changes_its_value_is_found() -> None:
    async def ask(order: dict[str, int]) -> dict[str, int]:
        return in_cents(order)

    error = await broken(map_async(ask), [record({"amount": 1})], [record({"amount": 100})])

    assert error.law == "an operator leaves what it is given as it was"


async def test_values_that_no_copy_is_equal_to_are_let_pass() -> None:
    class Locked:
        def __init__(self) -> None:
            self.lock = Lock()

    class Vague:
        def __eq__(self, other: object) -> bool:
            raise ValueError("yes and no")

        __hash__ = None  # type: ignore[assignment]

    for value in (Locked(), Vague(), object(), [float("nan")]):
        await check_operator(Map(lambda _: 1), records(value), records(1))


async def test_memory_outside_of_state_is_found_at_its_first_cut() -> None:
    class Counts(Operator[Any, int]):
        def open(self, ctx: Context) -> None:
            self.count = 0

        def process(self, value: Any, ctx: Context) -> None:
            self.count += 1
            ctx.emit(self.count)

    error = await broken(Counts, records("a", "b", "c"), records(1, 2, 3))

    assert "goes on from a snapshot as the old one would" in error.law
    assert error.where == "restarted after record('a'), element 1 of 3"


async def test_a_snapshot_that_is_not_restored_is_found() -> None:
    class Counts(Operator[Any, int]):
        def __init__(self) -> None:
            self.count = 0

        def process(self, value: Any, ctx: Context) -> None:
            self.count += 1
            ctx.emit(self.count)

        def snapshot(self) -> Any:
            return self.count

    assert "goes on from a snapshot" in (await broken(Counts, records(1, 2), records(1, 2))).law


async def test_a_snapshot_that_changes_afterwards_is_found() -> None:
    class Shares(Operator[Any, int]):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def process(self, value: Any, ctx: Context) -> None:
            self.seen.append(value)
            ctx.emit(len(self.seen))

        def snapshot(self) -> Any:
            return self.seen

        def restore(self, data: list[Any]) -> None:
            self.seen = data[0]

    error = await broken(Shares, records("a", "b"), records(1, 2))

    assert error.law == "what snapshot() returned does not change afterwards"
    assert "it was [] and became ['a']: return a copy" in str(error)


async def test_a_snapshot_that_changes_the_operator_is_found() -> None:
    class Flushes(Operator[Any, Any]):
        def __init__(self) -> None:
            self.held: list[Any] = []

        def process(self, value: Any, ctx: Context) -> None:
            self.held.append(value)
            if len(self.held) == 2:
                ctx.emit(self.held)
                self.held = []

        def snapshot(self) -> Any:
            held, self.held = self.held, []
            return held

        def restore(self, data: list[Any]) -> None:
            self.held = data[0]

    error = await broken(Flushes, records(1, 2), records([1, 2]))

    assert error.law == "a snapshot changes nothing"


async def test_what_a_snapshot_cannot_keep_is_found() -> None:
    class Odd(Operator[Any, Any]):
        def process(self, value: Any, ctx: Context) -> None:
            ctx.emit(value)

        def snapshot(self) -> Any:
            return object()

    assert "which a snapshot cannot keep" in str(await broken(Odd, records(1), records(1)))


async def test_keys_that_meet_in_one_instance_only_are_found() -> None:
    class CountsAll(Operator[Any, int]):
        def __init__(self) -> None:
            self.count = 0

        def process(self, value: Any, ctx: Context) -> None:
            self.count += 1
            ctx.emit(self.count)

        def snapshot(self) -> Any:
            return self.count

        def restore(self, data: list[Any]) -> None:
            self.count = data[0]

    letters = list("abcdefgh")
    error = await broken(CountsAll, records(*letters), records(*range(1, 9)), key=itself)

    assert error.law == "several instances share the keys and give together what one gives"
    assert error.where.startswith("2 instances, at record(")


async def test_a_value_changed_in_place_but_not_stored_is_found() -> None:
    class Grows(Operator[Any, Any]):
        seen = ListState(str)

        def process(self, value: str, ctx: Context) -> None:
            self.cache = getattr(self, "cache", [])
            self.cache.append(value)
            ctx.emit("".join(self.cache))

    error = await broken(Grows, records("a", "a"), records("a", "aa"), key=itself)

    assert "goes on from a snapshot" in error.law


async def test_watermarks_that_depend_on_how_records_come_are_found() -> None:
    class CountsRuns:
        def __init__(self) -> None:
            self.runs = 0

        def observe(self, timestamps: Sequence[int]) -> None:
            self.runs += 1

        def watermark(self) -> int:
            return self.runs

        def snapshot(self) -> Any:
            return self.runs

        def restore(self, data: Any) -> None:
            self.runs = data

    strategy: WatermarkStrategy[int] = WatermarkStrategy.custom(CountsRuns)
    step = AssignTimestamps(strategy.with_timestamps(int))
    expect = [record(7, at=7), watermark(1), record(8, at=8), watermark(2)]

    error = await broken(step, records(7, 8), expect)

    assert error.law == "records that come together give what they give one by one"
    assert error.where == "records in runs of up to 2"


async def test_an_error_in_a_variant_says_in_which() -> None:
    class CannotRestore(Operator[Any, Any]):
        def process(self, value: Any, ctx: Context) -> None:
            ctx.emit(value)

        def snapshot(self) -> Any:
            return 1

        def restore(self, data: list[Any]) -> None:
            raise ValueError("no")

    error = await broken(CannotRestore, records(1), records(1))

    assert error.where == "restarted before the first element"
    assert "ValueError: no" in str(error)
    assert error.__cause__ is not None


async def test_the_order_may_be_left_open_between_two_watermarks() -> None:
    given, swapped = [*records(1, 2), watermark(5)], [*records(2, 1), watermark(5)]

    await check_operator(Map(itself), given, swapped, ordered=False)
    moved = await broken(Map(itself), given, [record(1), watermark(5), record(2)], ordered=False)
    assert moved.law == "the script gives what is expected"
    assert (await broken(Map(itself), given, swapped)).law == moved.law


async def test_main_and_side_output_are_compared_apart() -> None:
    def both(value: int, ctx: Context) -> None:
        ctx.emit(value)
        ctx.side(TAG, value)

    given = [*records(1, 2), watermark(5)]
    await check_operator(
        both, given, [record(1), record(2), side(TAG, 1), side(TAG, 2), watermark(5)]
    )

    late = [record(1), record(2), side(TAG, 1), watermark(5), side(TAG, 2)]
    assert (await broken(both, given, late)).law == "the script gives what is expected"


async def test_an_operator_that_minds_watermarks_gets_none_put_in() -> None:
    class Tells(Operator[Any, Any]):
        def process(self, value: Any, ctx: Context) -> None:
            ctx.emit(value)

        def on_watermark(self, watermark: int, ctx: Context) -> None:
            ctx.emit("watermark")

    given = [record(1), watermark(5)]

    await check_operator(Tells, given, [record(1), record("watermark"), watermark(5)])


async def test_an_operator_that_sees_watermarks_where_there_were_none_is_found() -> None:
    def seen(value: Any, ctx: Context) -> None:
        ctx.emit(ctx.watermark > -(2**63))

    error = await broken(seen, [record(1), END], [record(False), END])

    assert error.law == "a watermark stays in its place among the records"
    assert error.where == "a watermark put in before the first element"


async def test_an_empty_script_is_a_case_too() -> None:
    await check_operator(Map(str), [], [])


async def test_timers_that_are_kept_by_hand_are_found() -> None:
    class Late(Operator[int, int]):
        def open(self, ctx: Context) -> None:
            self.due: list[int] = []

        def process(self, value: int, ctx: Context) -> None:
            self.due.append(value)

        def on_watermark(self, watermark: int, ctx: Context) -> None:
            for time in [time for time in self.due if time <= watermark]:
                ctx.emit(time, timestamp=time)
                self.due.remove(time)

    given = [*records(5, 9), watermark(7), END]

    error = await broken(Late, given, [record(5, at=5), watermark(7), record(9, at=9), END])

    assert error.law == "a new instance goes on from a snapshot as the old one would have"
    assert error.where == "restarted after record(5), element 1 of 4"


async def test_what_fits_only_as_many_instances_as_before_is_found() -> None:
    class ByKey(Operator[str, int]):
        """Keeps counts by key beside the state, each instance its own."""

        def __init__(self) -> None:
            self.parts: list[Any] = []
            self.counts: dict[str, int] = {}

        def restore(self, data: list[Any]) -> None:
            self.parts = data

        def open(self, ctx: Context) -> None:
            if ctx.subtask < len(self.parts):
                self.counts = self.parts[ctx.subtask]

        def process(self, value: str, ctx: Context) -> None:
            self.counts[value] = self.counts.get(value, 0) + 1
            ctx.emit(self.counts[value])

        def snapshot(self) -> Any:
            return dict(self.counts)

    letters = [*"abcdefgh"]
    error = await broken(
        ByKey, records(*letters, *letters), records(*[1] * 8, *[2] * 8), key=itself
    )

    assert error.law == "a snapshot can be restored at another parallelism"
    assert error.where.startswith("from 1 to 2 instances after record('a', key='a')")


async def test_a_function_with_a_memory_of_its_own_is_found() -> None:
    numbers = iter(range(1_000))
    step = Map(lambda value: next(numbers))

    assert (await broken(step, records("a"), records(0))).law == "a snapshot changes nothing"


async def test_a_generator_that_is_shared_by_all_records_is_found() -> None:
    shared = iter("abc")

    error = await broken(FlatMap(lambda value: shared), records(1), records("a", "b", "c"))

    assert "  - record('a')" in str(error)


async def test_an_order_that_depends_on_how_records_come_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Chain.run

    async def backwards(chain: Chain, given: Records) -> None:
        await run(chain, Records(given.values[::-1], given.timestamps, given.keys))

    monkeypatch.setattr(Chain, "run", backwards)
    error = await broken(Map(itself), records(1, 2, 3), records(1, 2, 3))

    assert error.law == "records that come together give what they give one by one"
    assert error.where == "records in runs of up to 2"


async def test_state_that_is_not_all_in_the_snapshot_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Count(Operator[Any, int]):
        count = ValueState(int, default=0)

        def process(self, value: Any, ctx: Context) -> None:
            self.count.set(self.count.get() + 1)
            ctx.emit(self.count.get())

    given, expect = records("a", "a", "a"), records(1, 2, 3)
    await check_operator(Count, given, expect, key=itself)

    class Forgetful:
        """Encodes all that was frozen, and gives nothing of it."""

        def __init__(self, frozen: Frozen) -> None:
            self.frozen = frozen
            self.is_whole = False

        def encode(self) -> Iterator[list[Block]]:
            for _ in self.frozen.encode():
                yield []

    cut, cuts = Chain.cut, count(1)

    def every_second_is_lost(chain: Chain) -> list[Cut]:
        return [
            replace(one, frozen=Forgetful(one.frozen)) if one.frozen and not next(cuts) % 2 else one
            for one in cut(chain)
        ]

    monkeypatch.setattr(Chain, "cut", every_second_is_lost)
    error = await broken(Count, given, expect, key=itself)

    assert error.law == "a new instance goes on from a snapshot as the old one would have"


# ----------------------------------------------------------------------- calls to services


async def ask(value: int) -> int:
    return value * 10


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio begins calls in any order
async def test_an_order_that_answers_need_not_have_is_found(anyio_backend: object) -> None:
    step = map_async(ask, ordered=False)

    error = await broken(step, records(1, 2), records(10, 20))

    assert error.law == "answers may come late, and a snapshot may find any records in flight"
    assert error.where == "answers come late by 1"


async def test_records_in_flight_that_a_restore_loses_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Asking, "restore", lambda *_: None)

    error = await broken(map_async(ask), records(1, 2), records(10, 20))

    assert "find any records in flight" in error.law
    assert error.where == "answers come late by 1, restarted after record(1), element 1 of 2"


async def test_calls_before_a_keyed_step() -> None:
    steps = [map_async(ask), KeyBy(lambda value: value), Fold(lambda _: 1, lambda n, _: n + 1)]

    await check_operator(
        steps, records(1, 2, 1), [record((10, 1)), record((20, 1)), record((10, 2))]
    )
