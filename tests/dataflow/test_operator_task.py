"""Channels in, a chain, channels out: order, epochs, rests, the clock, endings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from flowrt.contract.elements import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Barrier,
    EndOfStream,
    Idle,
    Records,
    Watermark,
)
from flowrt.contract.errors import OperatorError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.steps import FlatMap, Fold, KeyBy, Map, Process
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.outputs import Forward, Outputs
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.channels.run_length import RUN_LIMIT
from flowrt.dataflow.tasks.operator_task import OperatorTask
from tests.dataflow.kit import Letters, Reception, SlowWriter, chain_of, process, settle, setup

pytestmark = pytest.mark.anyio


class Stage:
    """An operator task between channels."""

    def __init__(
        self,
        *steps: Any,
        inputs: int = 1,
        blocking: bool = True,
        capacity: int = 1_000,
        adapts: bool = False,
    ) -> None:
        spot = parking_spot()
        self.channels = [Channel(1_000, spot, adapts=adapts) for _ in range(inputs)]
        self.letters = Letters()
        self.out = Reception(capacity)
        outputs = Outputs([Forward(self.out.channel)])
        chain = chain_of(outputs, *steps, world=self.letters.world)
        inbox = Inputs(self.channels, blocking=blocking)
        self.task = OperatorTask(self.letters.desk(), inbox, chain, outputs, spot)
        self.done = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the task beside the body; stops it at the end if it still runs."""

        async def run() -> None:
            try:
                await self.task.open()
                await self.task.run()
                self.done = True
            finally:
                await self.task.close()

        async with create_task_group() as group:
            group.start_soon(run)
            await settle()
            yield
            group.cancel_scope.cancel()

    async def send(self, index: int, *values: Any) -> None:
        await self.channels[index].send(Records([*values]))
        await settle()

    async def control(self, index: int, element: Any) -> None:
        self.channels[index].send_control(element)
        await settle()


async def test_what_comes_goes_through_the_chain_and_on() -> None:
    stage = Stage(Map(str))
    async with stage.running():
        await stage.send(0, 1, 2)
        await stage.control(0, Watermark(5))
        await stage.control(0, Barrier(1, final=True))
        await stage.control(0, EndOfStream())
        assert stage.done
    assert stage.out.all() == [
        Records(["1", "2"]),
        Watermark(5),
        Barrier(1, final=True),
        EndOfStream(),
    ]
    assert stage.letters.acknowledged == [1]
    assert stage.task.statistics() == {
        "records_in": 2,
        "records_out": 2,
        "queued": 0,
        "watermark": 5,
    }


async def test_an_input_waits_behind_its_barrier_until_all_delivered_theirs() -> None:
    stage = Stage(inputs=2)
    async with stage.running():
        await stage.send(0, "before")
        await stage.control(0, Barrier(1))
        await stage.send(0, "after")
        await stage.send(1, "also before")
        assert stage.out.values == []
        assert stage.task.statistics()["queued"] == 1
        assert stage.out.take() == [Records(["before", "also before"])]

        await stage.control(1, Barrier(1))
        assert stage.out.take() == [Barrier(1), Records(["after"])]


async def test_at_least_once_does_not_wait() -> None:
    stage = Stage(inputs=2, blocking=False)
    async with stage.running():
        await stage.control(0, Barrier(1))
        await stage.send(0, "after")
        assert stage.out.take() == [Records(["after"])]
        await stage.control(1, Barrier(1))
        assert stage.out.take() == [Barrier(1)]


async def test_what_waits_in_front_of_a_slow_step_is_what_it_does_in_20_ms() -> None:
    def slow(value: int) -> int:
        stage.letters.clock.advance(4)
        return value

    stage = Stage(Map(slow), adapts=True, capacity=10**6)
    async with stage.running():
        await stage.send(0, *range(1_000))

    stage.out.take()
    assert stage.channels[0].capacity in (4, 5)
    assert stage.out.values == [*range(1_000)]


async def test_and_in_front_of_a_quick_one_it_is_a_full_channel() -> None:
    stage = Stage(Map(str), adapts=True, capacity=10**6)
    async with stage.running():
        await stage.send(0, *range(3_000))

    assert stage.channels[0].capacity == 1_000


async def test_several_epochs_that_wait_behind_one_input_come_one_after_the_other() -> None:
    stage = Stage(inputs=2)
    async with stage.running():
        for epoch in (1, 2, 3):
            await stage.control(0, Barrier(epoch))
            await stage.send(0, epoch)
        for epoch in (1, 2, 3):
            await stage.control(1, Barrier(epoch))
    assert stage.out.all() == [
        *(Barrier(1), Records([1])),
        *(Barrier(2), Records([2])),
        *(Barrier(3), Records([3])),
    ]
    assert stage.letters.acknowledged == [1, 2, 3]


