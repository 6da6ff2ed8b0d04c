"""Steps that go on after an error: what becomes of the record, and that it leaves no trace."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from flowrt.contract.elements import Records
from flowrt.contract.errors import CheckpointError, OperatorError, StateError
from flowrt.contract.on_error import DeadLetter, OnError
from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.retry import FixedDelay, NoRestart
from flowrt.contract.state import ValueState
from flowrt.contract.steps import Filter, FlatMap, Fold, KeyBy, Map, Process, Step
from flowrt.dataflow.chains.chain import Chain
from flowrt.dataflow.chains.judge import TOLD_EVERY_NS
from flowrt.dataflow.chains.part import StepSetup
from flowrt.state.key_groups import key_group
from flowrt.testing.world import ManualClock, manual_world
from tests.dataflow.kit import Collected, chain_of, process, settle, setup

pytestmark = pytest.mark.anyio

BAD = OutputTag[DeadLetter]("bad")
SKIP = OnError.skip()
LETTER = OnError.dead_letter(BAD)


def inverse(value: float) -> float:
    return 6 / value


def letters(out: Collected) -> list[DeadLetter]:
    return [entry[2] for entry in out.story if entry[0] == "side bad"]


def failing(step: Step, policy: OnError = SKIP, **more: Any) -> StepSetup:
    return setup("failing", step, on_error=policy, **more)


async def run(chain: Chain, *values: Any, at: int | None = None) -> None:
    times = None if at is None else [at] * len(values)
    await chain.open()
    await chain.run(Records([*values], times))  # type: ignore[arg-type]
    await chain.close()


async def sometimes(value: float) -> float:
    await anyio.lowlevel.checkpoint()
    return 6 / value


def halves(value: int) -> Any:
    yield value
    yield 6 // value


def drop_odd(value: int, ctx: Context) -> None:
    ctx.emit(value)
    if value % 2:
        raise ValueError("odd")


# ------------------------------------------------------------------------------------ each step


@pytest.mark.parametrize(
    ("step", "given", "expected"),
    [
        (Map(inverse), [1, 0, 2, 0], [6, 3]),
        (Map(sometimes), [1, 0, 2, 0], [6, 3]),
        (Filter(lambda v: 1 / v > 0), [1, 0, -1, 2], [1, 2]),
        (FlatMap(halves), [1, 0, 2], [1, 6, 2, 3]),
        (FlatMap(lambda v: [v, 1 / v]), [0, 1], [1, 1]),
        (FlatMap(lambda v: v), [[1], 5, [2]], [1, 2]),
        (KeyBy(inverse), [1, 0, 2], [1, 2]),
        (KeyBy(lambda v: v), [1, [2], 3], [1, 3]),
        (process(drop_odd), [1, 2, 3, 4], [2, 4]),
    ],
)
async def test_only_the_failing_record_goes(step: Step, given: list[Any], expected: Any) -> None:
    out = Collected()

    await run(chain_of(out, failing(step)), *given)

    assert out.values == expected
    assert letters(out) == []


async def test_after_a_flat_map_only_the_failing_element_goes() -> None:
    out = Collected()
    first, last = FlatMap(lambda v: v), FlatMap(lambda v: [v, v])

    await run(chain_of(out, first, failing(Map(inverse)), Map(str), last), [1, 0, 2], [0], [3])

    assert out.values == ["6.0", "6.0", "3.0", "3.0", "2.0", "2.0"]


async def test_times_and_keys_stay_with_their_records() -> None:
    out = Collected()
    chain = chain_of(out, failing(Map(inverse)), KeyBy(int))

    await chain.run(Records([1, 0, 2], [10, 20, 30]))

    assert out.story == [("record", 6, 10, 6), ("record", 3, 30, 3)]


async def test_a_failing_fold_changes_nothing() -> None:
    def add(total: int, value: int) -> int:
        return total + 6 // value

    def tell(total: int) -> int:
        if total > 10:
            raise ValueError("too much")
        return total

    out = Collected()
    fold = failing(Fold(lambda v: 6 // v, add, tell, type=int), LETTER)
    chain = chain_of(out, KeyBy(lambda v: "k"), fold)

    await run(chain, 0, 1, 0, 2, 3, 6)

    assert out.values == [("k", 6), ("k", 9), ("k", 10)]
    assert [(letter.value, letter.key) for letter in letters(out)] == [
        (0, "k"),
        (0, "k"),
        (3, "k"),
    ]


async def test_a_fold_of_what_could_change_keeps_what_it_had() -> None:
    def add(seen: list[int], value: int) -> list[int]:
        seen.append(value)
        if value < 0:
            raise ValueError("negative")
        return seen

    out = Collected()
    fold = failing(Fold(lambda v: [v], add, type=list[int]))

    await run(chain_of(out, KeyBy(lambda v: "k"), fold), 1, -1, 2)

    assert out.values == [("k", [1]), ("k", [1, 2])]


async def test_a_value_that_cannot_be_stored_is_an_error_of_its_record() -> None:
    class Keeps(Operator[Any, Any]):
        last = ValueState(int, default=0)

        def process(self, value: Any, ctx: Context) -> None:
            ctx.emit(self.last.get())
            self.last.set(value)

    out = Collected()
    step = failing(Process(Keeps), LETTER, keyed=True)

    await run(chain_of(out, KeyBy(lambda v: "k"), step), 1, object(), 2)

    assert out.values == [0, 1]
    assert [letter.error for letter in letters(out)] == ["StateError"]


async def test_a_key_that_state_cannot_have_is_an_error_of_its_record() -> None:
    out = Collected()
    step = failing(KeyBy(lambda v: v), LETTER, check_key=key_group)

    await run(chain_of(out, step), 1, object, 2)

    assert out.values == [1, 2]
    assert [letter.error for letter in letters(out)] == ["StateError"]


# ------------------------------------------------------------------------------------ letters


async def test_a_letter_tells_all_that_is_known() -> None:
    out = Collected()
    chain = chain_of(out, failing(Map(inverse), LETTER))
    chain.where = lambda: "source 'numbers', split '0'"

    await run(chain, 1, 0, at=17)

    (letter,) = letters(out)
    assert out.story[0] == ("side bad", "", letter, 17)
    assert (letter.value, letter.key, letter.timestamp, letter.operator) == (0, None, 17, "failing")
    assert (letter.error, letter.message) == ("ZeroDivisionError", "division by zero")
    assert (letter.attempts, letter.where) == (1, "source 'numbers', split '0'")
    assert letter.traceback.startswith("Traceback (most recent call last):\n")
    assert "in inverse\n    return 6 / value\n" in letter.traceback
    assert "fused" not in letter.traceback


async def test_what_an_error_says_is_cut_off() -> None:
    class Endless(ValueError):
        def __str__(self) -> str:
            return "x" * 1_000_000

    class Dumb(ValueError):
        def __str__(self) -> str:
            raise RuntimeError

    def fail(error: Exception) -> None:
        raise error

    out = Collected()

    await run(chain_of(out, failing(Map(fail), LETTER)), Endless(), Dumb())

    endless, dumb = letters(out)
    assert len(endless.message) < 5_000
    assert len(endless.traceback) < 5_000
    assert dumb.message == "<its text cannot be made: RuntimeError>"


# ------------------------------------------------------------------------------------ what fails


@pytest.mark.parametrize("error", [CheckpointError("torn"), OperatorError("no", operator="x")])
async def test_the_engines_own_errors_are_no_errors_of_a_record(error: Exception) -> None:
    def fail(value: Any) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await run(chain_of(Collected(), failing(Map(fail))), 1)

    assert raised.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_is_no_exception_is_never_swallowed(error: type[BaseException]) -> None:
    def fail(value: Any) -> None:
        raise error

    with pytest.raises(error):
        await chain_of(Collected(), failing(Map(fail), LETTER)).run(Records([1]))


async def test_a_cancellation_is_never_swallowed() -> None:
    out = Collected()

    async def hang(value: Any) -> None:
        scope.cancel()
        await anyio.sleep_forever()

    chain = chain_of(out, failing(Map(hang), LETTER))
    with anyio.CancelScope() as scope:
        await chain.run(Records([1]))

    assert scope.cancelled_caught
    assert out.story == []


async def test_a_plain_function_that_returns_a_coroutine_is_no_error_of_a_record() -> None:
    async def later(value: Any) -> Any:
        return value

    with pytest.raises(OperatorError, match="which nobody awaits"):
        await run(chain_of(Collected(), failing(Map(lambda v: later(v + 1)))), 1)


async def test_a_step_without_a_policy_fails_as_ever() -> None:
    out = Collected()

    with pytest.raises(OperatorError, match=r"operator '1' raised ZeroDivisionError.* record 0"):
        await run(chain_of(out, failing(Map(lambda v: v)), Map(inverse)), 1, 0)


# ------------------------------------------------------------------------------------ retry


class Flaky:
    """Fails at each value so many times as the value says."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, value: int) -> int:
        self.calls.append(value)
        if self.calls.count(value) <= value:
            raise ValueError(f"not yet {value}")
        return value


