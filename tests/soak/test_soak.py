"""Jobs that run for minutes on real files: memory, files and tasks stay flat, nothing is lost.

`make soak SECONDS=...` says how long, over all event loops.
"""

from __future__ import annotations

import logging
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import msgspec
import psutil
import pytest

import flowrt
from tests.conftest import EVENT_LOOPS
from tests.soak.flow import SPLITS, Endless, Trouble, soaked
from tests.soak.report import LINES

SECONDS: Final = int(os.environ.get("FLOWRT_SOAK_SECONDS") or 120)
SHARE: Final = SECONDS / len(EVENT_LOOPS)
"""How long it runs on each event loop."""
EPOCHS: Final = "50ms"
FAILURE_SECONDS: Final = 4.0
"""How often the job fails and restarts in the process."""
START_SECONDS: Final = 10.0
"""How often it is stopped and started anew."""
MB: Final = 1024 * 1024

pytestmark = [pytest.mark.anyio, pytest.mark.soak, pytest.mark.timeout(SECONDS + 300)]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A log that is kept, as pytest does, keeps the errors in it, and with them all that failed."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_a_job_stays_as_small_as_it_was_and_loses_nothing(
    tmp_path: Path, anyio_backend_name: str, request: pytest.FixtureRequest
) -> None:
    soak = Soak(tmp_path)
    await soak.run(SHARE)
    loop = request.node.callspec.id
    LINES.append(f"{loop}: {soak}")

    assert soak.reader.wrong == []
    assert soak.reader.next == {int(split): told for split, told in soak.source.told.items()}
    assert len(soak.reader.next) == SPLITS
    assert soak.restarts > 0
    assert soak.grown() == {}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds at one moment; `memory` in bytes."""

    memory: int
    descriptors: int
    threads: int
    tasks: int
    checkpoint_files: int
    part_files: int


SLACK: Final = Sample(
    memory=8 * MB, descriptors=8, threads=2, tasks=4, checkpoint_files=30, part_files=60
)
"""How much more there may be at the end than after the warm-up: what differs from one moment to the
next. A leak for each epoch, restart or start is many times that."""


@dataclass
class Soak:
    """One job through many lives, and what was measured meanwhile."""

    folder: Path
    source: Endless = field(default_factory=Endless)
    trouble: Trouble = field(default_factory=Trouble)
    samples: list[Sample] = field(default_factory=list)
    starts: int = 0
    restarts: int = 0
    epochs: int = 0

    def __post_init__(self) -> None:
        self.reader = PartReader(self.folder / "out")
        self.process = psutil.Process()

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.starts += 1
            # The last life drains: then all that the source gave is in the output.
            await self._live(min(START_SECONDS, left), drain=left <= START_SECONDS)
        self.reader.read(everything=True)

    async def _live(self, seconds: float, drain: bool) -> None:
        async with flowrt.start(
            soaked(self.source, self.folder / "out", self.trouble),
            checkpoints=self.folder / "checkpoints",
            scheduler=flowrt.Continuous(EPOCHS),
            restart=flowrt.FixedDelay("10ms", attempts=5),
        ) as job:
            first = job.status().restored_epoch or 0
            end, failure = time.monotonic() + seconds, time.monotonic() + FAILURE_SECONDS
            while time.monotonic() < end:
                await anyio.sleep(0.25)
                self.reader.read()
                self.samples.append(self._sample())
                if time.monotonic() > failure:
                    failure += FAILURE_SECONDS
                    self.trouble.asked = True
            if drain or self.starts % 2:
                await job.drain()
            else:
                await job.cancel()
        self.restarts += job.status().restarts
        self.epochs += (job.status().epoch or 0) - first

    def _sample(self) -> Sample:
        return Sample(
            self.process.memory_info().rss,
            self.process.num_fds(),
            threading.active_count(),
            len(anyio.get_running_tasks()),
            len([path for path in (self.folder / "checkpoints").rglob("*") if path.is_file()]),
            len(list((self.folder / "out").rglob("*"))),
        )

    def quarter(self, number: int) -> Sample:
        """Return what was typical in a quarter of the run, from 0; of files and tasks the most."""
        size = len(self.samples) // 4
        part = self.samples[number * size : (number + 1) * size]
        return Sample(
            int(statistics.median(sample.memory for sample in part)),
            *(
                max(getattr(sample, name) for sample in part)
                for name in Sample.__slots__
                if name != "memory"
            ),
        )

    def grown(self) -> dict[str, tuple[int, int]]:
        """Return what grew from the second quarter to the last by more than it may."""
        before, after = self.quarter(1), self.quarter(3)
        names: Iterator[str] = iter(Sample.__slots__)
        figures = {name: (getattr(before, name), getattr(after, name)) for name in names}
        return {n: (b, a) for n, (b, a) in figures.items() if a > b + getattr(SLACK, n)}

    def __str__(self) -> str:
        before, after = self.quarter(1), self.quarter(3)
        return (
            f"{sum(self.reader.next.values())} records, {self.epochs} epochs, "
            f"{self.restarts} restarts in the process, {self.starts} starts; after the warm-up and "
            f"at the end: memory {before.memory / MB:.1f} and {after.memory / MB:.1f} MB, "
            f"descriptors {before.descriptors} and {after.descriptors}, "
            f"threads {before.threads} and {after.threads}, tasks {before.tasks} and "
            f"{after.tasks}, checkpoint files {before.checkpoint_files} and "
            f"{after.checkpoint_files}; {len(self.reader.wrong)} records lost, repeated or wrong"
        )


class PartReader:
    """Reads the parts as they appear, checks them, and takes away those that nobody needs."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._counted: Counter[int] = Counter()
        self.next: dict[int, int] = dict.fromkeys(range(SPLITS), 0)
        """The number that must come next, by split."""
        self.wrong: list[str] = []

    def read(self, *, everything: bool = False) -> None:
        """Read all but the newest parts: those a recovery may still take back."""
        for path in self._old(self._out / "followed", everything):
            self._check(path)
            path.unlink()
        for folder in ("windows", "beats"):
            for path in self._old(self._out / folder, everything):
                path.unlink()

    def _old(self, folder: Path, everything: bool) -> list[Path]:
        parts = sorted(folder.glob("part-*"))
        epochs = sorted({path.name.split("-")[1] for path in parts})
        # Epochs commit one after another, and those before the last ten stay committed.
        old = set(epochs if everything else epochs[:-10])
        return [path for path in parts if path.name.split("-")[1] in old]

    def _check(self, path: Path) -> None:
        for line in path.read_bytes().splitlines():
            split, number, seen = msgspec.json.decode(line)
            expected = self.next[split]
            if (number != expected or seen != expected) and len(self.wrong) < 20:
                self.wrong.append(f"{path.name}: {line!r}, expected number {expected}")
            self.next[split] = number + 1
