"""A service that answers when a test says so, and a task that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group

from flowrt.contract.elements import Barrier, EndOfStream, Records
from flowrt.contract.snapshot import OpenEpoch
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.outputs import Forward, Outputs
from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot
from flowrt.dataflow.tasks.async_task import PATIENCE_MS, AsyncSetup, AsyncTask
from flowrt.dataflow.tasks.in_flight_snapshot import SnapshotForm, share_of
from flowrt.state.key_groups import key_group
from flowrt.state.values import DescribedValues
from tests.dataflow.kit import Letters, Reception, chain_of, settle

LAST = Barrier(9, final=True)
CODEC = DescribedValues("ask", "a record in flight", None)


class Service:
    """Calls that wait until the test answers them; the answer is the value as text."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.most = 0
        self._open: dict[Any, ParkingSpot] = {}

    async def call(self, value: Any) -> Any:
        self.asked.append(value)
        spot = self._open[value] = parking_spot()
        self.most = max(self.most, len(self._open))
        try:
            await spot.wait()
        finally:
            del self._open[value]
        if isinstance(value, Exception):
            raise value
        return str(value)

    @property
    def under_way(self) -> list[Any]:
        return list(self._open)

    def answer_soon(self, *values: Any) -> None:
        for value in values:
            self._open[value].wake()

    async def answer(self, *values: Any) -> None:
        self.answer_soon(*values)
        await settle()

    async def answer_all(self) -> None:
        while self._open:
            await self.answer(*self._open)


class Stage:
    """A task with calls between channels."""

    def __init__(
        self,
        *steps: Any,
        call: Any = None,
        capacity: int = 2,
        ordered: bool = True,
        inputs: int = 1,
        room: int = 1_000,
        channel: int = 1_000,
        restored: Any = None,
        kept: bool = True,
        adapts: bool = False,
    ) -> None:
        spot = parking_spot()
        self.service = Service()
        self.channels = [Channel(channel, spot, adapts=adapts) for _ in range(inputs)]
        self.letters = Letters()
        self.out = Reception(room)
        outputs = Outputs([Forward(self.out.channel)])
        form = SnapshotForm(CODEC, key_group) if kept else None
        asked = AsyncSetup(
            "ask", call or self.service.call, capacity, ordered, form, restored or ()
        )
        self.chain = chain_of(outputs, *steps, world=self.letters.world)
        inbox = Inputs(self.channels, blocking=True)
        self.task = AsyncTask(self.letters.desk(), inbox, asked, self.chain, outputs, spot)
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

    @property
    def values(self) -> list[Any]:
        """The values of all records that came out until now."""
        self.out.take()
        return self.out.values

    async def send(self, *values: Any, index: int = 0, at: list[int | None] | None = None) -> None:
        await self.channels[index].send(Records([*values], at))
        await settle()

    async def control(self, element: Any, index: int = 0) -> None:
        self.channels[index].send_control(element)
        await settle()

    async def epoch(self, epoch: int) -> None:
        """Let an epoch open, and its barrier come after what was sent; no answer comes for long."""
        self.task.receive(OpenEpoch(epoch))
        await settle()
        self.letters.clock.advance(PATIENCE_MS)
        await settle()
        for index in range(len(self.channels)):
            await self.control(Barrier(epoch), index)

    async def end(self) -> None:
        for index in range(len(self.channels)):
            await self.control(LAST, index)
            await self.control(EndOfStream(), index)

    def in_flight(self, epoch: int) -> list[Any]:
        """What the snapshot of an epoch has in flight: values, and watermarks as (time,)."""
        data = next(part.data for part in self.letters.parts(epoch) if part.operator == "ask")
        return shown(share_of([data], 0, 1))

    def restored(self, epoch: int) -> list[Any]:
        data = next(part.data for part in self.letters.parts(epoch) if part.operator == "ask")
        return share_of([data], 0, 1)


def in_order(found: list[Any], ordered: bool) -> list[Any]:
    """What came out, as it came where the order is promised."""
    return found if ordered else sorted(found, key=lambda one: (len(str(one)), one))


def pairs(run: Any) -> list[tuple[Any, int | None]]:
    assert isinstance(run, Records)
    times = run.timestamps or [None] * len(run)
    return list(zip(run.values, times, strict=True))


def shown(entries: list[Any]) -> list[Any]:
    return [(one,) if isinstance(one, int) else CODEC.decode(one[0]) for one in entries]
