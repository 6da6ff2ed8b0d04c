"""A world under control: time that stands still, files that can be lost, chance from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from flowrt.contract.world import Alarm, World
from flowrt.runtime.world import SystemClock
from flowrt.testing.memory_files import MemoryFiles

__all__ = ["ManualClock", "MemoryFiles", "SeededRandomness", "manual_world"]


def manual_world(now_ms: int = 0, seed: int = 0) -> World:
    """Return a world with a `ManualClock`, `MemoryFiles` and `SeededRandomness`."""
    return World(
        clock=ManualClock(now_ms),
        files=MemoryFiles(),
        randomness=SeededRandomness(seed),
        host="testhost",
        pid=1,
    )


class SeededRandomness:
    """Chance that is the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def fraction(self) -> float:
        """See `Randomness.fraction`."""
        return self._random.random()

    def token(self) -> str:
        """See `Randomness.token`."""
        return f"{self._random.getrandbits(64):016x}"


@dataclass(order=True)
class _ManualAlarm:
    when_ms: int
    order: int
    call: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.call = None


class ManualClock:
    """A clock that moves only when told; `advance` calls what is due, in order of time."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._monotonic_ns = 0
        self._alarms: list[_ManualAlarm] = []
        self._order = count()

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return self._now_ms

    def monotonic_ns(self) -> int:
        """See `Clock.monotonic_ns`; moves with `now_ms`, but never back."""
        return self._monotonic_ns

    def call_at(self, when_ms: int, call: Callable[[], None]) -> Alarm:
        """See `Clock.call_at`; what is due already rings in the event loop's next turn."""
        alarm = _ManualAlarm(when_ms, next(self._order), call)
        heappush(self._alarms, alarm)
        if when_ms <= self._now_ms:
            try:
                SystemClock().call_at(0, self._ring)
            except (RuntimeError, ImportError):
                pass  # outside an event loop it rings when the clock is next moved
        return alarm

    def next_alarm_ms(self) -> int | None:
        """Return when the next alarm rings; None where none is set."""
        while self._alarms and self._alarms[0].call is None:
            heappop(self._alarms)
        return self._alarms[0].when_ms if self._alarms else None

    def advance(self, ms: int) -> None:
        """Move on by `ms`, ringing what becomes due, each at its own time."""
        self.set_to(self._now_ms + ms)

    def set_to(self, now_ms: int) -> None:
        """Move to a time, ringing what becomes due; it may lie in the past, as a clock's may."""
        while (when_ms := self.next_alarm_ms()) is not None and when_ms <= now_ms:
            self._move(max(when_ms, self._now_ms))
            self._ring_first()
        self._move(now_ms)

    def _move(self, now_ms: int) -> None:
        self._monotonic_ns += max(now_ms - self._now_ms, 0) * 1_000_000
        self._now_ms = now_ms

    def _ring(self) -> None:
        while (when_ms := self.next_alarm_ms()) is not None and when_ms <= self._now_ms:
            self._ring_first()

    def _ring_first(self) -> None:
        alarm = heappop(self._alarms)
        call, alarm.call = alarm.call, None
        if call is not None:
            call()
