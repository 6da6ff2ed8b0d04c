"""A task that reads a source's splits, runs the chain behind it, and lets the barriers in."""

from __future__ import annotations

from collections import deque

import anyio
from anyio.abc import TaskGroup

from flowrt.contract.elements import MAX_TIMESTAMP, Barrier, EndOfStream
from flowrt.contract.errors import ConfigError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.logs import flow_log
from flowrt.contract.snapshot import (
    CoordinatorMessage,
    EpochCommitted,
    OpenEpoch,
    OperatorSnapshot,
    SourceEnded,
    SplitState,
)
from flowrt.contract.source import Position, Source, SourceContext
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.chains.chain import Chain, Cut
from flowrt.dataflow.channels.outputs import Outputs
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.sources.alarms import Alarms
from flowrt.dataflow.sources.source_reading import SourceReading, asked
from flowrt.dataflow.sources.source_splits import Splits, twice_listed
from flowrt.dataflow.sources.split_run import SplitRun
from flowrt.dataflow.sources.turn import Turn
from flowrt.dataflow.tasks.acknowledge import Desk, acknowledge
from flowrt.dataflow.tasks.traces import Traces

_log = flow_log()


class SourceTask:
    """Splits in, a chain, channels out."""

    def __init__(
        self,
        desk: Desk,
        source: Source[object],
        context: SourceContext,
        chain: Chain,
        outputs: Outputs,
        *,
        strategy: WatermarkStrategy[object] | None = None,
        max_rate: float | None = None,
        restored: list[SplitState] | None = None,
    ) -> None:
        self.desk = desk
        self.chain = chain
        self.outputs = outputs
        self.operators = chain.operators
        self.splits = Splits(strategy, context.subtask, context.parallelism, restored or [])
        self._source = source
        self._context = context
        self._spot = parking_spot()
        self._alarms = Alarms(desk.clock, self._spot)
        self._reading = SourceReading(
            source,
            context,
            self.splits,
            chain,
            self._spot,
            self._alarms,
            strategy=strategy,
            max_rate=max_rate,
        )
        self.times = self._reading.times
        self._messages: deque[CoordinatorMessage] = deque()
        self._told_end = False
        self._committing: tuple[int, dict[str, Position]] | None = None

    # ------------------------------------------------------------------ life

    async def open(self) -> None:
        """Open the operators of the chain, find the splits."""
        await self.chain.open()
        self._reading.add(await self._new_splits())

    async def run(self) -> None:
        """Return after the final epoch is committed."""
        self.times.begin()
        try:
            async with anyio.create_task_group() as group:
                async with anyio.create_task_group() as reading:
                    await self._reading.start(reading)
                    self._watch_splits()
                    await self._serve(group, reading)
                    reading.cancel_scope.cancel()
                self.outputs.broadcast(EndOfStream())
                await self._hear_last_commit()
        finally:
            self.times.end()

    async def close(self) -> None:
        """Close the operators.

        Called once, also after an error. Readers are closed by their own loops.
        """
        self._alarms.cancel()
        await self.chain.close()

    def trace(self, traces: Traces) -> None:
        """Trace some of the runs that are read."""
        self._reading.traces = traces

    def receive(self, message: CoordinatorMessage) -> None:
        """Take a message of the coordinator; never waits."""
        self._messages.append(message)
        self._spot.wake()

    # ------------------------------------------------------------------ control

    async def _serve(self, group: TaskGroup, reading: TaskGroup) -> None:
        """Do what messages and alarms ask for, until the final barrier is sent."""
        while True:
            self._tell_end()
            await self._wait()
            while self._messages:
                message = self._messages.popleft()
                if isinstance(message, EpochCommitted):
                    await self._committed(message.epoch)
                elif await self._cut(message, group):
                    return
            if self._alarms.take("idle"):
                await self._reading.rest()
            if self._alarms.take("timers"):
                await self._reading.ring()
            if self._alarms.take("splits"):
                # Beside the barriers: listing may take long.
                reading.start_soon(self._discover)

    async def _wait(self) -> None:
        self.times.rest()
        await self._spot.wait()
        self.times.work()

    async def _hear_last_commit(self) -> None:
        # The source hears of the final epoch too: its outside world may keep positions of its own.
        while not self._messages:
            await self._wait()
        await self._committed(self._messages.popleft().epoch)

    async def _cut(self, message: OpenEpoch, group: TaskGroup) -> bool:
        async with self._reading.turn:
            self._reading.stopping = message.final
            if message.end:
                await self.chain.advance(MAX_TIMESTAMP)
            started = self.desk.clock.monotonic_ns()
            positions = OperatorSnapshot(
                self._context.operator, self.desk.subtask, splits=self.splits.snapshot()
            )
            self._committing = (message.epoch, self.splits.positions())
            failpoint("source.barrier")
            cuts = self.chain.cut()
            failpoint("state.frozen")
            self.outputs.broadcast(Barrier(message.epoch, final=message.final))
            freeze_ns = self.desk.clock.monotonic_ns() - started
        group.start_soon(self._acknowledge, message.epoch, cuts, positions, freeze_ns)
        return message.final

    async def _acknowledge(
        self, epoch: int, cuts: list[Cut], positions: OperatorSnapshot, freeze_ns: int
    ) -> None:
        await acknowledge(self.desk, epoch, cuts, [positions], freeze_ns=freeze_ns)

    async def _committed(self, epoch: int) -> None:
        if self._committing is not None and self._committing[0] == epoch:
            answer = self._source.committed(*self._committing)
            await asked(self._context.operator, f"take the commit of epoch {epoch}", answer)

    # ------------------------------------------------------------------ splits

    def _tell_end(self) -> None:
        ends = self._source.discovery_interval_ms is None
        if ends and not self._told_end and self.splits.finished():
            self._told_end = True
            self.desk.send(SourceEnded(self.desk.task, self.desk.subtask))

    async def _new_splits(self) -> list[SplitRun]:
        operator = self._context.operator
        listed = await asked(operator, "list its splits", self._source.splits(self._context))
        if (id := twice_listed(listed)) is not None:
            raise ConfigError(
                f"source {operator!r} lists two splits with the id {id!r}: only one would be read. "
                "Give each split an id of its own"
            )
        if self._context.subtask == 0 and self.splits.knows_others_only(listed):
            _log.warning(
                "source %r: no split that the checkpoint knows is listed any more, and what is "
                "listed is read from its beginning. Was the source given another path by mistake?",
                operator,
            )
        back = [
            split.id
            for split, position in self.splits.come_back(listed)
            if await asked(
                operator,
                f"look at split {split.id!r}",
                self._source.goes_on(split, position, self._context),
            )
        ]
        return self.splits.update(listed, self.desk.clock.now_ms(), frozenset(back))

    async def _discover(self) -> None:
        self._reading.add(await self._new_splits())
        self._watch_splits()

    def _watch_splits(self) -> None:
        interval_ms = self._source.discovery_interval_ms
        if interval_ms is not None:
            self._alarms.set("splits", self.desk.clock.now_ms() + interval_ms)

    # ------------------------------------------------------------------ what it tells

    @property
    def turn(self) -> Turn:
        """Who of its readers may send now."""
        return self._reading.turn

    def statistics(self) -> dict[str, int]:
        """Return counters: records in and out, the watermark."""
        return {
            "records_in": self._reading.records,
            "records_out": self.outputs.records,
            "queued": 0,
            "watermark": self.splits.watermark,
        }

    def sent_ns(self) -> int:
        """Return how long the chain had what was read, with the wait for room behind it."""
        return self._reading.sent_ns()

    async def lag(self) -> tuple[int, str] | None:
        """Return how much is left in the splits being read, and its unit; None if unknown."""
        return await self._reading.lag()
