"""Run a whole flow in a test: in memory, on a clock that passes by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Unpack

import anyio
from anyio.lowlevel import checkpoint

from flowrt.runtime.job import Planned, start
from flowrt.runtime.options import StartOptions
from flowrt.runtime.status import JobStatus
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.world import ManualClock, manual_world

_TURNS: Final = 32
"""Turns of the event loop between two alarms, so that what one set going gets on a little."""


async def run_flow(flow: Planned, **options: Unpack[StartOptions]) -> JobStatus:
    """Run a flow until its input ends, and return how the job stands then.

    `options` are those of `flowrt.start`. `world` is a `manual_world()` unless given: no file on
    the disk is read or written, and no time passes outside. On a `ManualClock` time passes by
    itself: it jumps from alarm to alarm, so that epochs of a second, timers and restart delays take
    no time. With `MemoryFiles` the checkpoints are kept in "/checkpoints" unless said otherwise, so
    that delivery is exactly-once; running again in the same world goes on from them. Nobody can
    iterate over outputs here, so their values are dropped. Raises the error of a flow that fails.
    """
    world = options.setdefault("world", manual_world())
    if isinstance(world.files, MemoryFiles):
        options.setdefault("checkpoints", "/checkpoints")
    if not isinstance(world.clock, ManualClock):
        return await _run(flow, options)
    async with passing_time(world.clock):
        return await _run(flow, options)


async def _run(flow: Planned, options: StartOptions) -> JobStatus:
    async with start(flow, **options) as job:
        job.discard_outputs()
        await job.wait()
    return job.status()


@asynccontextmanager
async def passing_time(clock: ManualClock) -> AsyncIterator[None]:
    """Let a manual clock jump from alarm to alarm by itself, for the body of `async with`."""

    async def pass_on() -> None:
        while True:
            for _ in range(_TURNS):
                await checkpoint()
            when_ms = clock.next_alarm_ms()
            if when_ms is not None:
                clock.set_to(max(when_ms, clock.now_ms()))

    errors: list[Exception] = []
    async with anyio.create_task_group() as group:
        group.start_soon(pass_on)
        try:
            yield
        except Exception as error:  # by hand: the group would wrap it
            errors.append(error)
        group.cancel_scope.cancel()
    if errors:
        raise errors[0]
