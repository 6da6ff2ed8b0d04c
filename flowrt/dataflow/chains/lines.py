"""The way of records through the steps of a chain: fused lines, made when first needed.

A step that makes its own watermarks ends a line, and the next one starts behind it. Each line is
made for runs with or without timestamps and keys, and a second time to look at the clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import CodeType
from typing import Final, TypeAlias

from flowrt.contract.elements import Records
from flowrt.contract.errors import FlowrtError, OperatorError
from flowrt.contract.failures import failures
from flowrt.contract.steps import Connect
from flowrt.dataflow.chains.blame import operator_error
from flowrt.dataflow.chains.fuse import Emit, FusedLine, fuse
from flowrt.dataflow.chains.part import Part, waits_for
from flowrt.dataflow.chains.samples import LineSamples

RIGHT: Final = -1
"""Where a run of records of the second input begins: at the first step, by its other method."""

Assign: TypeAlias = Callable[[int, Records], Awaitable[None]]
Which: TypeAlias = tuple[int, bool, bool]
"""Where a line begins, and whether its runs have timestamps, and keys."""


@dataclass(slots=True)
class _Line:
    """A fused line with its counts, and its copy that looks at the clock once there is one."""

    fused: FusedLine
    samples: LineSamples
    looking: FusedLine | None = None


class Lines:
    """Takes runs of records from a step of a chain to its end."""

    def __init__(
        self,
        parts: Sequence[Part],
        breaks: Collection[int],
        emit: Emit,
        assign: Assign,
        *,
        now_ns: Callable[[], int],
        subtask: int,
    ) -> None:
        """`breaks` are the steps that make watermarks: their runs are given to `assign`."""
        self._parts = parts
        self._breaks = breaks
        self._emit = emit
        self._assign = assign
        self._now_ns = now_ns
        self._subtask = subtask
        self._lines: dict[Which, _Line] = {}

    async def run(self, start: int, records: Records) -> None:
        """Take a run of records through the steps from one on.

        `OperatorError` where one of them raises.
        """
        if start == len(self._parts):
            await self._emit(records)
            return
        if start in self._breaks:
            await self._assign(start, records)
            return
        which = (start, records.timestamps is not None, records.keys is not None)
        rest: Records | None = None
        kept = self._lines.get(which)
        if kept is None:
            kept = self._lines[which] = self._new(which)
            line, run = kept.fused, kept.fused.first
        else:
            line = kept.fused
            if kept.samples.records >= kept.samples.look_at:
                line, records, rest = self._look(which, kept, records)
            run = line.run
        kept.samples.records += len(records.values)
        try:
            await run(records.values, records.timestamps, records.keys)
        except FlowrtError:
            raise
        except failures() as error:
            blamed = self._blame(line, start, error)
            if blamed is None:
                raise
            raise blamed from error
        if rest is not None:
            await self.run(start, rest)

    def samples(self) -> list[tuple[int, LineSamples]]:
        """Return the counts of each line made so far, and the step that it begins with."""
        return [(max(which[0], 0), line.samples) for which, line in list(self._lines.items())]

    def operator_at(self, code: CodeType, line: int) -> str | None:
        """Return the step that a fused function calls at a line; None for any other code."""
        for (start, _, _), kept in list(self._lines.items()):
            for fused in (kept.fused, kept.looking):
                if fused is not None and fused.code is code:
                    place = fused.places.get(line)
                    return None if place is None else self._parts[max(start, 0) + place[0]].id
        return None

    # ------------------------------------------------------------------ made when needed

    def _new(self, which: Which) -> _Line:
        parts = self._steps(which[0])
        samples = LineSamples(len(parts), self._now_ns, waits=any(map(waits_for, parts)))
        return _Line(self._fuse(which), samples)

    def _look(
        self, which: Which, kept: _Line, records: Records
    ) -> tuple[FusedLine, Records, Records | None]:
        """Return a copy of a line that looks at the clock, what it may have of a run, the rest."""
        if kept.looking is None:
            kept.looking = self._fuse(which, kept.samples)
        looked = kept.samples.look(len(records.values))
        if looked == len(records.values):
            return kept.looking, records, None
        return kept.looking, records.part(slice(looked)), records.part(slice(looked, None))

    def _steps(self, start: int) -> Sequence[Part]:
        """Return the steps of the line that begins there: up to one that makes watermarks."""
        end = next((i for i in self._breaks if i >= start), len(self._parts))
        return self._parts[max(start, 0) : end]

    def _fuse(self, which: Which, samples: LineSamples | None = None) -> FusedLine:
        start, timestamps, keys = which
        parts = self._steps(start)
        end = max(start, 0) + len(parts)
        if end == len(self._parts):
            emit = self._emit
        else:

            async def emit(records: Records) -> None:
                await self.run(end, records)

        if parts and isinstance(parts[0].step, Connect):
            parts = [self._side(parts[0], parts[0].step, right=start == RIGHT), *parts[1:]]
        timing = None if samples is None else (samples.now_ns, samples.note)
        return fuse(parts, emit, timestamps=timestamps, keys=keys, timing=timing)

    def _side(self, part: Part, step: Connect, *, right: bool) -> Part:
        judge = part.judge
        if judge is not None and right and step.broadcast and self._subtask:
            judge = judge.silent()
        if step.sides is not None:
            return Part(part.id, step.sides[right], judge=judge)
        part = replace(part, judge=judge)
        return replace(part, right=right, keyed=part.keyed and not (right and step.broadcast))

    def _blame(self, line: FusedLine, start: int, error: BaseException) -> OperatorError | None:
        """Find the step and the record from the line of the fused function that raised."""
        # A coroutine turns StopIteration into a RuntimeError with no line of its own.
        raised = error.__cause__ if isinstance(error.__cause__, StopIteration) else error
        trace = raised.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code is line.code:
                place = line.places.get(trace.tb_lineno)
                if place is None:
                    return None
                step, variable = place
                value = trace.tb_frame.f_locals.get(variable)
                part = self._parts[max(start, 0) + step]
                return operator_error(part.id, raised, value=value)
            trace = trace.tb_next
        return None
