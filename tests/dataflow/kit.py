"""What the tests of this room share: a chain's other end, a source that a test feeds, a desk."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from flowrt.contract.elements import Element, Records
from flowrt.contract.operator import Context, Operator
from flowrt.contract.snapshot import (
    Acknowledge,
    Frozen,
    OpenEpoch,
    OperatorSnapshot,
    SourceEnded,
    SplitState,
    StateFile,
    TaskMessage,
)
from flowrt.contract.source import Chunk, Position, Source, SourceContext, Split
from flowrt.contract.steps import Fold, Process, Step
from flowrt.contract.world import World
from flowrt.dataflow.chains.chain import Chain, Downstream
from flowrt.dataflow.chains.part import StepSetup
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot
from flowrt.dataflow.tasks.acknowledge import Desk
from flowrt.state.memory import MemoryBackend
from flowrt.testing.world import ManualClock, manual_world


def record(value: Any, at: int | None = None, key: Any = None) -> tuple[str, Any, int | None, Any]:
    """A record as `Collected` tells of it."""
    return ("record", value, at, key)


def side(tag: str, value: Any, at: int | None = None) -> tuple[str, str, Any, int | None]:
    """A record of a side output as `Collected` tells of it."""
    return (f"side {tag}", "", value, at)


class Collected:
    """The far end of a chain: tells one by one, in order, what came."""

    def __init__(self) -> None:
        self.story: list[Any] = []
        self.runs: list[int] = []

    async def emit(self, records: Records) -> None:
        count = len(records.values)
        self.runs.append(count)
        times = records.timestamps or [None] * count
        keys = records.keys or [None] * count
        self.story += map(record, records.values, times, keys)

    async def emit_side(self, operator: str, tag: str, records: Records) -> None:
        times = records.timestamps or [None] * len(records.values)
        self.story += (
            side(tag, value, at) for value, at in zip(records.values, times, strict=True)
        )

    def watermark(self, timestamp: int) -> None:
        self.story.append(("watermark", timestamp))

    def idle(self) -> None:
        self.story.append("idle")

    @property
    def values(self) -> list[Any]:
        return [entry[1] for entry in self.story if entry[0] == "record"]


def setup(id: str, step: Step, **more: Any) -> StepSetup:
    """A step with the state it needs."""
    if isinstance(step, Fold):
        more.setdefault("keyed", True)
    if more.get("keyed"):
        more.setdefault("backend", MemoryBackend(id))
    return StepSetup(id, step, **more)


def chain_of(
    downstream: Downstream,
    *steps: StepSetup | Step,
    world: World | None = None,
    subtask: int = 0,
) -> Chain:
    """A chain; plain steps are called "0", "1" and so on."""
    setups = [
        step if isinstance(step, StepSetup) else setup(str(index), step)
        for index, step in enumerate(steps)
    ]
    return Chain(
        setups, downstream, world=world or manual_world(), subtask=subtask, parallelism=subtask + 1
    )


class Each(Operator[Any, Any]):
    """An operator made of one function `process(value, ctx)`."""

    def __init__(self, process: Any) -> None:
        self.process = process  # type: ignore[method-assign]


def process(function: Any) -> Process:
    """A `Process` step of one function."""
    return Process(lambda: Each(function))


def emit_twice(value: Any, ctx: Context) -> None:
    ctx.emit(value)
    ctx.emit(value, 7)


# ------------------------------------------------------------------------------------ tasks


@dataclass
class Letters:
    """What tasks told the coordinator."""

    world: World = field(default_factory=manual_world)
    sent: list[TaskMessage] = field(default_factory=list)

    def desk(self, task: str = "task", subtask: int = 0) -> Desk:
        return Desk(task, subtask, self.sent.append, self.world.clock)

    @property
    def clock(self) -> ManualClock:
        assert isinstance(self.world.clock, ManualClock)
        return self.world.clock

    @property
    def ended(self) -> int:
        return sum(isinstance(message, SourceEnded) for message in self.sent)

    @property
    def acknowledged(self) -> list[int]:
        return [message.epoch for message in self.sent if isinstance(message, Acknowledge)]

    def parts(self, epoch: int) -> list[OperatorSnapshot]:
        return [
            part
            for message in self.sent
            if isinstance(message, Acknowledge) and message.epoch == epoch
            for part in message.operators
        ]

    def splits(self, epoch: int) -> dict[str, SplitState]:
        return {split.id: split for part in self.parts(epoch) for split in part.splits}


class SlowWriter:
    """A snapshot writer that waits until it is let go on."""

    def __init__(self) -> None:
        self.spot = parking_spot()
        self.frozen: list[Frozen | None] = []

    async def write(self, epoch: int, frozen: Frozen | None) -> list[StateFile]:
        await self.spot.wait()
        for _ in frozen.encode() if frozen is not None else ():
            pass
        self.frozen.append(frozen)
        return []


class Reception:
    """The receiving end of a channel, opened by hand: tells element by element what came."""

    def __init__(self, capacity: int = 1_000) -> None:
        self.spot: ParkingSpot = parking_spot()
        self.channel = Channel(capacity, self.spot)
        self.elements: list[Element] = []

    def take(self) -> list[Element]:
        """Take all there is now, also behind barriers; return it."""
        taken: list[Element] = []
        while self.channel:
            taken += self.channel.take()
        self.elements += taken
        return taken

    def all(self) -> list[Element]:
        """Take all there is now; return it behind what was taken before."""
        self.take()
        return self.elements

    @property
    def values(self) -> list[Any]:
        """The values of all records taken so far."""
        return [v for e in self.elements if isinstance(e, Records) for v in e.values]


async def settle() -> None:
    """Let every task go as far as it can."""
    try:
        here = asyncio.current_task()
    except RuntimeError:
        await wait_all_tasks_blocked()
        return
    # As anyio does on asyncio, but without its sleeping.
    calm = 0
    while calm < 3:
        await checkpoint()
        others = (task for task in asyncio.all_tasks() if task is not here)
        calm = calm + 1 if all(map(_blocked, others)) else 0


def _blocked(task: asyncio.Task[Any]) -> bool:
    waiter = getattr(task, "_fut_waiter", None)
    return waiter is not None and not waiter.done()


# ------------------------------------------------------------------------------------ a source


class Feed:
    """One split, fed by the test. The position is the number of records that left it."""

    def __init__(self, *values: Any, ends: bool = False) -> None:
        self.story: list[str] = []
        self.given: list[Any] = [*values]
        self.chunks: list[Chunk[Any] | Exception | None] = []
        self.limits: list[int] = []
        self._spot = parking_spot()
        self._position = 0
        self.left: tuple[int, str] | None = None
        if values:
            self.give(*values)
        if ends:
            self.end()

    def give(self, *values: Any, at: Sequence[int | None] | None = None) -> None:
        self._position += len(values)
        timestamps = None if at is None else [*at]
        self.chunks.append(Chunk([*values], self._position, timestamps))
        self._spot.wake()

    def end(self) -> None:
        self.chunks.append(None)
        self._spot.wake()

    def fail(self, error: Exception) -> None:
        self.chunks.append(error)
        self._spot.wake()

    async def read(self, limit: int) -> Chunk[Any] | None:
        self.limits.append(limit)
        while not self.chunks:
            await self._spot.wait()
        chunk = self.chunks.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return self.left

    async def close(self) -> None:
        self.story.append("closed")


class FedSource(Source[Any]):
    """A source of feeds, by the id of their split."""

    def __init__(self, feeds: Mapping[str, Feed]) -> None:
        self.feeds = dict(feeds)
        self.opened: list[tuple[str, Position]] = []
        self.commits: list[tuple[int, dict[str, Position]]] = []

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        return [Split(id) for id in self.feeds]

    async def reader(self, split: Split, position: Position | None, ctx: SourceContext) -> Feed:
        self.opened.append((split.id, position))
        return self.feeds[split.id]

    async def committed(self, epoch: int, positions: Mapping[str, Position]) -> None:
        self.commits.append((epoch, dict(positions)))


def final(epoch: int, *, end: bool = True) -> OpenEpoch:
    """The message that ends a source: because the input is over, or to drain it."""
    return OpenEpoch(epoch, final=True, end=end)
