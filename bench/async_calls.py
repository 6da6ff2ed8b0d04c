"""How many calls a second does map_async make, next to a bare loop of as many coroutines?"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

import uvloop

from bench.measure import ROUNDS, Answer, NullSink, against, seconds
from flowrt import Flow, run

CALLS = 200_000
CAPACITY = 1_000
CALL_SECONDS = 0.005


async def call(value: int) -> int:
    """Take as long as a service nearby."""
    await asyncio.sleep(CALL_SECONDS)
    return value


def bare() -> None:
    """As many coroutines as there may be calls, each making one call after the other."""
    uvloop.run(_bare())


async def _bare() -> None:
    async def work(values: Iterator[int]) -> list[int]:
        return [await call(value) for value in values]

    values = iter(range(CALLS))
    await asyncio.gather(*(work(values) for _ in range(CAPACITY)))


def ordered() -> None:
    """Answers in the order of their records."""
    _flow(ordered=True)


def unordered() -> None:
    """Answers as they come."""
    _flow(ordered=False)


def _flow(*, ordered: bool) -> None:
    calls = Flow("calls")
    calls.source(range(CALLS)).map_async(call, capacity=CAPACITY, ordered=ordered).sink(NullSink())
    run(calls)


def main() -> Answer:
    """Measure."""
    ratio, reference, measured = against(bare, ordered)
    as_they_come = statistics.median(seconds(unordered) for _ in range(ROUNDS))
    budget = "aim 0.9; at least 100,000 calls/s at 5 ms a call on a quiet core"
    rates = [f"{CALLS / took:,.0f}" for took in (reference, measured, as_they_come)]
    detail = f"calls/s: bare {rates[0]}, ordered {rates[1]}, unordered {rates[2]}"
    return Answer(__doc__ or "", ratio, budget, detail)
