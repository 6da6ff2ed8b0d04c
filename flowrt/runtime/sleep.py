"""Waiting on an injected clock."""

from __future__ import annotations

import anyio

from flowrt.contract.world import Clock


async def sleep_ms(clock: Clock, duration_ms: int) -> None:
    """Wait for a duration of the clock's time."""
    due = anyio.Event()
    alarm = clock.call_at(clock.now_ms() + duration_ms, due.set)
    try:
        await due.wait()
    finally:
        alarm.cancel()
