"""A flow that asks a service about each record in every way there is, and what it must not mix up.

Answers take a random small time, so that records are in flight at every cut. What comes out depends
on the records alone, however the answers come.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio

from flowrt import FileSink, FileSource, FixedDelay, Flow, WatermarkStrategy
from tests.journeys.wide import Event, Windows

LONGEST_SECONDS = 0.1
REFUSED = 0.02


async def ask(event: Event) -> Event:
    """Answer after a while."""
    await anyio.sleep(random.random() * LONGEST_SECONDS)
    return event


async def ask_moodily(event: Event) -> tuple[str, int]:
    """Refuse now and then."""
    await anyio.sleep(random.random() * LONGEST_SECONDS)
    if random.random() < REFUSED:
        raise ConnectionError("try again")
    return event.file, event.number


async def ask_for_many(events: list[Event]) -> list[tuple[str, int, int]]:
    """Answer for all of them after a while."""
    await anyio.sleep(random.random() * LONGEST_SECONDS)
    return [(event.file, event.key, event.number) for event in events]


def flow(data: Path, out: Path, rate: float | None = None) -> Flow:
    """In order, in any order, in batches; windows and a running count behind."""
    flow = Flow("asking")
    in_time = WatermarkStrategy.monotonous().with_timestamps(lambda event: event.at)
    events = flow.source(
        FileSource(data / "left", type=Event),
        name="events",
        watermarks=in_time,
        max_rate=rate,
        parallelism=2,
    )
    in_order: Any = events.map_async(
        ask_moodily, capacity=300, retry=FixedDelay("1ms", 100), name="in-order", parallelism=2
    )
    in_order.sink(FileSink(out / "in-order"), name="in-order-files", parallelism=2)
    (
        events.map_async(
            ask, capacity=300, ordered=False, timeout="1m", name="in-any-order", parallelism=2
        )
        .key_by(lambda event: event.key)
        .process(Windows, name="windows", parallelism=3)
        .sink(FileSink(out / "windows", roll_epochs=3), name="window-files")
    )
    (
        events.map_async_batch(
            ask_for_many, max_size=7, max_wait="2ms", capacity=600, name="in-batches"
        )
        .key_by(lambda answer: answer[:2])
        .count(name="running", parallelism=2)
        .sink(FileSink(out / "running"), name="running-files", parallelism=2)
    )
    return flow
