"""A task that runs a chain of operators between its input channels and its outputs."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from flowrt.contract.elements import Barrier, EndOfStream, Records
from flowrt.contract.failpoints import failpoint
from flowrt.dataflow.chains.chain import Chain, Cut
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.outputs import Outputs
from flowrt.dataflow.channels.parking import ParkingSpot
from flowrt.dataflow.tasks.acknowledge import Desk, acknowledge
from flowrt.dataflow.tasks.input_loop import InputLoop, Take


class OperatorTask:
    """Channels in, a chain, channels out.

    Where the chain begins with an operator of two inputs, the first `left` channels bring the
    records of the first.
    """

    def __init__(
        self,
        desk: Desk,
        inputs: Inputs,
        chain: Chain,
        outputs: Outputs,
        spot: ParkingSpot,
        left: int | None = None,
    ) -> None:
        self.desk = desk
        self.inputs = inputs
        self.chain = chain
        self.outputs = outputs
        self.operators = chain.operators
        self._group: TaskGroup | None = None
        self.next_alarm: Callable[[], int | None] = chain.next_alarm
        self.ring = chain.ring
        self.on_records = chain.run
        self.on_watermark = chain.advance
        self.on_idle = chain.rest
        takers: list[Take] | None = None
        if left is not None:
            takers = [*[chain.run] * left, *[self._take_right] * (len(inputs.channels) - left)]
        self.loop = InputLoop(inputs, self, spot, desk.clock, takers)

    async def open(self) -> None:
        """Open the operators, with their state restored."""
        await self.chain.open()

    async def run(self) -> None:
        """Return once all inputs ended and the last snapshot is acknowledged."""
        async with anyio.create_task_group() as group:
            self._group = group
            await self.loop.run()
        self.outputs.broadcast(EndOfStream())

    async def close(self) -> None:
        """Close the operators; called once, also after an error."""
        await self.chain.close()

    async def _take_right(self, records: Records) -> None:
        await self.chain.run_right(records)
        if self.inputs.watermarks.idle:
            # A broadcast record wakes those that follow, and nobody else says that we rest.
            self.chain.rest()

    async def on_barrier(self, barrier: Barrier, align_ns: int) -> None:
        """See `Receiver.on_barrier`: freeze, send the barrier on, write beside the stream."""
        started = self.desk.clock.monotonic_ns()
        cuts = self.chain.cut()
        failpoint("state.frozen")
        self.outputs.broadcast(barrier)
        freeze_ns = self.desk.clock.monotonic_ns() - started
        assert self._group is not None
        self._group.start_soon(self._acknowledge, barrier.epoch, cuts, align_ns, freeze_ns)

    async def _acknowledge(
        self, epoch: int, cuts: list[Cut], align_ns: int, freeze_ns: int
    ) -> None:
        await acknowledge(self.desk, epoch, cuts, align_ns=align_ns, freeze_ns=freeze_ns)

    def statistics(self) -> dict[str, int]:
        """Return counters: records in and out, records waiting in the inputs, the watermark."""
        return {
            "records_in": self.loop.records,
            "records_out": self.outputs.records,
            "queued": sum(channel.size for channel in self.inputs.channels),
            "watermark": self.inputs.watermarks.current,
        }
