"""How many records go at once: of a source in one go, or into a channel. Only decides."""

from __future__ import annotations

from typing import Final

RUN_LIMIT: Final = 1024
"""Records in one run that a task sends, and that runs join up to."""

FIRST: Final = 1
"""With how many it begins: nobody knows yet how long they take. Ten quick runs later it is all."""

LONG_NS: Final = 20_000_000
"""A barrier, and a drain, wait for what is under way: it should take no longer."""


class RunLength:
    """Grows to `most` while runs are quick, and shrinks to what a slow step does in time."""

    __slots__ = ("_most", "limit")

    def __init__(self, most: int = RUN_LIMIT) -> None:
        self._most = most
        self.limit = min(FIRST, most)

    def took(self, records: int, nanoseconds: int) -> None:
        """Take note of how long a run of records took, with all steps and the wait for room."""
        if nanoseconds > LONG_NS:
            self.limit = max(1, min(self.limit, records * LONG_NS // nanoseconds))
        elif 2 * nanoseconds <= LONG_NS:
            self.limit = min(self._most, 2 * self.limit)
