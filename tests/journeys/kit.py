"""What the journeys share: a world that stands still, and waiting in turns of the event loop.

Files lie in memory and time moves only when a test says so: all that a job does is over after a
number of turns, the same each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

import flowrt
from flowrt.contract.world import World
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.world import ManualClock, SeededRandomness

FOLDER = "/checkpoints"
EPOCH_MS = 1_000
TURNS = 5_000


@dataclass
class Place:
    """A machine with a clock and a disk of its own, on which jobs run one after another."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(1_000_000))
    files: MemoryFiles = field(default_factory=MemoryFiles)
    pid: int = 0

    def world(self) -> World:
        """A world for one more process."""
        self.pid += 1
        return World(self.clock, self.files, SeededRandomness(self.pid), "testhost", self.pid)

    @asynccontextmanager
    async def start(self, flow: flowrt.Flow, **options: Any) -> AsyncIterator[flowrt.Job]:
        """Start a job on this machine, with checkpoints in `FOLDER` unless said otherwise."""
        given: dict[str, Any] = {"checkpoints": FOLDER, "world": self.world(), **options}
        async with flowrt.start(flow, **given) as job:
            yield job

    async def run(self, flow: flowrt.Flow, **options: Any) -> flowrt.Job:
        """Run a flow to the end of its input, however many epochs and restarts that takes."""
        async with self.passing_time(), self.start(flow, **options) as job:
            await job.wait()
        return job

    @asynccontextmanager
    async def passing_time(self) -> AsyncIterator[None]:
        """Let time pass, an epoch every few turns, for as long as the block takes."""
        error: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._pass_time)
            try:
                yield
            except Exception as raised:  # as it is, not in a group
                error = raised
            group.cancel_scope.cancel()
        if error is not None:
            raise error

    async def _pass_time(self) -> None:
        for _ in range(1_000):
            await turns(100)
            self.clock.advance(EPOCH_MS)
        raise AssertionError("what takes time here does not end")

    async def epoch(self, job: flowrt.Job) -> int:
        """Let one epoch pass and be committed; return its number."""
        before = job.status().epoch
        self.clock.advance(EPOCH_MS)
        await until(lambda: job.status().epoch != before)
        epoch = job.status().epoch
        assert epoch is not None
        return epoch

    async def finish(self, job: flowrt.Job) -> None:
        """Let time pass until the job ended; raises what it failed with."""
        async with self.passing_time():
            await job.wait()


async def turns(count: int = 200) -> None:
    """Let the event loop turn."""
    for _ in range(count):
        await checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until a condition holds."""
    for _ in range(TURNS):
        if condition():
            return
        await checkpoint()
    raise AssertionError("what the test waits for does not happen")
