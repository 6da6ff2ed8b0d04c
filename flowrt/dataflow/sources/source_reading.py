"""Reads the splits of a source task and sends what they give through its chain.

Each split has a loop of its own; one at a time holds the `turn` while it sends a chunk on. Whoever
else sends takes the turn as well, so a barrier always falls between two chunks, where the positions
are exactly those of what was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from flowrt.contract.elements import Records
from flowrt.contract.errors import FlowrtError, InputError
from flowrt.contract.failures import failures
from flowrt.contract.source import Chunk, Reader, Source, SourceContext
from flowrt.contract.time import WatermarkStrategy
from flowrt.contract.world import Clock
from flowrt.dataflow.chains.chain import Chain
from flowrt.dataflow.chains.event_time import event_times, observe, watermark_of
from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot
from flowrt.dataflow.channels.run_length import RUN_LIMIT, RunLength
from flowrt.dataflow.sources.alarms import Alarms
from flowrt.dataflow.sources.source_splits import Splits
from flowrt.dataflow.sources.split_run import SplitRun
from flowrt.dataflow.sources.throttle import Throttle
from flowrt.dataflow.sources.turn import Turn
from flowrt.dataflow.tasks.task_times import TaskTimes, resting
from flowrt.dataflow.tasks.traces import Traces

T = TypeVar("T")

TURN_NS = 1_000_000
"""A source that always has data gives the loop a turn at least this often (1 ms)."""

CLOSELY = 16
"""After a read of so many records the next is watched closely: what it decodes is work, too."""

CLOSE_SECONDS = 30
"""How long a reader may take to close."""


class SourceReading:
    """The reader loops of one source subtask.

    Wakes `spot` when a split ended, and sets the alarms "idle" and "timers", at which `rest` and
    `ring` must be called. Nothing is sent any more once `stopping` is set under the turn.
    """

    def __init__(
        self,
        source: Source[object],
        context: SourceContext,
        splits: Splits,
        chain: Chain,
        spot: ParkingSpot,
        alarms: Alarms,
        *,
        strategy: WatermarkStrategy[object] | None = None,
        max_rate: float | None = None,
    ) -> None:
        self.turn = Turn()
        self.stopping = False
        self.records = 0
        self.times = TaskTimes(context.world.clock)
        self.traces: Traces | None = None
        self._source = source
        self._context = context
        self._splits = splits
        self._chain = chain
        self._spot = spot
        self._alarms = alarms
        self._clock: Clock = context.world.clock
        self._timestamp = strategy.timestamp if strategy is not None else None
        self._throttle = Throttle(max_rate) if max_rate is not None else None
        self._queue: deque[SplitRun] = deque()
        self._readers: dict[str, Reader[object]] = {}
        self._reading = 0
        self._group: TaskGroup | None = None
        self._told_idle = False
        self._length = RunLength()
        self._sent_ns = 0
        self._sending_since: int | None = None
        self._turn_started_ns = 0
        self._turn_records = 0

    async def start(self, group: TaskGroup) -> None:
        """Start reading in a group; cancelling the group is how it ends."""
        self._group = group
        self._start_readers()
        # What was restored knows its watermark, its rest and its timers: it need not hear of them.
        await self._settle()
        self._set_timer_alarm()

    def add(self, runs: Iterable[SplitRun]) -> None:
        """Read these splits too, as soon as it is their turn."""
        self._queue.extend(run for run in runs if not run.ended)
        if self._group is not None and not self.stopping:
            self._start_readers()

    def sent_ns(self) -> int:
        """Return how long it took to send what was read, with all steps and the wait for room."""
        since = self._sending_since
        return self._sent_ns + (0 if since is None else self._clock.monotonic_ns() - since)

    async def lag(self) -> tuple[int, str] | None:
        """Return how much is left in the splits being read, and its unit; None if unknown."""
        total, unit = 0, None
        for id, reader in list(self._readers.items()):
            run = self._splits.runs.get(id)
            lag = await reader.lag(run.position) if run is not None else None
            if lag is not None:
                total, unit = total + lag[0], lag[1]
        return None if unit is None else (total, unit)

    # ------------------------------------------------------------------ event and processing time

    async def rest(self) -> None:
        """Find the splits that became idle."""
        async with self.turn:
            self._splits.rest(self._clock.now_ms())
            await self._advance()
            self._tell_idle()
        self._watch_idleness()

    async def ring(self) -> None:
        """Fire the timers that are due."""
        async with self.turn:
            await self._chain.ring()
            self._set_timer_alarm()

    async def _settle(self) -> None:
        """Send what a split's beginning or end made of the watermark."""
        async with self.turn:
            if not self.stopping:
                await self._advance()
                self._tell_idle()
        self._watch_idleness()

    async def _advance(self) -> None:
        watermark = watermark_of(self._splits.advance, self._context.operator)
        if watermark is not None:
            await self._chain.advance(watermark)

    def _tell_idle(self) -> None:
        if not self._told_idle and self._splits.all_idle():
            self._told_idle = True
            self._chain.rest()

    async def _wake(self, run: SplitRun) -> None:
        run.idle = False
        if self._told_idle:
            self._told_idle = False
            # Whoever heard of the rest must hear that it is over, even if no record gets there.
            await self._chain.advance(self._splits.watermark)

    def _watch_idleness(self) -> None:
        if (when_ms := self._splits.rest_at()) is not None:
            self._alarms.set("idle", when_ms)

    def _set_timer_alarm(self) -> None:
        if (due_ms := self._chain.next_alarm()) is not None:
            self._alarms.set("timers", due_ms)

    # ------------------------------------------------------------------ reading

    def _start_readers(self) -> None:
        assert self._group is not None
        most = self._source.max_open_splits
        while self._queue and not (most and self._reading >= most):
            run = self._queue.popleft()
            # Now, and not only once its reader is open: it holds the watermark up.
            self._splits.begin(run, self._clock.now_ms())
            self._reading += 1
            self._group.start_soon(self._read_split, run)

    async def _read_split(self, run: SplitRun) -> None:
        self.times.work()
        id = run.split.id
        opening = self._source.reader(run.split, run.position, self._context)
        source = self._context.operator
        reader = self._readers[id] = await asked(source, f"open split {id!r}", opening)
        try:
            await self._read(run, reader)
        finally:
            del self._readers[id]
            self._reading -= 1
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await asked(source, f"close split {id!r}", reader.close())
        self._start_readers()
        await self._settle()
        self.times.rest()
        self._spot.wake()

    async def _read(self, run: SplitRun, reader: Reader[object]) -> None:
        most = RUN_LIMIT if self._throttle is None else self._throttle.limit()
        send, length, now_ns = self._sender(run), self._length, self._clock.monotonic_ns
        records = CLOSELY
        while True:
            reading = self._next(run, reader, min(most, length.limit))
            chunk = await resting(reading, self.times, closely=records >= CLOSELY)
            run.busy = True
            if chunk is not None and self._throttle is not None:
                await self._wait_until(self._throttle.take(len(chunk.values), self._clock.now_ms()))
            async with self.turn:
                if self.stopping:
                    return
                if chunk is None:
                    self._splits.end(run)
                    return
                self._sending_since = started = now_ns()
                trace = self.traces and self.traces.sample(len(chunk.values))
                if trace:
                    with trace:
                        records = await send(chunk)
                else:
                    records = await send(chunk)
                ended = now_ns()
                self._sending_since = None
                self._sent_ns += ended - started
                if records > 1 or length.limit < RUN_LIMIT:
                    length.took(records, ended - started)
                run.busy = False
            await self._give_turn(records, ended)

    async def _next(
        self, run: SplitRun, reader: Reader[object], limit: int
    ) -> Chunk[object] | None:
        try:
            return await reader.read(limit)
        except FlowrtError:
            raise
        except failures() as error:
            raise InputError(
                f"source {self._context.operator!r} could not read split {run.split.id!r} behind "
                f"position {run.position!r}: {type(error).__name__}: {error}"
            ) from error

    def _sender(self, run: SplitRun) -> Callable[[Chunk[object]], Awaitable[int]]:
        """Return what sends a chunk on and counts its records; made once, for it is hot."""
        run_chain, generator = self._chain.run, run.generator
        timestamp, clock = self._timestamp, self._clock
        keeps_time = self._chain.keeps_time
        chain, where = self._chain, partial(_where, self._context.operator, run)

        async def send(chunk: Chunk[object]) -> int:
            values = chunk.values
            count = len(values)
            timestamps: Sequence[int | None] | None = chunk.timestamps
            if values:
                if timestamp is not None:
                    timestamps = event_times(timestamp, values, self._context.operator)
                if run.idle or self._told_idle:
                    await self._wake(run)
                if generator is not None and timestamps is not None:
                    known = [timestamp for timestamp in timestamps if timestamp is not None]
                    if known:
                        observe(generator, known, self._context.operator)
                chain.where = where
                # The lists are given away with this: whoever has them may change them.
                await run_chain(Records(values, timestamps))  # type: ignore[arg-type]
                self.records += count
                run.records += count
            run.position = chunk.position
            if generator is not None and count:
                run.last_ms = clock.now_ms()
                self._watch_idleness()
                await self._advance()
            if keeps_time:
                self._set_timer_alarm()
            return count

        return send

    async def _wait_until(self, when_ms: float) -> None:
        if when_ms > self._clock.now_ms():
            spot = parking_spot()
            alarm = self._clock.call_at(int(when_ms), spot.wake)
            self.times.rest()
            try:
                await spot.wait()
            finally:
                self.times.work()
                alarm.cancel()

    async def _give_turn(self, records: int, now: int) -> None:
        self._turn_records += records
        if self._turn_records >= RUN_LIMIT or now - self._turn_started_ns >= TURN_NS:
            self.times.pause()
            await anyio.lowlevel.checkpoint()
            self.times.go_on()
            self._turn_records = 0
            self._turn_started_ns = self._clock.monotonic_ns()


def _where(source: str, run: SplitRun) -> str:
    behind = "" if run.position is None else f", behind position {run.position!r}"
    return f"source {source!r}, split {run.split.id!r}{behind}"


async def asked(source: str, what: str, answer: Awaitable[T]) -> T:
    """Return a source's answer; `InputError` saying what it could not do where it raises."""
    try:
        return await answer
    except FlowrtError:
        raise
    except failures() as error:
        raise InputError(
            f"source {source!r} could not {what}: {type(error).__name__}: {error}"
        ) from error
