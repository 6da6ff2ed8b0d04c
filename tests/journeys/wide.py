"""A flow with what the demo does not have: several inputs, subtasks, every kind of state, timers.

What it emits depends on nothing but the records themselves, however they interleave: a window's
rows are complete when the watermark passes, and a running figure belongs to one file.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from flowrt import (
    AggregatingState,
    Context,
    FileSink,
    FileSource,
    Flow,
    ListState,
    MapState,
    Operator,
    OutputTag,
    ReducingState,
    ValueState,
    WatermarkStrategy,
)

SIDES = ("left", "right")
FILES = 4
RECORDS_A_FILE = 1_500
KEYS = 24
WINDOW_MS = 500
START_MS = 1_700_000_000_000
FAR_MS = START_MS + 10**9
TICKS: OutputTag[tuple[int, int]] = OutputTag("ticks")


class Event(msgspec.Struct):
    """A line of the input."""

    file: str
    number: int
    key: int
    at: int


class Mean(NamedTuple):
    total: int = 0
    records: int = 0


def add_to_mean(mean: Mean, value: int) -> Mean:
    return Mean(mean.total + value, mean.records + 1)


class Running(Operator[Event, Any]):
    """Counts the records of one key in one file."""

    count = ValueState(int, default=0)

    def process(self, event: Event, ctx: Context) -> None:
        count = self.count.get() + 1
        self.count.set(count)
        ctx.emit((event.file, event.key, count, event.number))


class Same(Operator[Event, Any]):
    """Keeps the last number of each key and emits the record as it is."""

    last = ValueState(int)

    def process(self, event: Event, ctx: Context) -> None:
        self.last.set(event.number)
        ctx.emit((event.file, event.key, event.number))


class Windows(Operator[Event, Any]):
    """Tumbling windows by hand, with every kind of state and both kinds of timers.

    Timers of processing time have times far in the past: they are due at once, and `on_timer` knows
    them by that.
    """

    sums = MapState(int, int)
    members = ListState(tuple[int, int])
    ticked = MapState(int, bool)
    largest = ValueState(int, default=-1)
    total = ReducingState(int.__add__, int)
    mean = AggregatingState(Mean, add_to_mean, lambda mean: mean.total / mean.records, Mean)

    def process(self, event: Event, ctx: Context) -> None:
        end = event.at - event.at % WINDOW_MS + WINDOW_MS
        self.sums.put(end, self.sums.get(end, 0) + event.number)
        self.members.add((event.at, event.number))
        self.largest.set(max(self.largest.get(), event.number))
        self.total.add(event.number)
        self.mean.add(event.number)
        ctx.timers.register_event_time(end - 1)
        ctx.timers.register_event_time(FAR_MS)
        window = (end - START_MS) // WINDOW_MS
        if window not in self.ticked:
            self.ticked.put(window, True)
            ctx.timers.register_processing_time(window)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        if timestamp < START_MS:
            ctx.side(TICKS, (ctx.key, timestamp))
        elif timestamp == FAR_MS:
            figures = (self.total.get(), self.mean.get(), self.largest.get(), len(self.ticked))
            ctx.emit(("key", ctx.key, *figures))
        else:
            self._fire(timestamp, ctx)

    def _fire(self, timestamp: int, ctx: Context) -> None:
        members = list(self.members)
        inside = sorted(number for at, number in members if at <= timestamp)
        self.members.set(member for member in members if member[0] > timestamp)
        ctx.emit(("window", ctx.key, timestamp, self.sums.get(timestamp + 1), inside))
        self.sums.remove(timestamp + 1)


def write_input(folder: Path, seed: int = 1) -> None:
    """Write the files of both sides: the same for the same seed."""
    chance = random.Random(seed)
    for side in SIDES:
        at = START_MS
        (folder / side).mkdir(parents=True)
        for file in range(FILES):
            lines = []
            for number in range(file * RECORDS_A_FILE, (file + 1) * RECORDS_A_FILE):
                at += chance.randrange(3)
                lines.append(
                    msgspec.json.encode(Event(f"{side}{file}", number, chance.randrange(KEYS), at))
                )
            (folder / side / f"{file}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def possible_ticks() -> list[bytes]:
    """Return the lines that the ticks may have: each at most once."""
    return [b"%d,%d" % (key, window) for key in range(KEYS) for window in range(100)]


def flow(data: Path, out: Path, rate: float | None = None) -> Flow:
    """The exactly-once flow: running figures, windows, ticks."""
    flow = Flow("wide")
    left, right = (_side(flow, data, side, rate) for side in SIDES)
    events = left.union(right)
    (
        events.key_by(lambda event: (event.file, event.key))
        .process(Running, name="running", parallelism=3)
        .sink(FileSink(out / "running"), name="running-files", parallelism=3)
    )
    windows = events.key_by(lambda event: event.key).process(Windows, name="windows", parallelism=4)
    windows.sink(FileSink(out / "windows", roll_epochs=3), name="window-files", parallelism=2)
    windows.side_output(TICKS).sink(FileSink(out / "ticks", "csv", fields=["key", "window"]))
    return flow


def plain(data: Path, out: Path, rate: float | None = None) -> Flow:
    """The at-least-once flow: each record passes a keyed step and comes out as it is."""
    flow = Flow("plain")
    left, right = (_side(flow, data, side, rate) for side in SIDES)
    (
        left.union(right)
        .key_by(lambda event: event.key)
        .process(Same, name="same", parallelism=3)
        .sink(FileSink(out / "records"), name="records", parallelism=3)
    )
    return flow


def _side(flow: Flow, data: Path, side: str, rate: float | None) -> Any:
    in_time = WatermarkStrategy.monotonous().with_timestamps(lambda event: event.at)
    source = FileSource(data / side, type=Event)
    return flow.source(source, name=side, watermarks=in_time, max_rate=rate, parallelism=2)
