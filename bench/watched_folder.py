"""How much of a core does a flow take that watches a folder of 5,000 files, all of them read?"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from bench.measure import Answer, NullSink
from flowrt import FileSource, Flow, start

FILES = 5_000
LINES = 3
SECONDS = 10


async def _idle() -> tuple[float, str]:
    with TemporaryDirectory() as name:
        folder, kept = Path(name) / "in", Path(name) / "kept"
        folder.mkdir()
        for number in range(FILES):
            (folder / f"sensor-{number:06d}.txt").write_text("12.5\n" * LINES)
        flow = Flow("watching")
        flow.source(FileSource(folder, "text", watch=True), name="files").sink(NullSink())
        began = time.perf_counter()
        async with start(flow, checkpoints=kept) as job:
            while job.metrics().records_in < FILES * LINES:  # noqa: ASYNC110 (nothing tells)
                await anyio.sleep(0.01)
            read = time.perf_counter() - began
            await anyio.sleep(2)  # the last epoch and the last discovery of something new are over
            took = await _share_of_a_core()
        size = max(path.stat().st_size for path in kept.glob("manifest-*"))
    return took, f"read in {read:.1f} s; {size / FILES:.0f} bytes of each manifest a file"


async def _share_of_a_core() -> float:
    wall, cpu = time.perf_counter(), time.process_time()
    await anyio.sleep(SECONDS)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def main() -> Answer:
    """Measure with a discovery and an epoch each second."""
    took, beside = anyio.run(_idle, backend_options={"use_uvloop": True})
    return Answer(__doc__ or "", took, "no budget", beside)
