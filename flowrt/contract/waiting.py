"""Waiting for the job's clock."""

from __future__ import annotations

import anyio

from flowrt.contract.world import Clock


async def wait_until(clock: Clock, when_ms: int) -> None:
    """Wait until the clock shows `when_ms` (ms since 1970); may be cancelled."""
    reached = anyio.Event()
    alarm = clock.call_at(when_ms, reached.set)
    try:
        await reached.wait()
    finally:
        alarm.cancel()


async def sleep_ms(clock: Clock, duration_ms: int) -> None:
    """Wait for a duration of the clock's time; may be cancelled."""
    await wait_until(clock, clock.now_ms() + duration_ms)
