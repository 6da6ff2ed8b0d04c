"""How many records a source sends in one go. Only decides."""

from __future__ import annotations

from typing import Final

from flowrt.dataflow.channel import RUN_LIMIT

FIRST: Final = 16
"""With how many it begins: nobody knows yet how long they take."""

LONG_NS: Final = 20_000_000
"""A barrier, and a drain, wait for the run that is under way: it should take no longer."""


class RunLength:
    """Grows to `RUN_LIMIT` while runs are quick, and shrinks to what a slow step does in time."""

    __slots__ = ("limit",)

    def __init__(self) -> None:
        self.limit = FIRST

    def took(self, records: int, nanoseconds: int) -> None:
        """Take note of how long a run of records took, with all steps and the wait for room."""
        if nanoseconds > LONG_NS:
            self.limit = max(1, min(self.limit, records * LONG_NS // nanoseconds))
        elif 2 * nanoseconds <= LONG_NS:
            self.limit = min(RUN_LIMIT, 2 * self.limit)
