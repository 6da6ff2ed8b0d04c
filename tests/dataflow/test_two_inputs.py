"""A task whose chain begins with an operator of two inputs: sides, event time, rests, dealing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowrt.contract.elements import Barrier, EndOfStream, Idle, Records, Watermark
from flowrt.contract.operator import Context, CoOperator
from flowrt.contract.snapshot import OperatorSnapshot
from flowrt.contract.state import BroadcastState, ValueState
from flowrt.contract.steps import Connect, Map
from flowrt.dataflow.chains.broadcast_snapshot import holds_states
from flowrt.dataflow.chains.part import StepSetup
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.inputs import Inputs, LeftWatermark
from flowrt.dataflow.channels.outputs import Broadcast, Forward, Outputs, Rebalance, partitioner
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.tasks.operator_task import OperatorTask
from flowrt.state.broadcast import BroadcastStates
from flowrt.state.key_groups import key_group
from flowrt.state.memory import MemoryBackend
from tests.dataflow.kit import Letters, Reception, chain_of, settle

pytestmark = pytest.mark.anyio


class Tell(CoOperator[Any, Any, Any]):
    """Sends what came on which side, and when."""

    def process_left(self, value: Any, ctx: Context) -> None:
        ctx.emit(("left", value, ctx.watermark))

    async def process_right(self, value: Any, ctx: Context) -> None:
        ctx.emit(("right", value, ctx.watermark))


class Ruled(CoOperator[Any, Any, Any]):
    """Sends values with the rule that holds."""

    rules = BroadcastState(str, int)
    count = ValueState(int, default=0)

    def process_left(self, value: Any, ctx: Context) -> None:
        self.count.set(self.count.get() + 1)
        ctx.emit((value, self.rules.get("rule"), self.count.get()))

    def process_right(self, value: Any, ctx: Context) -> None:
        self.rules.put("rule", value)


class Stage:
    """A task with two channels on the left and one on the right."""

    def __init__(self, *steps: Any, broadcast: bool = False, subtask: int = 0) -> None:
        spot = parking_spot()
        self.channels = [Channel(1_000, spot) for _ in range(3)]
        self.letters = Letters()
        self.out = Reception()
        outputs = Outputs([Forward(self.out.channel)])
        chain = chain_of(outputs, *steps, world=self.letters.world, subtask=subtask)
        inputs = Inputs(self.channels, blocking=True, timed=2 if broadcast else None)
        desk = self.letters.desk(subtask=subtask)
        self.task = OperatorTask(desk, inputs, chain, outputs, spot, left=2)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the task beside the body."""
        async with anyio.create_task_group() as group:
            await self.task.open()
            group.start_soon(self.task.run)
            await settle()
            yield
            group.cancel_scope.cancel()
        await self.task.close()

    async def send(self, index: int, *values: Any, keys: list[Any] | None = None) -> None:
        await self.channels[index].send(Records([*values], keys=keys))
        await settle()

    async def control(self, index: int, element: Any) -> None:
        self.channels[index].send_control(element)
        await settle()


def ruled(**more: Any) -> StepSetup:
    step = Connect(Ruled, broadcast=True)
    backend, states = MemoryBackend("ruled"), BroadcastStates("ruled")
    return StepSetup("ruled", step, keyed=True, backend=backend, broadcast=states, **more)


async def test_each_channel_belongs_to_its_side() -> None:
    stage = Stage(Connect(Tell), Map(lambda told: told[:2]))
    async with stage.running():
        await stage.send(0, "a")
        await stage.send(2, "b", "c")
        await stage.send(1, "d")

    stage.out.take()
    assert stage.out.values == [("left", "a"), ("right", "b"), ("right", "c"), ("left", "d")]


async def test_both_sides_share_one_watermark_and_one_barrier() -> None:
    stage = Stage(Connect(Tell))
    async with stage.running():
        for index in (0, 1, 2):
            await stage.control(index, Watermark(5 + index))
            await stage.control(index, Barrier(1))
            await stage.send(index, index)

    assert stage.out.all() == [
        Watermark(5),
        Barrier(1),
        Records([("left", 0, 5), ("left", 1, 5), ("right", 2, 5)], [None, None, None]),
    ]


