"""How long to wait so that no more than a given number of records a second leave a source."""

from __future__ import annotations


class Throttle:
    """Spreads records evenly; what was not used up in the past is not caught up."""

    def __init__(self, records_per_second: float) -> None:
        self._ms_per_record = 1000 / records_per_second
        self._free_at_ms = 0.0

    def limit(self) -> int:
        """Return how many records to take at once: what 50 ms allow, at least one."""
        return max(1, min(1024, int(50 / self._ms_per_record)))

    def take(self, records: int, now_ms: int) -> float:
        """Take records; return when (ms) they may leave: now or later."""
        leave_at = max(self._free_at_ms, float(now_ms))
        self._free_at_ms = leave_at + records * self._ms_per_record
        return leave_at
