"""How long does one key's state take to read now, and as of the last epoch, of 1,000,000 (µs)?"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from tempfile import TemporaryDirectory
from typing import Literal

import anyio

from bench.measure import Answer, NullSink, percentile
from bench.snapshot_pause import pause_during
from flowrt import Continuous, Flow, Job, start

KEYS = 1_000_000
READS = {"now": 100_000, "committed": 300}


def key(number: int) -> int:
    """Give each number a key of its own."""
    return number


async def _measured() -> dict[str, float]:
    flow = Flow("live-state")
    flow.source(_then_silence()).key_by(key).count(name="counts").sink(NullSink())
    found: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        async with start(
            flow, checkpoints=f"{folder}/checkpoints", scheduler=Continuous("1h")
        ) as job:
            while job.metrics().records_out < KEYS:  # noqa: ASYNC110 - a job has no event for it
                await anyio.sleep(0.05)
            await job.savepoint(f"{folder}/savepoint")
            for as_of in ("now", "committed"):
                took = sorted([await _one(job, as_of) for _ in range(READS[as_of])])
                found[as_of], found[f"{as_of} p99"] = percentile(took, 0.5), percentile(took, 0.99)
                found[f"{as_of} pause"] = await pause_during(_scan, job, as_of)
                started = time.perf_counter()
                await _scan(job, as_of)
                found[f"{as_of} scan"] = time.perf_counter() - started
            await job.cancel()
    return found


async def _one(job: Job, as_of: Literal["now", "committed"]) -> float:
    number = random.randrange(KEYS)
    started = time.perf_counter()
    value = await job.state("counts").get(number, as_of=as_of)
    took = time.perf_counter() - started
    assert value == 1
    return took * 1e6


async def _scan(job: Job, as_of: Literal["now", "committed"]) -> None:
    count = 0
    async for _ in job.state("counts").scan(as_of=as_of):
        count += 1
    assert count == KEYS


async def _then_silence() -> AsyncIterator[int]:
    for number in range(KEYS):
        yield number
    await anyio.sleep_forever()


def main() -> Answer:
    """Measure; beside it the slowest in a hundred, whole scans, and the pause that they cause."""
    found = anyio.run(_measured, backend_options={"use_uvloop": True})
    detail = "; ".join(
        f"{as_of}: {found[as_of]:.1f} µs (p99 {found[f'{as_of} p99']:.1f}), all in "
        f"{found[f'{as_of} scan']:.1f} s with a pause of {found[f'{as_of} pause']:.1f} ms at most"
        for as_of in ("now", "committed")
    )
    return Answer(__doc__ or "", found["now"], "none", detail)