async def test_a_broadcast_side_has_no_say_in_event_time() -> None:
    stage = Stage(ruled(), broadcast=True)
    async with stage.running():
        await stage.control(2, Watermark(99))
        await stage.control(0, Watermark(5))
        await stage.control(1, Watermark(6))
        await stage.control(2, Idle())
        await stage.send(2, 7)
        await stage.control(0, Idle())
        await stage.control(1, Idle())

    assert stage.out.all() == [Watermark(6), Idle()]


async def test_a_rest_lasts_through_broadcast_records() -> None:
    class Loud(Tell):
        rules = BroadcastState(str, int)

    states = BroadcastStates("loud")
    step = StepSetup("loud", Connect(Loud, broadcast=True), broadcast=states)
    stage = Stage(step, broadcast=True)
    async with stage.running():
        for index in (0, 1):
            await stage.control(index, Idle())
        stage.out.take()
        await stage.send(2, 7)

        assert [type(element) for element in stage.out.take()] == [Records, Idle]


async def test_left_watermark_hears_the_left_alone() -> None:
    minimum = LeftWatermark(1, 3)

    assert minimum.advance(1, 99) is None
    assert not minimum.wake(1)
    assert minimum.rest(0) is None
    assert minimum.idle
    assert minimum.rest(1) is None
    assert not minimum.wake(1)
    assert minimum.wake(0)
    assert minimum.advance(0, 7) == 7


@pytest.mark.parametrize("subtask", [0, 1])
async def test_the_first_subtask_keeps_the_rules_for_all(subtask: int) -> None:
    stage = Stage(ruled(writer=None), broadcast=True, subtask=subtask)
    async with stage.running():
        await stage.send(2, 7)
        for index in (0, 1, 2):
            await stage.control(index, Barrier(1))
        await stage.send(2, 8)

    (part,) = stage.letters.parts(1)
    assert isinstance(part, OperatorSnapshot)
    assert holds_states(part.data) == (subtask == 0)

    again = Stage(ruled(restored=[] if part.data is None else [part.data]), broadcast=True)
    async with again.running():
        await again.send(0, "a", keys=["k"])
    again.out.take()
    assert again.out.values == [("a", 7 if subtask == 0 else None, 1)]


async def test_rules_that_nothing_declares_any_more_stay_in_snapshots() -> None:
    states = BroadcastStates("o")
    states.restore({"gone": b"bytes"})

    assert states.snapshot() == {"gone": b"bytes"}


# -------------------------------------------------------------------------------- what is sent


async def test_broadcast_sends_every_run_to_all_in_lists_of_their_own() -> None:
    outs = [Reception() for _ in range(3)]
    spread = partitioner("broadcast", [out.channel for out in outs], key_group)
    assert type(spread) is Broadcast
    await spread.send(Records([1, 2], [3, 4]))
    await spread.send(Records([5], [6]))

    runs = [out.take()[0] for out in outs]
    assert runs == [Records([1, 2, 5], [3, 4, 6])] * 3
    assert len({id(run.values) for run in runs if isinstance(run, Records)}) == 3


@pytest.mark.parametrize("sizes", [[1] * 10, [10], [3, 7], [2, 2, 2, 2, 2], [4, 0, 6]])
async def test_rebalance_deals_records_out_evenly_however_they_come(sizes: list[int]) -> None:
    outs = [Reception() for _ in range(3)]
    spread = Rebalance([out.channel for out in outs])
    sent = 0
    for size in sizes:
        run = [*range(sent, sent + size)]
        await spread.send(Records([*run], [*run], [*run]))
        sent += size

    for index, out in enumerate(outs):
        out.take()
        assert out.values == [*range(index, 10, 3)]


async def test_the_end_of_both_sides_is_the_end() -> None:
    stage = Stage(Connect(Tell))
    async with stage.running():
        for index in (2, 0):
            await stage.control(index, EndOfStream())
        assert stage.out.take() == []
        await stage.control(1, EndOfStream())
        assert stage.out.take() == [EndOfStream()]
