"""The operators of one task: runs of records, watermarks and the clock go through them in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Protocol

from anyio.lowlevel import checkpoint

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP, Records
from flowrt.contract.snapshot import Frozen, KeyedBackend, SnapshotWriter
from flowrt.contract.steps import AssignTimestamps
from flowrt.contract.world import World
from flowrt.dataflow.chains.blame import called, snapshot_of
from flowrt.dataflow.chains.broadcast_snapshot import take_states, with_states, writing
from flowrt.dataflow.chains.event_time import EventTime
from flowrt.dataflow.chains.judge import Judge
from flowrt.dataflow.chains.lines import RIGHT, Lines
from flowrt.dataflow.chains.part import Part, StepSetup, is_one_for_one, part_of
from flowrt.dataflow.chains.samples import StepFigures, step_figures
from flowrt.dataflow.chains.timers import TimerQueue
from flowrt.dataflow.channels.run_length import RUN_LIMIT


class Downstream(Protocol):
    """Where a chain's results go: the task's outputs, or whatever a test puts there."""

    async def emit(self, records: Records) -> None:
        """Take a run of records of the main output; waits while there is no room."""
        ...

    async def emit_side(self, operator: str, tag: str, records: Records) -> None:
        """Take a run of records of a side output; waits while there is no room."""
        ...

    def watermark(self, timestamp: int) -> None:
        """Take a watermark (ms)."""
        ...

    def idle(self) -> None:
        """Hear that nothing will come for now."""
        ...


@dataclass(slots=True)
class Cut:
    """One step's state at a barrier; encoding and writing it goes on beside the stream."""

    id: str
    writer: SnapshotWriter | None = None
    frozen: Frozen | None = None
    data: Any = None
    watermark: int | None = None
    shapes: dict[str, Any] = field(default_factory=dict)