def clock_of(world: Any) -> ManualClock:
    assert isinstance(world.clock, ManualClock)
    return world.clock


async def test_a_retry_waits_in_its_place_behind_what_is_ready() -> None:
    out, world, flaky = Collected(), manual_world(), Flaky()
    policy = OnError.retry(FixedDelay("1s", attempts=3))
    chain = chain_of(out, failing(Map(flaky), policy), world=world)

    async with anyio.create_task_group() as group:
        group.start_soon(chain.run, Records([0, 2, 1]))
        await settle()
        assert out.values == [0]
        clock_of(world).advance(1_000)
        await settle()
        assert flaky.calls == [0, 2, 2]
        clock_of(world).advance(1_000)
        await settle()
        assert out.values == [0, 2]
        clock_of(world).advance(1_000)

    assert out.values == [0, 2, 1]
    assert flaky.calls == [0, 2, 2, 2, 1, 1]


async def passed(chain: Chain, world: Any, *values: Any) -> None:
    """Run, and let time pass until it is over."""
    async with anyio.create_task_group() as group:

        async def end() -> None:
            await chain.run(Records([*values]))
            group.cancel_scope.cancel()

        group.start_soon(end)
        while True:
            await settle()
            clock_of(world).advance(1_000)


@pytest.mark.parametrize(
    "step",
    [
        Map,
        Filter,
        lambda fn: FlatMap(lambda v: [fn(v)]),
        KeyBy,
        lambda fn: process(lambda v, ctx: ctx.emit(fn(v))),
    ],
)
async def test_after_the_last_try_the_next_policy_decides(step: Any) -> None:
    out, world, flaky = Collected(), manual_world(), Flaky()
    policy = OnError.retry(FixedDelay("1s", attempts=2), then=LETTER)
    chain = chain_of(out, failing(step(flaky), policy), world=world)

    await passed(chain, world, 1, 9, 2)

    assert out.values == [1, 2]
    assert [(letter.value, letter.attempts) for letter in letters(out)] == [(9, 3)]


