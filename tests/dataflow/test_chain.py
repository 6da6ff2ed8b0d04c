"""The operators of one task: lives, watermarks, timers, rests, snapshots, and who is blamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP, Records
from flowrt.contract.errors import OperatorError, StateError
from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.state import ValueState
from flowrt.contract.steps import (
    AssignTimestamps,
    Filter,
    FlatMap,
    Fold,
    KeyBy,
    Map,
    Process,
    Step,
)
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.channels.run_length import RUN_LIMIT
from flowrt.state.memory import MemoryBackend
from flowrt.testing.world import ManualClock, manual_world
from tests.dataflow.kit import (
    Collected,
    SlowWriter,
    chain_of,
    emit_twice,
    process,
    record,
    setup,
    side,
)

pytestmark = pytest.mark.anyio

BY_VALUE: WatermarkStrategy[Any] = WatermarkStrategy.monotonous().with_timestamps(lambda v: v)
LATE = OutputTag[int]("late")


class Teller(Operator[Any, Any]):
    """Tells of everything that happens to it; sets timers where a record asks for one."""

    seen = ValueState(int, default=0)

    def __init__(self, story: list[Any], name: str = "teller") -> None:
        self.story = story
        self.name = name

    def open(self, ctx: Context) -> None:
        self.story.append((self.name, "open", ctx.watermark))

    def process(self, value: Any, ctx: Context) -> None:
        self.seen.set(self.seen.get() + 1)
        ctx.timers.register_event_time(value)
        ctx.emit((ctx.key, self.seen.get()))

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit((ctx.key, "timer"))
        ctx.side(LATE, ctx.key)

    def on_watermark(self, watermark: int, ctx: Context) -> None:
        self.story.append((self.name, "watermark", watermark, ctx.timestamp))
        ctx.emit("mark", watermark)

    def restore(self, data: list[Any]) -> None:
        self.story.append((self.name, "restore", data))

    def snapshot(self) -> Any:
        return len(self.story)

    def close(self) -> None:
        self.story.append((self.name, "close"))


def teller(story: list[Any], id: str = "teller", **more: Any) -> Any:
    more.setdefault("taken_tags", frozenset({"late"}))
    return setup(id, Process(lambda: Teller(story, id)), keyed=True, **more)


# ------------------------------------------------------------------------------------- life


async def test_operators_are_opened_in_order_and_closed_in_reverse() -> None:
    story: list[Any] = []
    chain = chain_of(Collected(), teller(story, "one"), Map(str), teller(story, "two"))
    await chain.open()
    await chain.close()
    await chain.close()
    assert story == [
        ("one", "open", MIN_TIMESTAMP),
        ("two", "open", MIN_TIMESTAMP),
        ("two", "close"),
        ("one", "close"),
    ]
    assert chain.operators == ("one", "1", "two")


async def test_an_operator_is_restored_before_it_is_opened() -> None:
    story: list[Any] = []
    chain = chain_of(Collected(), teller(story, restored=[1, 2], watermark=5))
    await chain.open()
    assert story == [("teller", "restore", [1, 2]), ("teller", "open", 5)]


async def test_what_was_opened_is_closed_even_if_the_next_cannot_be_opened_or_closed() -> None:
    story: list[Any] = []

    class Broken(Teller):
        def open(self, ctx: Context) -> None:
            raise ValueError("cannot open")

        def close(self) -> None:
            raise ValueError("cannot close")

    broken = setup("broken", Process(lambda: Broken(story)), keyed=True)
    chain = chain_of(Collected(), teller(story, "one"), broken, teller(story, "three"))
    with pytest.raises(OperatorError, match="'broken' raised ValueError: cannot open in open"):
        await chain.open()
    with pytest.raises(OperatorError, match="'broken' raised ValueError: cannot close in close"):
        await chain.close()
    assert story == [("one", "open", MIN_TIMESTAMP), ("one", "close")]


async def test_methods_may_be_coroutines() -> None:
    story: list[str] = []

    class Waits(Operator[Any, Any]):
        async def open(self, ctx: Context) -> None:
            await checkpoint()
            ctx.emit("never sent before a record")
            story.append("open")

        async def process(self, value: Any, ctx: Context) -> None:
            await checkpoint()
            ctx.timers.register_event_time(5)

        async def on_timer(self, timestamp: int, ctx: Context) -> None:
            await checkpoint()
            story.append("timer")

        async def on_watermark(self, watermark: int, ctx: Context) -> None:
            await checkpoint()
            story.append("watermark")

        async def close(self) -> None:
            await checkpoint()
            story.append("close")

    chain = chain_of(Collected(), KeyBy(str), setup("waits", Process(Waits), keyed=True))
    await chain.open()
    await chain.run(Records([1]))
    await chain.advance(5)
    await chain.close()
    assert story == ["open", "timer", "watermark", "close"]


# ------------------------------------------------------------------------------------- time


async def test_a_watermark_fires_timers_then_tells_the_operator_then_goes_on() -> None:
    story: list[Any] = []
    out = Collected()
    chain = chain_of(out, KeyBy(lambda v: v % 2), teller(story), Map(str))
    await chain.open()
    await chain.run(Records([4, 3, 9]))
    out.story.clear()

    await chain.advance(5)
    assert out.story == [
        side("late", 1, 3),
        record("(1, 'timer')", 3),
        side("late", 0, 4),
        record("(0, 'timer')", 4),
        record("mark", 5),
        ("watermark", 5),
    ]
    assert story[-1] == ("teller", "watermark", 5, None)


async def test_what_one_operator_emits_at_a_watermark_comes_before_it_at_the_next() -> None:
    story: list[Any] = []
    second = setup("second", process(lambda v, ctx: story.append((v, ctx.watermark))))
    chain = chain_of(Collected(), KeyBy(lambda v: 0), teller([]), second)
    await chain.open()
    await chain.run(Records([3]))
    await chain.advance(10)
    assert story == [
        ((0, 1), MIN_TIMESTAMP),
        ((0, "timer"), MIN_TIMESTAMP),
        ("mark", MIN_TIMESTAMP),
    ]


async def test_a_watermark_told_again_goes_on_but_is_no_news_to_operators() -> None:
    story: list[Any] = []
    out = Collected()
    chain = chain_of(out, teller(story))
    await chain.advance(5)
    await chain.advance(5)
    assert story == [("teller", "watermark", 5, None)]
    assert out.story[-2:] == [("watermark", 5), ("watermark", 5)]


async def test_an_operator_that_was_restored_ahead_waits_for_its_inputs() -> None:
    story: list[Any] = []
    chain = chain_of(Collected(), teller(story, watermark=10))
    await chain.advance(7)
    await chain.advance(11)
    assert story == [("teller", "watermark", 11, None)]


async def test_outside_of_records_and_timers_there_is_no_key() -> None:
    class Asks(Teller):
        def on_watermark(self, watermark: int, ctx: Context) -> None:
            self.seen.get()

    chain = chain_of(Collected(), KeyBy(str), setup("asks", Process(lambda: Asks([])), keyed=True))
    await chain.open()
    await chain.run(Records([3]))
    with pytest.raises(StateError, match="'asks' has no current key"):
        await chain.advance(1)


async def test_many_timers_send_in_short_runs() -> None:
    def many(timestamp: int, ctx: Context) -> None:
        for n in range(3_000):
            ctx.emit(n)

    class Many(Teller):
        on_timer = staticmethod(many)

    out = Collected()
    step = setup("many", Process(lambda: Many([])), keyed=True)
    chain = chain_of(out, KeyBy(str), step)
    await chain.open()
    await chain.run(Records([3]))
    await chain.advance(3)
    assert max(out.runs) == RUN_LIMIT
    assert sum(out.runs) == 3_002


class Alarm(Operator[Any, Any]):
    def process(self, value: int, ctx: Context) -> None:
        ctx.timers.register_processing_time(value)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit((ctx.key, timestamp))


async def test_processing_time_timers_fire_when_the_clock_says_so() -> None:
    world, out = manual_world(), Collected()
    assert isinstance(world.clock, ManualClock)
    alarm = setup("alarm", Process(Alarm), keyed=True)
    chain = chain_of(out, KeyBy(str), alarm, world=world)
    await chain.open()
    assert chain.next_alarm() is None
    await chain.run(Records([50, 30]))
    assert chain.next_alarm() == 30

    world.clock.advance(40)
    await chain.ring()
    assert out.values == [("30", 30)]
    assert chain.next_alarm() == 50


async def test_a_chain_of_functions_keeps_no_time() -> None:
    chain = chain_of(Collected(), Map(str), KeyBy(str), Fold(str, str))
    assert not chain.keeps_time
    assert chain.next_alarm() is None


async def test_restored_timers_fire_even_if_no_timer_is_set_anew() -> None:
    backend, writer = MemoryBackend("alarm"), SlowWriter()
    step = setup("alarm", Process(Alarm), keyed=True, backend=backend, writer=writer)
    chain = chain_of(Collected(), KeyBy(str), step)
    await chain.open()
    await chain.run(Records([50]))
    (cut,) = chain.cut()
    assert cut.frozen is not None
    blocks = [block for slice in cut.frozen.encode() for block in slice]

    again = MemoryBackend("alarm")
    again.load(blocks)
    out = Collected()
    world = manual_world(now_ms=60)
    restored = setup("alarm", Process(Alarm), keyed=True, backend=again)
    chain = chain_of(out, KeyBy(str), restored, world=world)
    await chain.open()
    assert chain.next_alarm() == 50
    await chain.ring()
    assert out.values == [("50", 50)]


# ---------------------------------------------------------------------------- event time made here


async def test_a_step_makes_event_time_and_watermarks_from_before_end_there() -> None:
    out = Collected()
    chain = chain_of(out, Map(lambda v: v + 1), AssignTimestamps(BY_VALUE), Map(str))
    await chain.run(Records([4, 2], [100, 200]))
    await chain.advance(1_000)
    await chain.run(Records([3]))
    await chain.advance(MAX_TIMESTAMP)
    assert out.story == [
        record("5", 5),
        record("3", 3),
        ("watermark", 4),
        record("4", 4),
        ("watermark", MAX_TIMESTAMP),
    ]


async def test_keys_pass_a_step_that_makes_event_time() -> None:
    steps: list[Step] = [KeyBy(lambda v: v % 2), AssignTimestamps(BY_VALUE), Fold(lambda v: v, max)]
    out = Collected()
    await chain_of(out, *steps).run(Records([1, 2, 3]))
    assert out.story[:-1] == [record((1, 1), 1), record((0, 2), 2), record((1, 3), 3)]


async def test_timers_before_such_a_step_still_fire() -> None:
    out = Collected()
    chain = chain_of(
        out,
        KeyBy(lambda v: 0),
        teller([]),
        Map(lambda v: 77),
        AssignTimestamps(BY_VALUE),
    )
    await chain.open()
    await chain.run(Records([3]))
    await chain.advance(3)
    assert [entry for entry in out.story if entry[0] == "watermark"] == [("watermark", 76)]
    assert out.values == [77, 77, 77]


async def test_a_rest_goes_through_such_a_step_and_so_does_its_end() -> None:
    out = Collected()
    chain = chain_of(out, AssignTimestamps(BY_VALUE), Filter(lambda v: v != 6))
    await chain.run(Records([5]))
    chain.rest()
    await chain.advance(1_000)
    await chain.advance(2_000)
    chain.rest()
    await chain.run(Records([3]))
    assert out.story == [
        record(5, 5),
        ("watermark", 4),
        "idle",
        ("watermark", 4),
        "idle",
        ("watermark", 4),
        record(3, 3),
    ]


async def test_such_a_step_rests_by_itself_when_nothing_comes() -> None:
    world, out = manual_world(), Collected()
    assert isinstance(world.clock, ManualClock)
    step = AssignTimestamps(BY_VALUE.with_idleness("100ms"))
    chain = chain_of(out, step, world=world)
    assert chain.next_alarm() == 100
    world.clock.advance(100)
    await chain.ring()
    assert out.story == ["idle"]
    assert chain.next_alarm() is None

    await chain.run(Records([5]))
    assert out.story[1:] == [("watermark", MIN_TIMESTAMP), record(5, 5), ("watermark", 4)]
    assert chain.next_alarm() == 200


# -------------------------------------------------------------------------------- snapshots


async def test_a_cut_has_the_state_of_every_step_that_keeps_some() -> None:
    writer = SlowWriter()
    story: list[Any] = []
    chain = chain_of(
        Collected(),
        setup("times", AssignTimestamps(BY_VALUE)),
        KeyBy(lambda v: v % 2),
        teller(story, writer=writer),
        setup("plain", process(emit_twice)),
        Map(str),
    )
    await chain.open()
    await chain.run(Records([8]))
    await chain.advance(MAX_TIMESTAMP)
    cuts = {cut.id: cut for cut in chain.cut()}

    assert [*cuts] == ["times", "teller", "plain"]
    assert cuts["times"].data == [7, 8, False, False]
    assert cuts["teller"].writer is writer
    assert cuts["teller"].frozen is not None
    assert (cuts["teller"].data, cuts["teller"].watermark) == (len(story), MAX_TIMESTAMP)
    assert cuts["plain"].frozen is None


async def test_where_nothing_is_kept_the_state_simply_goes_on() -> None:
    backend = MemoryBackend("fold")
    chain = chain_of(Collected(), KeyBy(str), setup("fold", Fold(str, max), backend=backend))
    await chain.run(Records([1]))
    assert chain.cut() == []
    assert backend.freeze() is not None


# ------------------------------------------------------------------------------ who is blamed


def fails(value: Any, *_: Any) -> Any:
    raise ValueError(f"no {value}")


def fails_at(bad: Any) -> Callable[..., Any]:
    def function(value: Any, *_: Any) -> Any:
        return fails(value) if value == bad else value

    return function


async def waits_and_fails(value: Any, *_: Any) -> Any:
    await checkpoint()
    fails(value)


def generator_fails(value: Any) -> Iterator[Any]:
    yield 1
    yield 2
    fails(value)


async def coroutine_gives_generator(value: Any) -> Iterator[Any]:
    return generator_fails(value)


def stops(value: Any) -> Any:
    raise StopIteration("by mistake")


async def blamed(*steps: Any, given: Any = (5,)) -> OperatorError:
    """Run records through steps; return the error."""
    chain = chain_of(Collected(), *steps)
    await chain.open()
    with pytest.raises(OperatorError) as raised:
        await chain.run(Records([*given]))
    assert raised.value.__cause__ is not None
    return raised.value


@pytest.mark.parametrize(
    "step",
    [
        Map(fails),
        Map(waits_and_fails),
        Filter(fails),
        Filter(waits_and_fails),
        FlatMap(fails),
        FlatMap(generator_fails),
        FlatMap(waits_and_fails),
        FlatMap(coroutine_gives_generator),
        KeyBy(fails),
        process(fails),
        process(waits_and_fails),
        process(lambda value, ctx: waits_and_fails(value)),
    ],
)
@pytest.mark.parametrize("before", [Map(lambda v: v * 2), FlatMap(lambda v: [v * 2])])
@pytest.mark.parametrize("after", [[], [Map(str), FlatMap(str)]])
async def test_the_step_that_raised_is_blamed_with_its_record(
    before: Any, step: Any, after: list[Any]
) -> None:
    error = await blamed(before, setup("bad", step), *after)
    assert str(error) == "operator 'bad' raised ValueError: no 10 at the record 10"
    assert (error.operator, error.value) == ("bad", 10)


async def answer(value: Any) -> bool:
    return bool(value > 5)


def asks(value: Any) -> Any:
    """Give a coroutine without being a coroutine function, which is seen when a flow is built."""
    return answer(value)


@pytest.mark.parametrize("kind", [Map, Filter, FlatMap, KeyBy])
async def test_a_plain_function_that_returns_a_coroutine_is_an_error(kind: Any) -> None:
    error = await blamed(Map(lambda v: v * 2), setup("bad", kind(asks)))
    assert (error.operator, error.value) == ("bad", 10)
    assert "its function returned a coroutine, which nobody awaits: pass the corou" in str(error)


@pytest.mark.parametrize("wrong", [1.5, "5", None.__class__])
async def test_an_event_time_that_is_no_int_is_an_error(wrong: Any) -> None:
    for emit in (
        process(lambda value, ctx: ctx.emit(value, wrong)),
        process(lambda value, ctx: ctx.side(LATE, value, wrong)),
    ):
        error = await blamed(setup("bad", emit))
        assert (error.operator, error.value) == ("bad", 5)
        assert "raised TypeError: an event time is an int, milliseconds" in str(error)


async def test_that_is_looked_at_in_the_first_run_alone() -> None:
    class Awaitable:
        __await__ = None

    out = Collected()
    chain = chain_of(out, Map(lambda value: Awaitable() if value == 2 else value))
    await chain.open()
    await chain.run(Records([1]))
    await chain.run(Records([2]))
    assert [type(value) for _, value, *_ in out.story] == [int, Awaitable]

    await blamed(Map(lambda value: Awaitable()))


async def test_the_record_is_that_of_the_step_not_of_the_run() -> None:
    steps = [FlatMap(lambda v: [v, v + 1]), Map(lambda v: v * 10), setup("bad", Map(fails_at(60)))]
    error = await blamed(*steps, given=[4, 5, 6])
    assert (error.operator, error.value) == ("bad", 60)


async def test_a_generator_that_fails_late_is_blamed_with_the_record_it_came_from() -> None:
    error = await blamed(setup("bad", FlatMap(generator_fails)), Map(lambda v: v * 100))
    assert (error.operator, error.value) == ("bad", 5)


@pytest.mark.parametrize(
    "fold",
    [
        Fold(first=fails, add=max),
        Fold(first=str, add=lambda a, v: fails(v)),
        Fold(first=str, add=lambda a, v: a, result=fails),
        Fold(first=lambda v: 1, add=lambda a, v: fails(v), type=int),
    ],
)
async def test_a_fold_is_blamed_with_its_record(fold: Fold) -> None:
    error = await blamed(KeyBy(lambda v: 0), setup("bad", fold), given=[7, 7])
    assert (error.operator, error.value) == ("bad", 7)


async def test_a_value_that_cannot_be_stored_is_named_with_operator_and_state() -> None:
    chain = chain_of(Collected(), KeyBy(str), setup("bad", Fold(lambda v: object(), max)))
    with pytest.raises(StateError, match=r"(?s)'bad'.*'fold'"):
        await chain.run(Records([1]))


def a_list(value: Any) -> Any:
    return [value]


async def test_a_key_that_cannot_be_hashed_is_blamed_on_who_uses_it() -> None:
    error = await blamed(KeyBy(a_list), setup("count", Fold(str, max)))
    assert error.operator == "count"
    assert "unhashable" in str(error)


async def test_a_stop_iteration_is_blamed_as_what_it_was() -> None:
    error = await blamed(setup("bad", Map(stops)))
    assert str(error) == "operator 'bad' raised StopIteration: by mistake at the record 5"


async def test_in_the_line_behind_a_step_with_its_own_event_time() -> None:
    error = await blamed(AssignTimestamps(BY_VALUE), Map(str), setup("bad", Map(fails)))
    assert (error.operator, error.value) == ("bad", "5")


async def test_a_timestamp_function_in_the_middle() -> None:
    strategy = WatermarkStrategy.monotonous().with_timestamps(fails_at(5))
    error = await blamed(setup("times", AssignTimestamps(strategy)), given=[4, 5])
    assert (error.operator, error.value) == ("times", 5)


async def test_an_error_of_whoever_takes_the_results_is_not_blamed_on_a_step() -> None:
    class Full(Collected):
        async def emit(self, records: Records) -> None:
            raise OSError("the far end")

    with pytest.raises(OSError, match="the far end"):
        await chain_of(Full(), Map(str)).run(Records([1]))


async def test_a_long_record_is_cut_in_the_message() -> None:
    error = await blamed(setup("bad", Map(lambda v: 1 // 0)), given=["x" * 10_000])
    assert len(str(error)) < 300
    assert error.value == "x" * 10_000


class Fails(Operator[Any, Any]):
    """Fails in the method of a name."""

    def __init__(self, where: str) -> None:
        setattr(self, where, fails_in(where))

    def process(self, value: Any, ctx: Context) -> None:
        ctx.timers.register_event_time(1)


def fails_in(where: str) -> Callable[..., Any]:
    def method(*_: Any) -> Any:
        raise ValueError("no")

    method.__name__ = where
    return method


@pytest.mark.parametrize(
    "where", ["open", "on_timer", "on_watermark", "snapshot", "restore", "close"]
)
async def test_a_method_that_fails_is_named(where: str) -> None:
    bad = setup("bad", Process(lambda: Fails(where)), keyed=True, restored=[1])
    chain = chain_of(Collected(), KeyBy(str), bad)
    with pytest.raises(OperatorError) as raised:
        await chain.open()
        await chain.run(Records([5]))
        await chain.advance(10)
        chain.cut()
        await chain.close()
    assert str(raised.value) == f"operator 'bad' raised ValueError: no in {where}"
    assert raised.value.operator == "bad"


async def test_an_async_generator_is_no_iterable_and_the_step_is_blamed() -> None:
    async def gives(value: Any) -> AsyncIterator[int]:
        yield value

    error = await blamed(setup("bad", FlatMap(gives)))
    assert "'bad' raised TypeError" in str(error)
