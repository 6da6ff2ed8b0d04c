"""The function that is written for a line of steps."""

from __future__ import annotations

import functools
import linecache
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from flowrt.contract.elements import Records
from flowrt.contract.operator import Context, OutputTag
from flowrt.contract.steps import AssignTimestamps, Filter, FlatMap, Fold, KeyBy, Map, Step
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.chains.fuse import fuse
from flowrt.dataflow.chains.part import Part, is_coroutine
from flowrt.dataflow.channels.run_length import RUN_LIMIT
from flowrt.state.memory import MemoryBackend
from tests.dataflow.kit import Collected, chain_of, emit_twice, process, record, setup, side

pytestmark = pytest.mark.anyio


def is_even(value: int) -> bool:
    return value % 2 == 0


async def slowly(value: Any) -> Any:
    await checkpoint()
    return value


async def through(steps: list[Any], *runs: Records) -> Collected:
    """Send runs through steps."""
    out = Collected()
    chain = chain_of(out, *steps)
    await chain.open()
    for run in runs:
        await chain.run(run)
    return out


# ------------------------------------------------------------------------------- each step


async def test_map_filter_flat_map() -> None:
    steps = [Map(lambda v: v + 1), Filter(is_even), FlatMap(lambda v: [v] * v), Map(str)]
    out = await through(steps, Records([1, 2, 3]))
    assert out.values == ["2", "2", "4", "4", "4", "4"]
    assert out.runs == [6]


async def test_timestamps_stay_with_their_records() -> None:
    steps = [Filter(is_even), FlatMap(lambda v: [v, v + 1]), Map(lambda v: -v)]
    out = await through(steps, Records([1, 2, 4], [10, None, 40]))
    assert out.story == [record(-2), record(-3), record(-4, 40), record(-5, 40)]


async def test_timestamps_of_a_run_that_keeps_its_length_are_passed_on_as_they_are() -> None:
    times: list[int | None] = [10, 20]
    out = Collected()
    seen = []

    async def emit(records: Records) -> None:
        seen.append(records.timestamps)
        await Collected.emit(out, records)

    out.emit = emit  # type: ignore[method-assign]
    await chain_of(out, Map(str), Map(str)).run(Records([1, 2], times))
    assert seen[0] is times


async def test_key_by_at_the_end_gives_the_keys_away() -> None:
    out = await through([KeyBy(is_even), Map(str), KeyBy(len)], Records([1, 10], [5, 6]))
    assert out.story == [record("1", 5, 1), record("10", 6, 2)]


async def test_keys_end_with_the_step_that_used_them() -> None:
    out = await through([KeyBy(is_even), Map(str)], Records([1]))
    assert out.story == [record("1")]


async def test_a_fold_runs_on_for_each_key() -> None:
    steps = [KeyBy(is_even), Fold(first=lambda v: [v], add=lambda a, v: [*a, v])]
    out = await through(steps, Records([1, 2, 3]), Records([4]))
    assert out.values == [
        (False, [1]),
        (True, [2]),
        (False, [1, 3]),
        (True, [2, 4]),
    ]


async def test_a_fold_of_keys_that_come_with_the_run() -> None:
    steps = [Fold(first=lambda v: v, add=lambda a, v: a + v, result=str, type=int)]
    out = await through(steps, Records([1, 2, 3], [10, 20, 30], ["a", "b", "a"]))
    assert out.story == [
        record(("a", "1"), 10),
        record(("b", "2"), 20),
        record(("a", "4"), 30),
    ]


async def test_a_fold_that_changes_its_kind_of_value_goes_on() -> None:
    steps = [KeyBy(lambda v: 0), Fold(first=lambda v: v, add=lambda a, v: [a, v])]
    out = await through(steps, Records([1, 2, 3]))
    assert out.values == [(0, 1), (0, [1, 2]), (0, [[1, 2], 3])]


async def test_what_a_fold_sends_is_what_it_stores_hot_or_cold() -> None:
    """An int where a float is declared is stored as a float: so it is sent, after a restore too."""
    steps = [KeyBy(lambda v: 0), Fold(first=lambda v: v, add=lambda a, v: 7, type=float)]
    out = await through(steps, Records([1, 2, 3]))
    assert [repr(value) for _, value in out.values] == ["1.0", "7.0", "7.0"]


async def test_a_fold_sees_what_was_frozen() -> None:
    backend = MemoryBackend("fold")
    counted = setup("fold", Fold(lambda v: 1, lambda a, v: a + 1), backend=backend)
    out = Collected()
    chain = chain_of(out, KeyBy(lambda v: v), counted)
    for _ in range(3):
        await chain.run(Records(["a", "b"]))
        frozen = backend.freeze()
        assert frozen is not None
        for _ in frozen.encode():
            pass
    assert out.values[-2:] == [("a", 3), ("b", 3)]


async def test_process_emits_what_it_likes_at_the_times_it_likes() -> None:
    out = await through([process(emit_twice), Map(str)], Records([1, 2], [10, 20]))
    assert out.story == [record("1", 10), record("1", 7), record("2", 20), record("2", 7)]


async def test_a_processed_value_of_a_flat_map_has_the_time_of_its_record() -> None:
    """What the first value made of the time must not be seen by the second."""
    steps = [FlatMap(lambda v: [v, -v]), process(emit_twice)]
    out = await through(steps, Records([1], [10]))
    assert out.story == [record(1, 10), record(1, 7), record(-1, 10), record(-1, 7)]


