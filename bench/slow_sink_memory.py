"""How much does memory grow with a sink 100 times slower than the source (late / early peak)?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import anyio
import psutil

from bench.measure import Answer, NullSink, _NullWriter
from flowrt import Flow, SinkContext, Writer, start

SECONDS = 6.0
A_SECOND = 5_000
"""Records the sink takes; the source would give hundreds of times as many."""


class SlowSink(NullSink):
    """Takes `A_SECOND` records a second."""

    async def writer(self, ctx: SinkContext, prepared: Sequence[Any]) -> Writer[Any]:
        """Return the slow writer."""
        return _SlowWriter()


class _SlowWriter(_NullWriter):
    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        await anyio.sleep(len(values) / A_SECOND)


async def _growth() -> tuple[float, int, int]:
    flow = Flow("slow-sink")
    flow.source(itertools.count()).map(_padded).sink(SlowSink())
    process = psutil.Process()
    peaks = []
    async with start(flow) as job:
        for _ in range(2):
            peak = 0
            with anyio.move_on_after(SECONDS / 2):
                while True:
                    peak = max(peak, process.memory_info().rss)
                    await anyio.sleep(0.02)
            peaks.append(peak)
        taken = job.metrics().records_in
        await job.cancel()
    return peaks[1] / peaks[0], peaks[1], taken


def _padded(number: int) -> bytes:
    return number.to_bytes(8, "big") * 128


def main() -> Answer:
    """Measure."""
    growth, peak, taken = anyio.run(_growth, backend_options={"use_uvloop": True})
    detail = f"peak {peak / 2**20:.0f} MiB after {taken} records of 1 KiB were read"
    return Answer(__doc__ or "", growth, "flat: about 1", detail)