async def test_how_long_the_alignment_took_is_told() -> None:
    stage = Stage(inputs=2)
    async with stage.running():
        await stage.control(0, Barrier(1))
        stage.letters.clock.advance(25)
        await stage.control(1, Barrier(1))
    (message,) = stage.letters.sent
    assert getattr(message, "align_ns", None) == 25_000_000


async def test_the_stream_goes_on_while_a_snapshot_is_written() -> None:
    writer = SlowWriter()
    stage = Stage(
        KeyBy(lambda v: v), setup("count", Fold(lambda v: 1, lambda a, v: a + 1), writer=writer)
    )
    async with stage.running():
        await stage.send(0, "a")
        await stage.control(0, Barrier(1))
        await stage.send(0, "a")
        assert stage.out.values == []
        assert stage.out.all()[1:] == [Barrier(1), Records([("a", 2)])]
        assert stage.letters.acknowledged == []

        writer.spot.wake()
        await settle()
        assert stage.letters.acknowledged == [1]


async def test_the_task_ends_only_when_its_last_snapshot_is_written() -> None:
    writer = SlowWriter()
    stage = Stage(KeyBy(str), setup("count", Fold(str, max), writer=writer))
    async with stage.running():
        await stage.control(0, Barrier(1, final=True))
        await stage.control(0, EndOfStream())
        assert not stage.done
        writer.spot.wake()
        await settle()
        assert stage.done


async def test_the_end_comes_with_the_last_input() -> None:
    stage = Stage(inputs=2)
    async with stage.running():
        await stage.control(0, EndOfStream())
        await stage.send(1, "more")
        done_before = stage.done
        await stage.control(1, EndOfStream())
        assert (done_before, stage.done) == (False, True)
    assert stage.out.all() == [Records(["more"]), EndOfStream()]


async def test_the_last_watermark_fires_what_is_left() -> None:
    class Last(Operator[Any, Any]):
        def process(self, value: Any, ctx: Context) -> None:
            ctx.timers.register_event_time(value)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            ctx.emit(timestamp)

    stage = Stage(KeyBy(str), setup("last", Process(Last), keyed=True))
    async with stage.running():
        await stage.send(0, 10**12)
        await stage.control(0, Watermark(MAX_TIMESTAMP))
        await stage.control(0, Barrier(1, final=True))
        await stage.control(0, EndOfStream())
    assert stage.out.all() == [
        Records([10**12], [10**12]),
        Watermark(MAX_TIMESTAMP),
        Barrier(1, final=True),
        EndOfStream(),
    ]


# ----------------------------------------------------------------------------- rests


async def test_a_task_rests_when_all_its_inputs_do_and_wakes_with_the_first() -> None:
    stage = Stage(FlatMap(lambda v: ()), inputs=2)
    async with stage.running():
        await stage.control(0, Watermark(5))
        await stage.control(0, Idle())
        assert stage.out.take() == []
        await stage.control(1, Idle())
        assert stage.out.take() == [Watermark(5), Idle()]

        # Nothing of the record gets through, but the rest is over, and that must be known.
        await stage.send(1, "filtered out")
        assert stage.out.take() == [Watermark(5)]


async def test_a_rest_ends_before_any_watermark_was_known() -> None:
    stage = Stage()
    async with stage.running():
        await stage.control(0, Idle())
        await stage.control(0, Watermark(MIN_TIMESTAMP))
    assert stage.out.all() == [Watermark(MIN_TIMESTAMP)]


async def test_an_idle_input_does_not_hold_the_watermark_up() -> None:
    stage = Stage(inputs=2)
    async with stage.running():
        await stage.control(0, Watermark(5))
        await stage.control(1, Idle())
        assert stage.out.take() == [Watermark(5)]


# ----------------------------------------------------------------------------- the clock


class Repeats(Operator[Any, Any]):
    """Sets a timer that sets itself again, `step` ms later."""

    def __init__(self, step: int) -> None:
        self.step = step

    def process(self, value: Any, ctx: Context) -> None:
        ctx.timers.register_processing_time(ctx.world.clock.now_ms() + self.step)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit(timestamp)
        ctx.timers.register_processing_time(timestamp + self.step)


async def test_processing_time_timers_ring_without_any_input() -> None:
    stage = Stage(KeyBy(str), setup("repeats", Process(lambda: Repeats(10)), keyed=True))
    async with stage.running():
        await stage.send(0, "x")
        for _ in range(3):
            stage.letters.clock.advance(10)
            await settle()
        stage.letters.clock.advance(35)
        await settle()
    stage.out.take()
    assert stage.out.values == [10, 20, 30, 40, 50, 60]


