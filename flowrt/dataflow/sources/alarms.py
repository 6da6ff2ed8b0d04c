"""Times at which a task must be woken."""

from __future__ import annotations

from flowrt.contract.world import Alarm, Clock
from flowrt.dataflow.channels.parking import ParkingSpot


class Alarms:
    """Wakes a parking spot at named times; of several times for one name the earliest counts."""

    def __init__(self, clock: Clock, spot: ParkingSpot) -> None:
        self._clock = clock
        self._spot = spot
        self._set: dict[str, tuple[int, Alarm]] = {}
        self._rang: set[str] = set()

    def set(self, name: str, when_ms: int) -> None:
        """Wake the spot at a time (ms of processing time), unless it is woken for `name` before."""
        known = self._set.get(name)
        if known is not None:
            if known[0] <= when_ms:
                return
            known[1].cancel()
        self._set[name] = (when_ms, self._clock.call_at(when_ms, lambda: self._ring(name)))

    def take(self, name: str) -> bool:
        """Say whether the alarm rang since this was last asked."""
        if name not in self._rang:
            return False
        self._rang.discard(name)
        return True

    def cancel(self) -> None:
        """Forget all alarms."""
        for _, alarm in self._set.values():
            alarm.cancel()
        self._set.clear()

    def _ring(self, name: str) -> None:
        del self._set[name]
        self._rang.add(name)
        self._spot.wake()
