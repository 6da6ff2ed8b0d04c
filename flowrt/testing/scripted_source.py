"""A source whose whole behaviour is written down beforehand: records, failures, pauses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import anyio

from flowrt.contract.elements import EndOfStream
from flowrt.contract.errors import ConfigError
from flowrt.contract.source import Chunk, Position, Reader, Source, SourceContext, Split
from flowrt.contract.time import WatermarkStrategy
from flowrt.contract.world import Clock
from flowrt.testing.script import Fail, Pause, ProcessingTime, Record

T = TypeVar("T")

_NO_RECORDS: Final = (Fail, Pause, ProcessingTime)

SourceScript: TypeAlias = Iterable[Any]
"""Values, `record(value, at=…)`, FAIL, `fail(error)`, PAUSE, and END at the end or nothing."""


class ScriptedFailure(Exception):
    """What FAIL raises."""


class ScriptedSource(Source[T], Generic[T]):
    """A replayable source that does what its script says, the same at every restart.

    `script` is a sequence of values, or a dict of split id to such. A `record(value, at=…)` has an
    event time. FAIL raises a `ScriptedFailure` once; after a restart the source goes on behind it.
    PAUSE waits for `release`. A split ends with its script; END may say so. A position is an index
    into the split's script.

    `chunk` is how many records come together at most. What happened to the source is kept in it:
    `committed_positions` are the epochs it was told of, `closed` counts the readers closed.
    """

    def __init__(
        self,
        script: SourceScript | Mapping[str, SourceScript],
        *,
        chunk: int | None = None,
        watermarks: WatermarkStrategy[T] | None = None,
    ) -> None:
        splits = script if isinstance(script, Mapping) else {"0": script}
        self._scripts = {str(split): _checked(split, lines) for split, lines in splits.items()}
        if chunk is not None and chunk < 1:
            raise ConfigError(f"chunk is a number of records and at least 1, not {chunk}")
        self.chunk = chunk
        self.watermarks = watermarks
        self.committed_positions: list[tuple[int, dict[str, Position]]] = []
        self.closed = 0
        self._failed: set[tuple[str, int]] = set()
        self._released: set[tuple[str, int]] = set()
        self._waiting: dict[tuple[str, int], anyio.Event] = {}
        self._arrivals: list[anyio.Event] = []

    # ------------------------------------------------------------------ for the test

    def release(self, split: str | None = None) -> None:
        """Let go on behind the next PAUSE, of one split or of each; also before it is reached."""
        for name in [split] if split is not None else self._scripts:
            place = self._next_pause(name)
            if place is not None:
                self._released.add(place)
                if (waiting := self._waiting.pop(place, None)) is not None:
                    waiting.set()

    async def paused(self, split: str | None = None) -> None:
        """Wait until the split (None: any) stands at a PAUSE."""
        while not any(split in (None, name) for name, _ in self._waiting):
            arrival = anyio.Event()
            self._arrivals.append(arrival)
            await arrival.wait()

    def _next_pause(self, split: str) -> tuple[str, int] | None:
        script = self._scripts[split]
        places = [(split, i) for i, one in enumerate(script) if isinstance(one, Pause)]
        return next((place for place in places if place not in self._released), None)

    # ------------------------------------------------------------------ see `Source`

    def describe(self) -> str:
        """Return the number of elements in the script."""
        return f"scripted ({sum(map(len, self._scripts.values()))} elements)"

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the splits of the script, in its order."""
        return [Split(split) for split in self._scripts]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Return a reader; a position is an index into the split's script."""
        return _Reader(self, split.id, self._scripts[split.id], position or 0, ctx.world.clock)

    async def committed(self, epoch: int, positions: Mapping[str, Position]) -> None:
        """Keep what the source was told in `committed_positions`."""
        self.committed_positions.append((epoch, dict(positions)))

    # ------------------------------------------------------------------ for the reader

    def fails_now(self, split: str, index: int) -> bool:
        """Say whether a failure is still to come, and count it as come."""
        fresh = (split, index) not in self._failed
        self._failed.add((split, index))
        return fresh

    async def wait_released(self, split: str, index: int) -> None:
        """Wait at a PAUSE."""
        place = split, index
        while place not in self._released:
            waiting = self._waiting[place] = anyio.Event()
            arrivals, self._arrivals = self._arrivals, []
            for arrival in arrivals:
                arrival.set()
            try:
                await waiting.wait()
            finally:
                if self._waiting.get(place) is waiting:
                    del self._waiting[place]


class _Reader(Generic[T]):
    def __init__(
        self,
        source: ScriptedSource[T],
        split: str,
        script: Sequence[Any],
        position: int,
        clock: Clock,
    ) -> None:
        self._source = source
        self._split = split
        self._script = script
        self._index = position
        self._clock = clock

    async def read(self, limit: int) -> Chunk[T] | None:
        await self._pass_faults()
        most = min(limit, self._source.chunk or limit)
        values: list[T] = []
        timestamps: list[int | None] = []
        while self._index < len(self._script) and len(values) < most:
            element = self._script[self._index]
            if isinstance(element, _NO_RECORDS):
                break
            timed = isinstance(element, Record)
            values.append(element.value if timed else element)
            timestamps.append(element.timestamp if timed else None)
            self._index += 1
        if not values:
            return None
        known = any(time is not None for time in timestamps)
        return Chunk(values, self._index, timestamps if known else None)

    async def _pass_faults(self) -> None:
        while self._index < len(self._script):
            element = self._script[self._index]
            if isinstance(element, Fail):
                if self._source.fails_now(self._split, self._index):
                    raise element.error or ScriptedFailure(
                        f"the script of split {self._split!r} fails at element {self._index}"
                    )
            elif isinstance(element, Pause):
                await self._source.wait_released(self._split, self._index)
            elif isinstance(element, ProcessingTime):
                await _wait_until(self._clock, element.timestamp)
            else:
                return
            self._index += 1

    async def lag(self, position: Position) -> tuple[int, str] | None:
        rest = self._script[position or 0 :]
        return sum(not isinstance(one, _NO_RECORDS) for one in rest), "records"

    async def close(self) -> None:
        self._source.closed += 1


async def _wait_until(clock: Clock, when_ms: int) -> None:
    while clock.now_ms() < when_ms:
        reached = anyio.Event()
        alarm = clock.call_at(when_ms, reached.set)
        try:
            await reached.wait()
        finally:
            alarm.cancel()


def _checked(split: str, script: SourceScript) -> list[Any]:
    elements = list(script)
    if elements and isinstance(elements[-1], EndOfStream):
        elements.pop()
    for index, element in enumerate(elements):
        if isinstance(element, EndOfStream):
            raise ConfigError(
                f"the script of split {split!r} goes on behind END, at element {index + 1}"
            )
    return elements