async def test_without_a_next_policy_the_last_error_fails_the_flow() -> None:
    world = manual_world()
    policy = OnError.retry(FixedDelay("1s", attempts=1))
    chain = chain_of(Collected(), failing(Map(Flaky()), policy), world=world)

    with pytest.raises(BaseExceptionGroup) as raised:
        await passed(chain, world, 1, 9)

    (error,) = raised.value.exceptions
    assert isinstance(error, OperatorError)
    assert str(error) == (
        "operator 'failing' raised ValueError: not yet 9 at the record 9, at each of 2 tries"
    )
    assert error.value == 9


async def test_each_try_begins_with_clean_state() -> None:
    tries = []

    class Keeps(Operator[Any, Any]):
        count = ValueState(int, default=0)

        def process(self, value: Any, ctx: Context) -> None:
            tries.append(self.count.get())
            self.count.set(self.count.get() + 1)
            ctx.emit(self.count.get())
            if len(tries) == 2:
                raise ValueError

    out, world = Collected(), manual_world()
    step = failing(Process(Keeps), OnError.retry(FixedDelay("1s")), keyed=True)
    chain = chain_of(out, KeyBy(lambda v: "k"), step, world=world)
    await chain.open()

    await passed(chain, world, "a", "b")

    assert tries == [0, 1, 1]
    assert out.values == [1, 2]


