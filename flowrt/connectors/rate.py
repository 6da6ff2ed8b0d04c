"""Rows at a steady rate: for trying things out, for tests and for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import msgspec

from flowrt.contract.errors import ConfigError
from flowrt.contract.plural import plural
from flowrt.contract.source import Chunk, Position, Reader, Source, SourceContext, Split
from flowrt.contract.time import Timestamp, WatermarkStrategy, timestamp_ms
from flowrt.contract.waiting import wait_until
from flowrt.contract.world import Clock


class RateRow(msgspec.Struct, frozen=True):
    """One row of a `RateSource`: its number, from 0, and its scheduled time (ms since 1970)."""

    value: int
    timestamp: int


class RateSource(Source[RateRow]):
    """Gives `rows_per_second` rows, numbered from 0; row n is due n / rate seconds after the start.

    Exactly once end to end, with a sink that allows it: row n and its event time depend on nothing
    but n and the start, and the start is part of the position. What became due while the flow was
    down comes at once.

    `rows` ends it after so many. `start` is the time of row 0 (ms or an aware datetime): in the
    past the rows until now come at once; by default it is the time of the first read. With
    `splits` s, split i gives the rows i, i + s, i + 2s and so on.
    """

    watermarks = WatermarkStrategy.monotonous()

    def __init__(
        self,
        rows_per_second: float,
        *,
        rows: int | None = None,
        start: Timestamp | None = None,
        splits: int = 1,
    ) -> None:
        if not 0 < rows_per_second <= 1e9:
            raise ConfigError(
                f"rows_per_second must be above 0 and at most 1e9, not {rows_per_second}"
            )
        if splits < 1 or (rows is not None and rows < 0):
            raise ConfigError(f"splits={splits} must be at least 1, and rows={rows} not negative")
        self._rate = Fraction(rows_per_second).limit_denominator(1_000_000)
        if not self._rate:
            raise ConfigError(f"rows_per_second={rows_per_second} is below one row in 11 days")
        self._rows = rows
        self._start_ms = None if start is None else timestamp_ms(start)
        self._splits = splits
        self.bounded = rows is not None

    def describe(self) -> str:
        """Return the rate, and the number of rows where there is an end."""
        end = "" if self._rows is None else f", {self._rows} {plural(self._rows, 'row')}"
        return f"{float(self._rate):g} rows/s{end}"

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the splits: "0", "1" and so on."""
        return [Split(str(index)) for index in range(self._splits)]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[RateRow]:
        """Return a reader; a position is the number of the next row and the start in ms."""
        clock = ctx.world.clock
        if position is not None:
            number, start_ms = position
        else:
            number = int(split.id)
            start_ms = clock.now_ms() if self._start_ms is None else self._start_ms
        reader = _RateReader(
            Schedule(self._rate, start_ms), number, self._splits, self._rows, clock
        )
        reader.tells_start = position is None and self._start_ms is None
        return reader


class Schedule:
    """When each row is due. Whole numbers only, so that it is the same everywhere and for ever."""

    def __init__(self, rate: Fraction, start_ms: int) -> None:
        self.start_ms: Final = start_ms
        self._rows = rate.numerator
        self._period_ms = rate.denominator * 1_000

    def time_ms(self, number: int) -> int:
        """Return when a row is due."""
        return self.start_ms + number * self._period_ms // self._rows

    def due(self, now_ms: int) -> int:
        """Return how many rows are due: the number of the first that is not."""
        elapsed = now_ms - self.start_ms + 1
        return max(-(-elapsed * self._rows // self._period_ms), 0)


class _RateReader:
    def __init__(
        self, schedule: Schedule, number: int, step: int, rows: int | None, clock: Clock
    ) -> None:
        self._schedule = schedule
        self._number = number
        self._step = step
        self._rows = rows
        self._clock = clock
        self.tells_start = False

    async def read(self, limit: int) -> Chunk[RateRow] | None:
        number, step, schedule = self._number, self._step, self._schedule
        if self.tells_start:  # so that a snapshot before the first row has the start too
            self.tells_start = False
            return Chunk([], [number, schedule.start_ms])
        if self._rows is not None and number >= self._rows:
            return None
        await self._wait_until_due(number)
        end = min(self._due(), number + limit * step)
        self._number = end + (number - end) % step
        times = [schedule.time_ms(n) for n in range(number, end, step)]
        values = list(map(RateRow, range(number, end, step), times))
        return Chunk(values, [self._number, schedule.start_ms], list(times))

    async def lag(self, position: Position) -> tuple[int, str] | None:
        number = self._number if position is None else position[0]
        return len(range(number, self._due(), self._step)), "records"

    async def close(self) -> None:
        return None

    def _due(self) -> int:
        due = self._schedule.due(self._clock.now_ms())
        return due if self._rows is None else min(due, self._rows)

    async def _wait_until_due(self, number: int) -> None:
        when_ms = self._schedule.time_ms(number)
        while self._clock.now_ms() < when_ms:  # a clock may be set back
            await wait_until(self._clock, when_ms)
