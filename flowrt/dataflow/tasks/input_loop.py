"""The loop of every task that reads channels: take all there is, hand it on, wait for more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import anyio.lowlevel

from flowrt.contract.elements import Barrier, EndOfStream, Idle, Records, Sampled, Watermark
from flowrt.contract.failpoints import failpoint
from flowrt.contract.world import Alarm, Clock
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.parking import ParkingSpot
from flowrt.dataflow.channels.run_length import RUN_LIMIT
from flowrt.dataflow.tasks.task_times import TaskTimes
from flowrt.dataflow.tasks.traces import Traces

Take: TypeAlias = Callable[[Records], Awaitable[None]]
"""What takes the runs of records of one input."""


class Receiver(Protocol):
    """What a task does with what arrives."""

    async def on_records(self, records: Records) -> None:
        """Take a run of records."""
        ...

    async def on_watermark(self, timestamp: int) -> None:
        """Take the new minimum of the inputs' watermarks (ms)."""
        ...

    def on_idle(self) -> None:
        """Hear that all inputs are idle."""
        ...

    async def on_barrier(self, barrier: Barrier, align_ns: int) -> None:
        """Take a complete barrier, and how long the alignment took."""
        ...

    def next_alarm(self) -> int | None:
        """Return when `ring` must be called (ms of processing time); None for never."""
        ...

    async def ring(self) -> None:
        """Do what the clock made due."""
        ...


class InputLoop:
    """Drives a receiver from its inputs until all of them ended.

    `takers`, one for each input, take the records in place of `receiver.on_records`.
    """

    def __init__(
        self,
        inputs: Inputs,
        receiver: Receiver,
        spot: ParkingSpot,
        clock: Clock,
        takers: Sequence[Take] | None = None,
    ) -> None:
        self._inputs = inputs
        self._receiver = receiver
        self._takers = takers or [receiver.on_records] * len(inputs.channels)
        self._spot = spot
        self._clock = clock
        self._now_ns = clock.monotonic_ns
        self._minimum = inputs.watermarks
        self._ended = False
        self._turn_records = 0
        self._aligning_since = 0
        self._alarm: tuple[int, Alarm] | None = None
        self.records = 0
        self.times = TaskTimes(clock)
        self.traces: Traces | None = None
        # The trace to which what an input brings belongs, by input.
        self._traced: dict[int, object] = {}
        self.hurried = False
        """Set by a receiver that took in records without doing what they are there for."""

    async def run(self) -> None:
        """Return once all inputs ended."""
        take, channels = self._inputs.take, self._inputs.channels
        self.times.begin()
        try:
            while True:
                taken = take()
                waited_for = [c for i, _ in taken if (c := channels[i]).waited_for is not None]
                started = self._clock.monotonic_ns() if waited_for else 0
                for index, elements in taken:
                    for element in elements:
                        if type(element) is Records:
                            await self._records(index, element)
                        else:
                            await self._control(index, element)
                if waited_for:
                    took = None if self.hurried else self._clock.monotonic_ns() - started
                    for channel in waited_for:
                        channel.took(took)
                self.hurried = False
                if self._ended:
                    return
                # A wake since the last `take` is kept, so nothing that arrived meanwhile is missed.
                await self.wait()
        finally:
            self.times.end()
            if self._alarm is not None:
                self._alarm[1].cancel()

    async def wait(self, *, idle: bool = True) -> None:
        """Wait until the task is woken, and do what the clock makes due; also for the receiver.

        `idle`: it is input that the task waits for, and not the end of work that is under way.
        """
        if (due := self._receiver.next_alarm()) is not None:
            await self._keep_time(due)
        if idle:
            # What `rest` and `work` do for a task that does one thing, for every hop of a record
            # pays for it.
            times, now_ns = self.times, self._now_ns
            times.working, times.since = 0, now_ns()
            await self._spot.wait()
            times.waited_ns += now_ns() - times.since
            times.working = 1
        else:
            await self._spot.wait()
        # The wake came from another task, or belongs to a barrier: the loop had its turn.
        self._turn_records = 0

    async def _records(self, index: int, records: Records) -> None:
        count = len(records.values)
        if self._turn_records >= RUN_LIMIT:
            # Many inputs, or one that refills while we wait: others want their turn too.
            self.times.pause()
            await anyio.lowlevel.checkpoint()
            self.times.go_on()
            self._turn_records = 0
        self._turn_records += count
        self.records += count
        if self._minimum.wake(index):
            await self._receiver.on_watermark(self._minimum.current)
        if self._traced and index in self._traced and self.traces is not None:
            with self.traces.follow(self._traced[index], count):
                await self._takers[index](records)
        else:
            await self._takers[index](records)

    async def _control(self, index: int, element: object) -> None:
        match element:
            case Watermark(timestamp):
                await self._advance(self._minimum.advance(index, timestamp))
            case Idle():
                await self._advance(self._minimum.rest(index))
                if self._minimum.idle:
                    self._receiver.on_idle()
            case Barrier():
                await self._barrier(index, element)
            case EndOfStream():
                self._ended = self._inputs.end()
            case Sampled(None):
                self._traced.pop(index, None)
            case Sampled(trace):
                self._traced[index] = trace

    async def _advance(self, watermark: int | None) -> None:
        if watermark is not None:
            await self._receiver.on_watermark(watermark)

    async def _barrier(self, index: int, barrier: Barrier) -> None:
        alignment = self._inputs.alignment
        now = self._clock.monotonic_ns()
        if alignment.epoch is None:
            self._aligning_since = now
            failpoint("operator.first_barrier")
        if alignment.deliver(index, barrier.epoch):
            await self._receiver.on_barrier(barrier, now - self._aligning_since)
        # What waits behind the barrier, here or in inputs held back, has had its wake-up already.
        self._spot.wake()

    async def _keep_time(self, due: int) -> None:
        if due <= self._clock.now_ms():
            await self._receiver.ring()
            # A timer that sets itself anew for now must not keep the loop to itself.
            await anyio.lowlevel.checkpoint()
            self._spot.wake()
        elif self._alarm is None or self._alarm[0] != due:
            if self._alarm is not None:
                self._alarm[1].cancel()
            self._alarm = (due, self._clock.call_at(due, self._ring_soon))

    def _ring_soon(self) -> None:
        self._alarm = None
        self._spot.wake()
