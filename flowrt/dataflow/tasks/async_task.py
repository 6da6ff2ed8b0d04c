"""A task whose first step has many calls under way at once, with a chain of operators behind it.

What has not left is part of a snapshot, and its calls are made again after a restore: a barrier
waits for no answer of theirs. What is in front of it waits for room, which comes with the next
answers; where none come, because calls hang, the task takes all that in, so that senders who wait
for room can send the barrier.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from flowrt.contract.elements import Barrier, EndOfStream, Idle, Records, Watermark
from flowrt.contract.errors import FlowrtError, StateError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.failures import failures, survivable
from flowrt.contract.on_error import tries_of
from flowrt.contract.snapshot import CoordinatorMessage, OpenEpoch
from flowrt.dataflow.chains.blame import operator_error
from flowrt.dataflow.chains.chain import Chain, Cut
from flowrt.dataflow.chains.judge import Judge
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.outputs import Outputs, pick
from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot
from flowrt.dataflow.tasks.acknowledge import Desk, acknowledge
from flowrt.dataflow.tasks.in_flight import Failed, InFlight
from flowrt.dataflow.tasks.in_flight_snapshot import SnapshotForm
from flowrt.dataflow.tasks.input_loop import InputLoop

CALLS_A_TURN: Final = 64
"""How many calls that never wait a worker makes before others have their turn."""

PATIENCE_MS: Final = 1_000
"""How long a barrier waits for an answer, so that there is room for what is in front of it.

While answers come it is a short wait, for little more is in front of it than is done in 20 ms; and
if each epoch took all that in, a source quicker than the calls would give more with each of them.
"""

MOST_WAITING: Final = 65_536
"""Records that wait for their call, from which on also a barrier has to wait for answers.

