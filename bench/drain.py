"""How long does a drain take behind a step of 5 ms a record, in one task with the source (ms)?"""

from __future__ import annotations

import time
from tempfile import TemporaryDirectory

import anyio

from bench.measure import Answer, NullSink
from flowrt import Flow, start

STEP_SECONDS = 0.005
RUN_SECONDS = 2


async def slow(number: int) -> int:
    """Take as long as a service that answers quickly."""
    await anyio.sleep(STEP_SECONDS)
    return number


async def _drain() -> float:
    flow = Flow("drain")
    flow.source(range(10**6)).map(slow).sink(NullSink())
    with TemporaryDirectory() as folder:
        async with start(flow, checkpoints=folder) as job:
            await anyio.sleep(RUN_SECONDS)
            started = time.perf_counter()
            await job.drain()
            return (time.perf_counter() - started) * 1000


def main() -> Answer:
    """Measure; the records that were on the way when the drain began are all written."""
    took = anyio.run(_drain, backend_options={"use_uvloop": True})
    return Answer(__doc__ or "", took, "no budget: some runs of 20 ms, and an epoch", "")