async def test_process_knows_key_and_time_of_its_record() -> None:
    def tell(value: Any, ctx: Context) -> None:
        ctx.emit((ctx.key, ctx.timestamp))

    steps = [FlatMap(lambda v: [v, v + 1]), KeyBy(str), setup("tell", process(tell), keyed=True)]
    out = await through(steps, Records([1, 5], [10, None]))
    assert out.values == [("1", 10), ("2", 10), ("5", None), ("6", None)]


async def test_several_processes_in_a_line() -> None:
    out = await through([process(emit_twice), process(emit_twice)], Records([1], [10]))
    assert out.story == [record(1, 10), record(1, 7), record(1, 7), record(1, 7)]


async def test_side_outputs_come_before_what_is_sent_on_and_nothing_where_nobody_takes_them() -> (
    None
):
    def split(value: int, ctx: Context) -> None:
        ctx.side(OutputTag("odd" if value % 2 else "even"), value)
        ctx.emit(value)

    step = setup("split", process(split), taken_tags=frozenset({"odd"}))
    out = Collected()
    chain = chain_of(out, step)
    await chain.run(Records([1, 2, 3], [10, 20, 30]))
    assert out.story == [
        side("odd", 1, 10),
        side("odd", 3, 30),
        record(1, 10),
        record(2, 20),
        record(3, 30),
    ]
    assert chain.dropped() == {"split.even": 1}


async def test_a_line_without_steps_passes_on() -> None:
    records = Records([1], [10], ["k"])
    out = await through([], records)
    assert out.story == [record(1, 10, "k")]


async def test_a_line_that_keeps_nothing_sends_nothing() -> None:
    out = await through([Filter(lambda v: False)], Records([1]))
    assert out.runs == []


def test_a_step_with_a_line_of_its_own_cannot_be_fused() -> None:
    step = AssignTimestamps(WatermarkStrategy.monotonous())
    with pytest.raises(TypeError, match="a AssignTimestamps cannot be fused"):
        fuse([Part("times", step)], Collected().emit, timestamps=False, keys=False)


# ------------------------------------------------------------------------------- waiting


class CallMe:
    async def __call__(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize(
    ("fn", "waits"),
    [
        (slowly, True),
        (functools.partial(slowly), True),
        (CallMe(), True),
        (CallMe, False),
        (str, False),
        (len, False),
        (lambda v: v, False),
        (functools.partial(is_even), False),
    ],
)
def test_what_waits_is_known_beforehand(fn: Callable[..., Any], waits: bool) -> None:
    assert is_coroutine(fn) is waits


async def test_coroutine_functions_are_awaited_in_order() -> None:
    async def twice(value: int) -> Any:
        await checkpoint()
        return [value, value]

    async def keep(value: int) -> bool:
        return value != 2

    out = await through(
        [Map(slowly), Filter(keep), FlatMap(twice)], Records([1, 2, 3], [10, 20, 30])
    )
    assert out.story == [record(1, 10), record(1, 10), record(3, 30), record(3, 30)]


async def test_what_is_ready_is_not_held_back_by_a_call_that_waits() -> None:
    out = Collected()
    seen: list[list[Any]] = []

    async def look(value: int) -> int:
        seen.append(out.values)
        return value

    await chain_of(out, Map(look), Map(str)).run(Records([1, 2, 3]))
    assert seen == [[], ["1"], ["1", "2"]]


async def test_a_coroutine_process_and_a_plain_one_that_returns_something_to_await() -> None:
    async def wait(value: int, ctx: Context) -> None:
        await checkpoint()
        ctx.emit(value)

    out = await through([process(wait), process(lambda v, ctx: wait(-v, ctx))], Records([1, 2]))
    assert out.values == [-1, -2]


async def test_what_else_a_plain_process_returns_is_of_no_interest() -> None:
    def returns(value: int, ctx: Context) -> Any:
        ctx.emit(value)
        return value

    assert (await through([process(returns)], Records([1]))).values == [1]


# ------------------------------------------------------------------------------- bounds


async def test_many_results_of_one_record_leave_in_short_runs() -> None:
    out = await through([FlatMap(lambda v: range(1_000_000))], Records([1], [10]))
    assert max(out.runs) == RUN_LIMIT
    assert sum(out.runs) == 1_000_000


async def test_many_emissions_of_one_record_leave_in_short_runs() -> None:
    def many(value: int, ctx: Context) -> None:
        for n in range(value):
            ctx.emit(n)
            ctx.side(OutputTag("t"), n)

    step = setup("many", process(many), taken_tags=frozenset({"t"}))
    out = await through([step], Records([5_000]))
    assert max(out.runs) == RUN_LIMIT
    assert out.values == [*range(5_000)]
    assert [entry for entry in out.story if entry[0] == "side t"] == [
        side("t", n) for n in range(5_000)
    ]


# ------------------------------------------------------------------------------- tracebacks


async def test_a_traceback_shows_the_line_that_was_written() -> None:
    def fails(value: Any) -> Any:
        raise ValueError("no")

    parts = [Part("first", Map(str)), Part("second", Map(fails))]
    line = fuse(parts, Collected().emit, timestamps=False, keys=False)
    with pytest.raises(ValueError, match="no") as raised:
        await line.run([1], None, None)
    text = "".join(traceback.format_exception(raised.value))
    assert "<flowrt first+second" in text
    assert "v = f1(v)" in text


def test_the_same_line_written_twice_is_kept_once() -> None:
    def count() -> int:
        return sum(name.startswith("<flowrt again") for name in linecache.cache)

    steps: list[Step] = [Map(str), Map(len)]
    for _ in range(5):
        for step in steps:
            fuse([Part("again", step)], Collected().emit, timestamps=False, keys=False)
    assert count() == 1
    fuse([Part("again", Map(str))], Collected().emit, timestamps=True, keys=False)
    assert count() <= 2
