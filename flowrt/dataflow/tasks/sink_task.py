"""A task that gives what its input channels bring to a sink's writer."""

from __future__ import annotations

from typing import Any

from flowrt.contract.elements import Barrier, Records
from flowrt.contract.errors import FlowrtError, SinkError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.failures import failures
from flowrt.contract.sink import Writer
from flowrt.contract.snapshot import OperatorSnapshot
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.parking import ParkingSpot
from flowrt.dataflow.tasks.acknowledge import Desk, acknowledge
from flowrt.dataflow.tasks.input_loop import InputLoop


class SinkTask:
    """Channels in, a writer at the end. It waits for the writer: that is the backpressure."""

    def __init__(
        self, desk: Desk, inputs: Inputs, sink: str, writer: Writer[Any], spot: ParkingSpot
    ) -> None:
        self.desk = desk
        self.inputs = inputs
        self.loop = InputLoop(inputs, self, spot, desk.clock)
        self._sink = sink
        self._writer = writer

    async def open(self) -> None:
        """Nothing to open: the writer is."""

    async def run(self) -> None:
        """Return once all inputs ended and the last epoch is acknowledged."""
        await self.loop.run()

    async def close(self) -> None:
        """Close the writer; called once, also after an error."""
        try:
            await self._writer.close()
        except FlowrtError:
            raise
        except failures() as error:
            raise self._failed("close its writer", error) from error

    async def on_records(self, records: Records) -> None:
        """See `Receiver.on_records`."""
        try:
            await self._writer.write(records.values, records.timestamps)
        except FlowrtError:
            raise
        except failures() as error:
            raise self._failed("write", error) from error

    async def on_watermark(self, timestamp: int) -> None:
        """See `Receiver.on_watermark`; a sink has no use for it beyond showing it."""

    def on_idle(self) -> None:
        """See `Receiver.on_idle`."""

    async def on_barrier(self, barrier: Barrier, align_ns: int) -> None:
        """See `Receiver.on_barrier`: the epoch ends here."""
        started = self.desk.clock.monotonic_ns()
        try:
            committable = await self._writer.prepare(barrier.epoch, final=barrier.final)
        except FlowrtError:
            raise
        except failures() as error:
            raise self._failed(f"prepare epoch {barrier.epoch}", error) from error
        failpoint("sink.prepared")
        part = OperatorSnapshot(self._sink, self.desk.subtask, committable=committable)
        prepare_ns = self.desk.clock.monotonic_ns() - started
        await acknowledge(
            self.desk, barrier.epoch, (), [part], align_ns=align_ns, freeze_ns=prepare_ns
        )

    def next_alarm(self) -> int | None:
        """See `Receiver.next_alarm`."""
        return None

    async def ring(self) -> None:
        """See `Receiver.ring`."""

    def _failed(self, what: str, error: BaseException) -> SinkError:
        return SinkError(f"sink {self._sink!r} could not {what}: {type(error).__name__}: {error}")

    def statistics(self) -> dict[str, int]:
        """Return counters: records in, records waiting in the inputs, the watermark."""
        return {
            "records_in": self.loop.records,
            "records_out": self.loop.records,
            "queued": sum(channel.size for channel in self.inputs.channels),
            "watermark": self.inputs.watermarks.current,
        }