async def test_an_earlier_timer_is_not_missed_for_a_later_one() -> None:
    class Sets(Operator[Any, Any]):
        def process(self, value: int, ctx: Context) -> None:
            ctx.timers.register_processing_time(value)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            ctx.emit(timestamp)

    stage = Stage(KeyBy(str), setup("sets", Process(Sets), keyed=True))
    async with stage.running():
        await stage.send(0, 100)
        await stage.send(0, 50)
        stage.letters.clock.advance(50)
        await settle()
        stage.out.take()
        assert stage.out.values == [50]


async def test_nothing_is_left_with_the_clock_when_a_task_stops() -> None:
    stage = Stage(KeyBy(str), setup("repeats", Process(lambda: Repeats(10)), keyed=True))
    async with stage.running():
        await stage.send(0, "x")
        assert stage.letters.clock.next_alarm_ms() == 10
    assert stage.letters.clock.next_alarm_ms() is None


# ----------------------------------------------------------------------------- pressure and turns


async def test_a_slow_reader_holds_the_task_and_it_holds_its_own_inputs() -> None:
    stage = Stage(FlatMap(lambda v: [v] * 10), capacity=10)
    async with stage.running():
        for value in range(50):
            await stage.send(0, value)
        assert stage.task.statistics()["queued"] > 0
        assert stage.out.channel.size < 10 + RUN_LIMIT
        while len(stage.out.values) < 500:
            stage.out.take()
            await settle()
    assert stage.out.values == [value for value in range(50) for _ in range(10)]


async def test_a_million_results_of_one_record_take_no_more_room_than_the_channel_has() -> None:
    stage = Stage(FlatMap(lambda v: range(100_000)), capacity=100)
    longest = 0
    async with stage.running():
        await stage.send(0, 1)
        while stage.out.channel:
            longest = max(longest, stage.out.channel.size)
            stage.out.take()
            await settle()
    assert len(stage.out.values) == 100_000
    assert longest < 100 + RUN_LIMIT


async def test_many_full_inputs_do_not_keep_the_loop_to_themselves() -> None:
    stage = Stage(inputs=50, capacity=10**9)
    for channel in stage.channels:
        for _ in range(2):
            await channel.send(Records([*range(500)]))
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(stage.task.loop.records)
            await anyio.lowlevel.checkpoint()

    async with create_task_group() as group:
        group.start_soon(other)
        group.start_soon(stage.task.run)
        while stage.task.loop.records < 50_000:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    steps = [after - before for before, after in pairwise(turns)]
    assert max(steps) <= 4 * RUN_LIMIT


async def test_a_timer_that_is_due_at_once_for_ever_does_not_keep_the_loop_to_itself() -> None:
    class Always(Operator[Any, Any]):
        def process(self, value: Any, ctx: Context) -> None:
            ctx.timers.register_processing_time(0)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            # Later than this one, yet not after now.
            ctx.timers.register_processing_time(timestamp + 1)
            ctx.emit(timestamp)
            self.clock.set_to(timestamp + 1)

        clock: Any

    stage = Stage(KeyBy(str), setup("always", Process(Always), keyed=True))
    Always.clock = stage.letters.clock
    async with create_task_group() as group:
        group.start_soon(stage.task.run)
        await stage.channels[0].send(Records(["x"]))
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    stage.out.take()
    assert 0 < len(stage.out.values) <= 200


# ----------------------------------------------------------------------------- errors


async def test_an_operator_that_fails_stops_the_task_and_is_closed() -> None:
    story: list[str] = []

    class Fails(Operator[Any, Any]):
        def process(self, value: Any, ctx: Context) -> None:
            raise ValueError("no")

        def close(self) -> None:
            story.append("closed")

    stage = Stage(setup("bad", Process(Fails)))
    with pytest.raises(ExceptionGroup) as raised:
        async with stage.running():
            await stage.send(0, 1)
    assert raised.group_contains(OperatorError, match="'bad' raised ValueError: no")
    assert story == ["closed"]


async def test_a_snapshot_that_cannot_be_written_stops_the_task() -> None:
    class Full(SlowWriter):
        async def write(self, epoch: int, frozen: Any) -> Any:
            raise OSError("disk full")

    step = setup("count", Fold(str, max), writer=Full())
    stage = Stage(KeyBy(str), step)
    with pytest.raises(ExceptionGroup) as raised:
        async with stage.running():
            await stage.control(0, Barrier(1))
    assert raised.group_contains(OSError, match="disk full")


async def test_a_task_can_be_stopped_while_a_coroutine_waits() -> None:
    started = False

    async def forever(value: Any, ctx: Context) -> None:
        nonlocal started
        started = True
        await anyio.sleep_forever()

    stage = Stage(process(forever))
    async with stage.running():
        await stage.send(0, 1)
        assert started
    assert not stage.done
