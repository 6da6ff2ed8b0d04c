"""A flow that could run for ever: endless input, state of every kind with a bounded set of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowrt import (
    AggregatingState,
    Context,
    FileSink,
    Flow,
    ListState,
    MapState,
    Operator,
    OutputTag,
    ReducingState,
    Source,
    SourceContext,
    Split,
    ValueState,
    WatermarkStrategy,
)
from flowrt.contract.source import Chunk, Position, Reader

SPLITS: Final = 4
KEYS: Final = 500
WINDOW: Final = 500
"""Event time is the record's number: a window holds so many of each split."""
RECORDS_A_SECOND: Final = 3_000
BEATS: OutputTag[Any] = OutputTag("beats")

Numbered = tuple[int, int]
"""A split and the record's number in it."""


class Endless(Source[Numbered]):
    """Counts, in each split; remembers how far it was told that everything is committed."""

    bounded = False
    watermarks = WatermarkStrategy.monotonous().with_timestamps(lambda record: record[1])

    def __init__(self) -> None:
        self.told: dict[str, int] = {}

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        return [Split(str(split)) for split in range(SPLITS)]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[Numbered]:
        return _Counter(int(split.id), position or 0)

    async def committed(self, epoch: int, positions: Mapping[str, Position]) -> None:
        self.told.update({split: position or 0 for split, position in positions.items()})


class _Counter:
    def __init__(self, split: int, number: int) -> None:
        self._split = split
        self._number = number

    async def read(self, limit: int) -> Chunk[Numbered] | None:
        start, self._number = self._number, self._number + min(limit, 50)
        return Chunk([(self._split, number) for number in range(start, self._number)], self._number)

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return None

    async def close(self) -> None:
        pass


class Trouble:
    """Lets an operator fail when asked to."""

    def __init__(self) -> None:
        self.asked = False

    def pass_by(self) -> None:
        if self.asked:
            self.asked = False
            raise RuntimeError("as asked for")


class Follow(Operator[Numbered, Any]):
    """Passes on every record with how many of its split came before it."""

    seen = ValueState(int, default=0)

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble

    def process(self, record: Numbered, ctx: Context) -> None:
        seen = self.seen.get()
        self.seen.set(seen + 1)
        if record[1] % 100 == 0:
            self._trouble.pass_by()
        ctx.emit([record[0], record[1], seen])


class Windows(Operator[Numbered, Any]):
    """Counts the records of each key in each window, with every kind of state and timer."""

    counts = MapState(int, int)
    latest = ListState(int)
    total = ReducingState(int.__add__, int)
    mean = AggregatingState(int, max, lambda largest: largest, int)
    beating = ValueState(bool, default=False)

    def process(self, record: Numbered, ctx: Context) -> None:
        end = record[1] - record[1] % WINDOW + WINDOW
        self.counts.put(end, self.counts.get(end, 0) + 1)
        self.latest.add(record[1])
        if len(self.latest) > 10:
            self.latest.set(self.latest.get()[-5:])
        self.total.add(1)
        self.mean.add(record[1])
        ctx.timers.register_event_time(end - 1)
        if not self.beating.get():
            self.beating.set(True)
            ctx.timers.register_processing_time(ctx.world.clock.now_ms() + 100)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        if timestamp + 1 in self.counts:
            ctx.emit([ctx.key, timestamp, self.counts.get(timestamp + 1)])
            self.counts.remove(timestamp + 1)
        else:
            self.beating.set(False)
            ctx.side(BEATS, [ctx.key, self.total.get()])


def soaked(source: Endless, out: Path, trouble: Trouble) -> Flow:
    """Return the flow; its results go to three folders in `out`."""
    flow = Flow("soak")
    records = flow.source(source, name="numbers", max_rate=RECORDS_A_SECOND, parallelism=2)
    (
        records.key_by(lambda record: record[0])
        .process(lambda: Follow(trouble), name="follow", parallelism=2)
        .sink(FileSink(out / "followed"), name="followed", parallelism=2)
    )
    windows = records.key_by(lambda record: record[1] % KEYS).process(
        Windows, name="windows", parallelism=3
    )
    windows.sink(FileSink(out / "windows", roll_epochs=4), name="window-files", parallelism=2)
    windows.side_output(BEATS).sink(FileSink(out / "beats"), name="beats")
    return flow
