"""How long does a snapshot of 1,000,000 changed keys hold up the event loop at most (ms)?"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from bench.measure import Answer, NullSink
from flowrt import Continuous, Flow, Job, start

KEYS = 1_000_000


def key(number: int) -> int:
    """Give each number a key of its own."""
    return number


async def _longest_pauses() -> tuple[float, float, float]:
    """While the keys are written, in a quiet second, and during the snapshot (ms)."""
    flow = Flow("snapshot-pause")
    # The source stays open after the last key, so that the loop has nothing to do but the snapshot.
    flow.source(_then_silence()).key_by(key).count().sink(NullSink())
    with TemporaryDirectory() as folder:
        async with start(
            flow, checkpoints=f"{folder}/checkpoints", scheduler=Continuous("1h")
        ) as job:
            growing = await pause_during(_until_all_are_there, job)
            quiet = await pause_during(anyio.sleep, 1.0)
            busy = await pause_during(job.savepoint, f"{folder}/savepoint")
            await job.cancel()
    return growing, quiet, busy


async def _until_all_are_there(job: Job) -> None:
    while job.metrics().records_out < KEYS:  # noqa: ASYNC110 - a job has no event for it
        await anyio.sleep(0.05)


async def _then_silence() -> AsyncIterator[int]:
    for number in range(KEYS):
        yield number
    await anyio.sleep_forever()


async def pause_during(call: Callable[..., Awaitable[Any]], *arguments: Any) -> float:
    """Return the longest time (ms) between two turns of the event loop while a coroutine runs."""
    longest = 0.0
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            nonlocal longest
            last = time.perf_counter()
            while True:
                await anyio.lowlevel.checkpoint()
                now = time.perf_counter()
                longest, last = max(longest, now - last), now

        group.start_soon(watch)
        await call(*arguments)
        group.cancel_scope.cancel()
    return longest * 1000


def main() -> Answer:
    """Measure; beside it the pause while the state grows, and the machine's own noise."""
    growing, quiet, busy = anyio.run(_longest_pauses, backend_options={"use_uvloop": True})
    detail = f"while the keys are written: {growing:.2f} ms, in a quiet second: {quiet:.2f} ms"
    return Answer(__doc__ or "", busy, "at most 10 ms", detail)
