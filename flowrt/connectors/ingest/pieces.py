"""Batches of events on their way to the flow, cut into chunks with positions. No I/O.

A position is [offset, number]: where the batch lies that has the next event, and that event's
number.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from flowrt.connectors.ingest.frames import Batch
from flowrt.contract.source import Chunk


@dataclass(slots=True)
class Piece:
    """A batch with its events, of which the first `taken` went on."""

    batch: Batch
    values: list[Any]
    taken: int = 0


class Pieces:
    """A queue of batches."""

    def __init__(self) -> None:
        self._queue: deque[Piece] = deque()
        self.events = 0
        """How many events are in it."""

    def add(self, batch: Batch, values: list[Any], taken: int = 0) -> None:
        """Put a batch behind the others, without its first `taken` events."""
        if taken < len(values):
            self._queue.append(Piece(batch, values, taken))
            self.events += len(values) - taken

    def take(self, limit: int) -> Chunk[Any]:
        """Return up to `limit` events; there must be one."""
        first = self._queue[0]
        batch, values = first.batch, first.values[first.taken : first.taken + limit]
        first.taken += len(values)
        while first.taken == len(first.values):
            self._queue.popleft()
            if not self._queue or len(values) == limit:
                break
            first = self._queue[0]
            batch, more = first.batch, first.values[: limit - len(values)]
            first.taken = len(more)
            values += more
        self.events -= len(values)
        whole = first.taken == len(first.values)
        return Chunk(values, [batch.end if whole else batch.offset, batch.number + first.taken])

    def clear(self) -> int:
        """Empty it; return how many events were in it."""
        events, self.events = self.events, 0
        self._queue.clear()
        return events
