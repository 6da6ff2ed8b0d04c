"""A flow whose records fail in every kind of step, and what it must not mix up.

Which records fail depends on the records alone, and so does all that comes out, letters too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio

from flowrt import (
    Context,
    DeadLetter,
    FileSink,
    FileSource,
    FixedDelay,
    Flow,
    OnError,
    OutputTag,
    WatermarkStrategy,
)
from tests.journeys.wide import Event, Windows

LONGEST_SECONDS = 0.05
MOODS = 0.02
BAD: OutputTag[DeadLetter] = OutputTag("bad")


def check(event: Event) -> Event:
    """Refuse some."""
    if event.number % 7 == 0:
        raise ValueError("seven")
    return event


def moody(event: Event) -> Event:
    """Refuse now and then, and never for good."""
    if random.random() < MOODS:
        raise ConnectionError("try again")
    return event


async def ask(event: Event) -> Event:
    """Answer after a while, or refuse."""
    await anyio.sleep(random.random() * LONGEST_SECONDS)
    if event.number % 11 == 0:
        raise LookupError("eleven")
    return event


class Refusing(Windows):
    """Refuses some, after it has changed all that it keeps."""

    def process(self, event: Event, ctx: Context) -> None:
        super().process(event, ctx)
        ctx.emit(("never", event.number))
        if event.number % 5 == 0:
            self.sums.clear()
            self.members.clear()
            ctx.timers.register_event_time(event.at + 1)
            raise RuntimeError("five")


def flow(data: Path, out: Path, rate: float | None = None) -> Flow:
    """Windows of what did not fail, and letters of what did."""
    flow = Flow("failing", on_error=OnError.dead_letter(BAD))
    in_time = WatermarkStrategy.monotonous().with_timestamps(lambda event: event.at)
    events: Any = flow.source(
        FileSource(data / "left", type=Event),
        name="events",
        watermarks=in_time,
        max_rate=rate,
        parallelism=2,
    )
    (
        events.map(check, name="check", parallelism=2)
        .map(moody, name="moody", parallelism=2, on_error=OnError.retry(FixedDelay("1ms", 100)))
        .map_async(ask, capacity=300, ordered=False, name="ask", parallelism=2)
        .key_by(lambda event: event.key, name="key")
        .process(Refusing, name="windows", parallelism=3)
        .filter(lambda row: row[0] != "never", name="real", parallelism=3)
        .sink(FileSink(out / "windows", roll_epochs=3), name="window-files")
    )
    letters: Any = flow.dead_letters(BAD)
    (
        letters.map(lambda one: (one.operator, one.error, one.value.file, one.value.number))
        .map(list, name="rows")
        .sink(FileSink(out / "letters"), name="letter-files")
    )
    return flow
