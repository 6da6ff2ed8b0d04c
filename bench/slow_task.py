"""How long does a drain take behind a step of 5 ms a record, in a task of its own (ms)?"""

from __future__ import annotations

import time
from collections.abc import Callable
from tempfile import TemporaryDirectory

import anyio

from bench.drain import RUN_SECONDS, slow
from bench.measure import Answer, NullSink
from flowrt import Continuous, Flow, ForeachSink, start

QUICK_RECORDS = 100_000
"""How many records a step takes quickly before it turns slow."""


def a_step() -> Flow:
    """Two subtasks of a slow step."""
    flow = Flow("slow-step")
    flow.source(range(10**6)).rebalance().map(slow, parallelism=2).sink(NullSink())
    return flow


def turning_slow() -> Flow:
    """A step that was quick, and turns slow while the channels are full."""
    quick = iter(range(QUICK_RECORDS))

    async def turns(value: int) -> int:
        return value if next(quick, None) is not None else await slow(value)

    flow = Flow("turning-slow")
    flow.source(range(10**6)).rebalance().map(turns, parallelism=1).sink(NullSink())
    return flow


def calls() -> Flow:
    """Ten slow calls at once."""
    flow = Flow("slow-calls")
    flow.source(range(10**6)).map_async(slow, capacity=10).sink(NullSink())
    return flow


def a_sink() -> Flow:
    """A function for each record at the end."""
    flow = Flow("slow-sink")
    flow.source(range(10**6)).sink(ForeachSink(slow))
    return flow


async def _drain(flow: Flow) -> tuple[float, int]:
    with TemporaryDirectory() as folder:
        async with start(flow, checkpoints=folder, scheduler=Continuous("200ms")) as job:
            await anyio.sleep(RUN_SECONDS)
            epochs = job.status().epoch or 0
            started = time.perf_counter()
            await job.drain()
            return (time.perf_counter() - started) * 1000, epochs


def main() -> Answer:
    """Measure a step, a sink, and calls under way at once."""
    took: dict[Callable[[], Flow], tuple[float, int]] = {}
    for make in (a_step, a_sink, calls, turning_slow):
        took[make] = anyio.run(_drain, make(), backend_options={"use_uvloop": True})
    step, epochs = took[a_step]
    detail = (
        f"{epochs} epochs of 200 ms in {RUN_SECONDS} s; a function at the end "
        f"{took[a_sink][0]:.0f} ms, map_async {took[calls][0]:.0f} ms; a step that was quick and "
        f"turns slow {took[turning_slow][0]:.0f} ms"
    )
    return Answer(__doc__ or "", step, "no budget: some runs of 20 ms, and an epoch", detail)