# ------------------------------------------------------------------------------------ timers


class Alarmed(Operator[Any, Any]):
    """Sets a timer for each record; the timers of keys below zero fail after they wrote."""

    count = ValueState(int, default=0)

    def process(self, value: Any, ctx: Context) -> None:
        ctx.timers.register_event_time(10)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        self.count.set(self.count.get() + 1)
        ctx.emit((ctx.key, self.count.get()))
        ctx.timers.register_event_time(timestamp + 10)
        if ctx.key < 0 and timestamp == 10:
            raise ValueError("below zero")


async def test_a_timer_that_fails_has_fired_and_left_no_trace() -> None:
    out = Collected()
    step = failing(Process(Alarmed), LETTER, keyed=True)
    chain = chain_of(out, KeyBy(lambda v: v), step)
    await chain.open()
    await chain.run(Records([1, -1]))

    await chain.advance(10)
    await chain.advance(29)

    (letter,) = letters(out)
    assert (letter.value, letter.key, letter.timestamp) == (None, -1, 10)
    assert letter.where == "timer at 10"
    assert out.values == [(1, 1), (1, 2)]


async def test_a_timer_that_fails_for_good_fails_the_flow() -> None:
    world = manual_world()
    policy = OnError.retry(NoRestart(), then=OnError.fail())
    chain = chain_of(
        Collected(),
        KeyBy(lambda v: v),
        failing(Process(Alarmed), policy, keyed=True),
        world=world,
    )
    await chain.open()
    await chain.run(Records([-1]))

    with pytest.raises(OperatorError, match="below zero in on_timer"):
        await chain.advance(10)


# ------------------------------------------------------------------------------------ counted, told


async def test_the_first_is_told_and_then_the_count_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = manual_world()
    chain = chain_of(Collected(), failing(Map(inverse)), world=world)
    with caplog.at_level(logging.WARNING, "flowrt"):
        await run(chain, 0, 0, 1)
        await chain.run(Records([0]))
        clock_of(world).advance(TOLD_EVERY_NS // 1_000_000)
        await chain.run(Records([0, 0]))

    told = "operator 'failing':"
    assert [record.getMessage() for record in caplog.records] == [
        f"{told} 1 record skipped, the last one 0: ZeroDivisionError: division by zero",
        f"{told} 3 records skipped, the last one 0: ZeroDivisionError: division by zero",
    ]
    (judge,) = chain.judges()
    assert judge.failed_records == 5


async def test_values_for_side_outputs_that_nobody_takes_count_only_where_the_record_stays() -> (
    None
):
    tag = OutputTag[int]("untaken")

    def side(value: int, ctx: Context) -> None:
        ctx.side(tag, value)
        ctx.emit(6 / value)

    chain = chain_of(Collected(), failing(process(side)))
    await run(chain, 0)
    assert chain.dropped() == {}
    await chain.run(Records([0, 1]))
    assert chain.dropped() == {"failing.untaken": 1}


async def test_state_errors_of_a_step_without_a_policy_are_raised_as_they_are() -> None:
    out = Collected()
    chain = chain_of(out, KeyBy(lambda v: v), setup("fold", Fold(lambda v: 1, lambda a, v: a)))

    with pytest.raises(StateError):
        await run(chain, object)