class Chain:
    """Runs a line of steps. One task at a time may call it."""

    def __init__(
        self,
        steps: Sequence[StepSetup],
        downstream: Downstream,
        *,
        world: World,
        subtask: int,
        parallelism: int,
    ) -> None:
        self._downstream = downstream
        self._clock = world.clock
        self._setups = steps
        self.where: Callable[[], str | None] | None = None
        """Says where the records of the run under way come from, for people; a source knows."""
        self._parts = [
            part_of(setup, self._judge(setup, world), world, subtask, parallelism)
            for setup in steps
        ]
        self._times = {
            index: EventTime(setup.id, setup.step, world.clock)
            for index, setup in enumerate(steps)
            if isinstance(setup.step, AssignTimestamps)
        }
        self._lines = Lines(
            self._parts,
            self._times,
            downstream.emit,
            self._assign,
            now_ns=world.clock.monotonic_ns,
            subtask=subtask,
        )
        self._opened: list[Part] = []
        self._subtask = subtask
        self._broadcast = steps[0].broadcast if steps else None
        for index, part in enumerate(self._parts):
            if part.context is not None and steps[index].taken_tags:
                part.flush_sides = self._side_flusher(part)

        self.operators = tuple(part.id for part in self._parts)
        self.keeps_time = bool(self._times) or any(part.context is not None for part in self._parts)

    # ------------------------------------------------------------------ life

    async def open(self) -> None:
        """Restore and open the operators.

        `OperatorError` where one of them raises.
        """
        for index, (setup, part) in enumerate(zip(self._setups, self._parts, strict=True)):
            if index in self._times:
                self._times[index].restore(setup.restored)
            if part.operator is not None and part.context is not None:
                restored = setup.restored
                if setup.broadcast is not None:
                    restored = take_states(restored, setup.broadcast)
                part.context.bind(part.operator)
                if restored:
                    await called(part.id, part.operator.restore, restored)
                self._opened.append(part)
                with writing(setup.broadcast):
                    await called(part.id, part.operator.open, part.context)
                if setup.backend is not None and _has_timers(setup.backend):
                    part.context.timers  # noqa: B018  (restored ones fire even if none is set anew)
        self._tell_again()

    def _tell_again(self) -> None:
        """Tell those that follow what they were told before a restart; they start from nothing."""
        for time in [*self._times.values()][-1:]:
            if time.last > MIN_TIMESTAMP:
                self._downstream.watermark(time.last)
            if time.resting:
                self._downstream.idle()

    async def close(self) -> None:
        """Close the operators that were opened, last first.

        All of them, then the first error is raised.
        """
        first: Exception | None = None
        while self._opened:
            part = self._opened.pop()
            assert part.operator is not None
            try:
                await called(part.id, part.operator.close)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    # ------------------------------------------------------------------ records

    async def run(self, records: Records) -> None:
        """Take a run of records through all steps."""
        await self._lines.run(0, records)

    async def run_right(self, records: Records) -> None:
        """Take a run of records of the second input; broadcast state may be written meanwhile."""
        with writing(self._broadcast):
            await self._lines.run(RIGHT, records)

    def _judge(self, setup: StepSetup, world: World) -> Judge | None:
        if setup.on_error.fails_at_once:
            return None
        emit_side = self._downstream.emit_side
        return Judge(setup.id, setup.on_error, world, emit_side, self._where)

    def _where(self) -> str | None:
        return None if self.where is None else self.where()

    async def _assign(self, index: int, records: Records) -> None:
        time = self._times[index]
        records.timestamps = time.assign(records.values)
        if time.resting:
            await self._advance(index, time.last)
        await self._lines.run(index + 1, records)
        watermark = time.watermark()
        if watermark is not None:
            await self._advance(index + 1, watermark)

    # ------------------------------------------------------------------ time

    async def advance(self, watermark: int) -> None:
        """Take a watermark through all steps: timers that are due, then `on_watermark`, then on."""
        await self._advance(0, watermark)

    async def _advance(self, start: int, watermark: int) -> None:
        for index in range(start, len(self._parts)):
            if index in self._times and watermark != MAX_TIMESTAMP:
                # Watermarks from before end here, but they also tell that a rest is over.
                time = self._times[index]
                if not time.resting or time.silent:
                    return
                time.resting = False
                watermark = time.last
            part = self._parts[index]
            if part.context is None or part.operator is None:
                continue
            if watermark <= part.context.watermark:
                # Told again after a rest, or restored ahead of its inputs, which are on their way.
                continue
            part.context.watermark = watermark
            await self._forget_expired(index)
            timers = part.context.opened_timers
            if timers is not None:
                await self._fire(index, timers.event, watermark)
            part.context.forget_key()
            part.context.timestamp = None
            if part.judge is not None:
                part.judge.rest()
            await called(part.id, part.operator.on_watermark, watermark, part.context)
            await self._drain(index)
        self._downstream.watermark(watermark)

    def rest(self) -> None:
        """Hear that all inputs are idle."""
        self._rest(0)

    def _rest(self, start: int) -> None:
        for index, time in self._times.items():
            if index >= start:
                time.resting = True
        self._downstream.idle()

    def next_alarm(self) -> int | None:
        """Return when `ring` must be called next (ms of processing time); None for never."""
        if not self.keeps_time:
            return None
        times = [timers.processing.earliest() for timers in self._timers()]
        times += [s.backend.next_expiry() for s in self._setups if s.backend is not None]
        times += [time.idle_at for time in self._times.values()]
        return min((time for time in times if time is not None), default=None)

    async def ring(self) -> None:
        """Fire the processing-time timers that are due, and go idle where it is time to."""
        now = self._clock.now_ms()
        for index, part in enumerate(self._parts):
            await self._forget_expired(index)
            timers = part.context.opened_timers if part.context is not None else None
            if timers is not None:
                await self._fire(index, timers.processing, now)
        for index, time in self._times.items():
            if time.rest(now):
                self._rest(index)

    async def _forget_expired(self, index: int) -> None:
        """Let go of what expired in a step's state; the event loop gets its turns."""
        judge = self._parts[index].judge
        if judge is not None:
            judge.rest()
        backend = self._setups[index].backend
        if backend is not None:
            for _ in backend.forget_expired():
                await checkpoint()

    async def _fire(self, index: int, timers: TimerQueue, until: int) -> None:
        part = self._parts[index]
        assert part.operator is not None
        assert part.context is not None
        for timestamp, key in timers.due(until):
            part.context.key = key
            part.context.timestamp = timestamp
            if part.judge is None:
                await called(part.id, part.operator.on_timer, timestamp, part.context)
            else:
                await part.judge.fire(part.operator, timestamp, key)
            await self._drain(index)

    async def _drain(self, index: int) -> None:
        """Send on what an operator emitted outside `process`."""
        part = self._parts[index]
        assert part.context is not None
        if part.flush_sides is not None and part.context.sides:
            await part.flush_sides()
        emitted = part.context.emitted[:]
        part.context.emitted.clear()
        for start in range(0, len(emitted), RUN_LIMIT):
            run = emitted[start : start + RUN_LIMIT]
            records = Records([value for value, _ in run], [time for _, time in run])
            await self._lines.run(index + 1, records)

    def _timers(self) -> list[Any]:
        contexts = (part.context for part in self._parts if part.context is not None)
        return [c.opened_timers for c in contexts if c.opened_timers is not None]

    def _side_flusher(self, part: Part) -> Callable[[], Awaitable[None]]:
        context = part.context
        assert context is not None

        async def flush() -> None:
            taken = dict(context.sides)
            context.sides.clear()
            for tag, (values, times) in taken.items():
                for start in range(0, len(values), RUN_LIMIT):
                    end = start + RUN_LIMIT
                    run = Records(values[start:end], times[start:end])
                    await self._downstream.emit_side(part.id, tag, run)

        return flush

    # ------------------------------------------------------------------ snapshots

    def cut(self) -> list[Cut]:
        """Freeze the state of all steps, in constant time."""
        cuts = []
        for index, (setup, part) in enumerate(zip(self._setups, self._parts, strict=True)):
            data = snapshot_of(part.id, part.operator)
            if index in self._times:
                data = self._times[index].snapshot()
            if setup.broadcast is not None:
                data = with_states(data, setup.broadcast, self._subtask)
            # Where nothing is kept nothing need be cut: the state simply goes on.
            frozen, shapes = None, {}
            if setup.backend is not None and setup.writer is not None:
                frozen, shapes = setup.backend.freeze(), setup.backend.shapes()
            if setup.broadcast is not None:
                shapes |= setup.broadcast.shapes()
            watermark = part.context.watermark if part.context is not None else None
            if setup.writer is not None or data is not None or watermark is not None:
                cuts.append(Cut(setup.id, setup.writer, frozen, data, watermark, shapes))
        return cuts

    def undeclared(self) -> list[tuple[str, str]]:
        """Return operator and name of restored states that nothing has declared, after `open`."""
        return [
            (setup.id, name)
            for setup in self._setups
            if setup.backend is not None
            for name in setup.backend.undeclared()
            if not name.startswith("timers.")
        ]

    def figures(
        self, watermark: int, records_out: int, sides: Mapping[str, int]
    ) -> list[StepFigures]:
        """Return what each step did, told what left the last one and went to side outputs.

        `watermark` is that of the input; behind a step that makes its own it is another.
        """
        watermarks = []
        for index in range(len(self._parts)):
            if index in self._times:
                watermark = self._times[index].last
            watermarks.append(watermark)
        return step_figures(
            self.operators,
            [is_one_for_one(part) for part in self._parts],
            self._lines.samples(),
            records_out,
            sides,
            watermarks,
        )

    def dropped(self) -> dict[str, int]:
        """Return how many values went to side outputs that nobody takes, by operator and tag."""
        return {
            f"{part.id}.{tag}": count
            for part in self._parts
            if part.context is not None
            for tag, count in list(part.context.dropped.items())
            if count
        }

    def operator_at(self, code: CodeType, line: int) -> str | None:
        """Return the step that a fused function calls at a line; None for any other code."""
        return self._lines.operator_at(code, line)

    def judges(self) -> list[Judge]:
        """Return those that decide about failing records, of the steps that have one."""
        return [part.judge for part in self._parts if part.judge is not None]


def _has_timers(backend: KeyedBackend) -> bool:
    return any(name.startswith("timers.") for name in backend.undeclared())
