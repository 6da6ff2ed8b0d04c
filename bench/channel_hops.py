"""How much more do two hops between three tasks carry than two `asyncio.Queue`s?"""

from __future__ import annotations

import asyncio

import uvloop

from bench.measure import Answer, NullSink, against, millions
from flowrt import Flow, run

RECORDS = 400_000
CAPACITY = 2048


def same(value: int) -> int:
    """Return what came."""
    return value


def queues() -> None:
    """Three tasks, two queues of the same capacity."""
    uvloop.run(_queues())


async def _queues() -> None:
    first: asyncio.Queue[int | None] = asyncio.Queue(CAPACITY)
    second: asyncio.Queue[int | None] = asyncio.Queue(CAPACITY)

    async def produce() -> None:
        for number in range(RECORDS):
            await first.put(number)
        await first.put(None)

    async def pass_on() -> None:
        while (value := await first.get()) is not None:
            await second.put(same(value))
        await second.put(None)

    async def consume() -> None:
        while await second.get() is not None:
            pass

    await asyncio.gather(produce(), pass_on(), consume())


def flow() -> None:
    """Source, step and sink, each a task of its own."""
    hops = Flow("hops")
    hops.source(range(RECORDS)).start_new_chain().map(same).sink(NullSink())
    run(hops, channel_capacity=CAPACITY)


def main() -> Answer:
    """Measure."""
    ratio, reference, measured = against(queues, flow)
    detail = f"queues {millions(RECORDS, reference)}, flowrt {millions(RECORDS, measured)}"
    return Answer(__doc__ or "", ratio, "at least 4", detail)