Where calls hang, each epoch takes in what the channels before held, and they fill again: memory is
bounded first, snapshots are in time second.
"""


@dataclass(slots=True)
class AsyncSetup:
    """What the runtime gives for the step.

    `form` is that of records in snapshots; None where nothing is kept. `restored` is what this
    subtask takes over: see `share_of`.
    """

    id: str
    call: Callable[[Any], Awaitable[Any]]
    capacity: int
    ordered: bool
    form: SnapshotForm | None = None
    restored: Sequence[Any] = ()
    judge: Judge | None = None
    """Decides what comes after the last try of a call; None: the flow fails."""


class AsyncTask:
    """Channels in, calls under way, a chain, channels out."""

    def __init__(
        self,
        desk: Desk,
        inputs: Inputs,
        setup: AsyncSetup,
        chain: Chain,
        outputs: Outputs,
        spot: ParkingSpot,
    ) -> None:
        self.desk = desk
        self.inputs = inputs
        self.chain = chain
        self.outputs = outputs
        self.loop = InputLoop(inputs, self, spot, desk.clock)
        self.operators = (setup.id, *chain.operators)
        # As many answers may wait for their turn as calls may be under way: a worker with an answer
        # finds its next record before that answer has left.
        self.in_flight = InFlight(ordered=setup.ordered, limit=2 * setup.capacity)
        self._setup = setup
        self._spot = spot
        self._group: TaskGroup | None = None
        self._workers: TaskGroup | None = None
        self._hired = 0
        self._starting = 0
        self._resting: list[ParkingSpot] = []
        self._epoch_open = False
        self._answers = 0
        self._patient_until_ms: int | None = None
        """While an epoch is open: when to take in all, unless an answer comes before."""

    # ------------------------------------------------------------------ life

    async def open(self) -> None:
        """Open the operators, and take what was in flight at the snapshot."""
        await self.chain.open()
        if self._setup.form is not None:
            self._setup.form.restore(self.in_flight, self._setup.restored)

    async def run(self) -> None:
        """Return once all inputs ended, all calls are answered and the last snapshot is written."""
        ended = False
        async with anyio.create_task_group() as group:
            self._group = group
            async with anyio.create_task_group() as workers:
                self._workers = workers
                self._begin_calls()
                await self.loop.run()
                ended = True
                workers.cancel_scope.cancel()
        if not ended:
            # That scope ends so when one of the workers was cancelled alone, by user code.
            raise FlowrtError(
                f"a task that makes calls of operator {self._setup.id!r} was cancelled from "
                "outside: cancel what a call waits for, not the task that it runs in"
            )
        self.outputs.broadcast(EndOfStream())

    async def close(self) -> None:
        """Close the operators; called once, also after an error."""
        await self.chain.close()

    def receive(self, message: CoordinatorMessage) -> None:
        """Hear that an epoch is open: its barrier is on the way and must not wait for room."""
        if isinstance(message, OpenEpoch):
            self._epoch_open = True
            self._be_patient()
            self._spot.wake()

    # ------------------------------------------------------------------ see `Receiver`

    async def on_records(self, records: Records) -> None:
        """Begin calls; wait while as many records wait for their call as may be under way."""
        if self._setup.form is not None:
            try:
                self._setup.form.try_out(records.values)
            except StateError:
                records = await self._without_unfit(records, self._setup.form)
        self.in_flight.add(records)
        self._begin_calls()
        if self.in_flight.ready:
            await self._send()
        await self._until(self._has_room)
        # What is only taken in must not look quick, or each epoch would bring more of it.
        self.loop.hurried = self.loop.hurried or self._absorbs()

    async def on_watermark(self, timestamp: int) -> None:
        """Let a watermark leave behind the records before it."""
        self.in_flight.mark(Watermark(timestamp))
        if self.in_flight.ready:
            await self._send()

    def on_idle(self) -> None:
        """Let idleness leave behind the records before it."""
        self.in_flight.mark(Idle())
        self._spot.wake()

    async def on_barrier(self, barrier: Barrier, align_ns: int) -> None:
        """Freeze what is in flight and the chain, send the barrier on, write beside the stream."""
        # What is answered leaves in front of the barrier, so that it need not be asked for again.
        await self._send()
        if barrier.final:
            # Nothing follows that a slow answer could hold up, and the results belong to the end.
            await self._until(self._empty)
        self._epoch_open, self._patient_until_ms = False, None
        started = self.desk.clock.monotonic_ns()
        cuts = [Cut(self._setup.id, data=self._snapshot()), *self.chain.cut()]
        failpoint("state.frozen")
        self.outputs.broadcast(barrier)
        freeze_ns = self.desk.clock.monotonic_ns() - started
        assert self._group is not None
        self._group.start_soon(self._acknowledge, barrier.epoch, cuts, align_ns, freeze_ns)
        await self._until(self._has_room)

    def next_alarm(self) -> int | None:
        """See `Receiver.next_alarm`: what may leave is due now, patience when it ends."""
        if self.in_flight.ready:
            return 0
        due, patient_until_ms = self.chain.next_alarm(), self._patient_until_ms
        if patient_until_ms is None or self._absorbs():
            return due
        return patient_until_ms if due is None else min(due, patient_until_ms)

    async def ring(self) -> None:
        """See `Receiver.ring`."""
        await self._send()
        await self.chain.ring()

    # ------------------------------------------------------------------ calls

    def _begin_calls(self) -> None:
        """See to it that as many calls are under way as may be."""
        assert self._workers is not None
        wanted = self.in_flight.may_begin - self._starting
        while wanted > 0 and self._resting:
            self._resting.pop().wake()
            self._starting += 1
            wanted -= 1
        for _ in range(min(wanted, self._setup.capacity - self._hired)):
            self._workers.start_soon(self._work)
            self._hired += 1
            self._starting += 1

    async def _work(self) -> None:
        """Make one call after the other; a task for each call would cost more than the call."""
        spot = parking_spot()
        while True:
            self._starting -= 1
            await self._make_calls()
            self._resting.append(spot)
            await spot.wait()

    async def _make_calls(self) -> None:
        in_flight, call = self.in_flight, self._setup.call
        calls = 0
        while (record := in_flight.next()) is not None:
            if calls == CALLS_A_TURN:
                await anyio.lowlevel.checkpoint()
                calls = 0
            calls += 1
            try:
                result = await call(record.value)
            except FlowrtError:
                raise
            except failures() as error:
                if self._setup.judge is None or not isinstance(error, survivable()):
                    raise operator_error(self._setup.id, error, value=record.value) from error
                self._answers += 1
                if in_flight.fail(record, error):
                    self._spot.wake()
                continue
            self._answers += 1
            if in_flight.finish(record, result):
                self._spot.wake()

    def _be_patient(self) -> None:
        self._patient_until_ms = self.desk.clock.now_ms() + PATIENCE_MS

    def _absorbs(self) -> bool:
        """Say whether all in front of a barrier is taken in: no answer has come for long."""
        until = self._patient_until_ms
        return self._epoch_open and until is not None and self.desk.clock.now_ms() >= until

    def _has_room(self) -> bool:
        # Some wait at hand, so that a worker with an answer finds its next record at once.
        most = self._setup.capacity
        if self._absorbs():
            most = max(most, MOST_WAITING)
        return self.in_flight.waiting < most

    def _empty(self) -> bool:
        return not self.in_flight.size

    async def _until(self, enough: Callable[[], bool]) -> None:
        """Send answers on as they come and keep the chain's time, until it is enough."""
        if enough():
            return
        while not enough():
            answers = self._answers
            await self.loop.wait(idle=False)
            if self._epoch_open and self._answers > answers:
                self._be_patient()
        # A wake that was meant for the inputs may have been among those.
        self._spot.wake()

    async def _send(self) -> None:
        leaving = self.in_flight.take()
        self._begin_calls()
        for one in leaving:
            match one:
                case Records():
                    await self.chain.run(one)
                case Watermark(timestamp):
                    await self.chain.advance(timestamp)
                case Failed(call, error):
                    await self._fail(error, call.value, call.timestamp)
                case _:
                    self.chain.rest()

    async def _fail(self, error: BaseException, value: Any, timestamp: int | None) -> None:
        judge = self._setup.judge
        if judge is None:
            raise error
        await judge.failed(error, value, timestamp, None, tries_of(error))

    async def _without_unfit(self, records: Records, form: SnapshotForm) -> Records:
        """Return a run without those that no snapshot could hold; `StateError` where they must."""
        fitting = []
        times = records.timestamps or [None] * len(records.values)
        for index, (value, timestamp) in enumerate(zip(records.values, times, strict=True)):
            try:
                form.try_out([value])
            except StateError as error:
                await self._fail(error, value, timestamp)
            else:
                fitting.append(index)
        return pick(records, fitting)

    def judges(self) -> list[Judge]:
        """See `Chain.judges`; with that of the calls."""
        own = self._setup.judge
        return self.chain.judges() if own is None else [own, *self.chain.judges()]

    def _snapshot(self) -> Any:
        # Where nothing is kept any value will do.
        return None if self._setup.form is None else self._setup.form.snapshot(self.in_flight)

    async def _acknowledge(
        self, epoch: int, cuts: list[Cut], align_ns: int, freeze_ns: int
    ) -> None:
        await acknowledge(self.desk, epoch, cuts, align_ns=align_ns, freeze_ns=freeze_ns)

    def statistics(self) -> dict[str, int]:
        """Return counters: records in and out, records waiting or in flight, the watermark."""
        waiting = sum(channel.size for channel in self.inputs.channels)
        return {
            "records_in": self.loop.records,
            "records_out": self.outputs.records,
            "queued": waiting + self.in_flight.size,
            "watermark": self.inputs.watermarks.current,
        }
