"""Lets senders in, in the order in which they come, for as long as there is room."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from flowrt.contract.errors import IngestClosed, IngestFull
from flowrt.contract.plural import plural


class _Place:
    """A sender that waits in line."""

    __slots__ = ("called", "granted", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.called = anyio.Event()
        self.granted = False


class Gate:
    """Counts what is inside: events, and the bytes of those that are not in a journal yet.

    `capacity` bounds the events, `free_bytes` says how many bytes there is room for in all.
    """

    def __init__(self, ingest: str, capacity: int, free_bytes: Callable[[], int] | None) -> None:
        self.events = 0
        self.bytes = 0
        self.closed: str | None = None
        """Why nobody is let in, for messages; None while the gate is open."""
        self._ingest = ingest
        self._capacity = capacity
        self._free_bytes = free_bytes
        self._line: deque[_Place] = deque()

    async def enter(self, size: int = 0) -> None:
        """Wait for room for one event of `size` bytes; `IngestClosed` where there never will be."""
        self._check()
        if not self._line and self._has_room(size):
            self._take(size)
            return
        place = _Place(size)
        self._line.append(place)
        try:
            await place.called.wait()
        except BaseException:
            if place.granted:
                self.leave(1, size)
            elif place in self._line:
                self._line.remove(place)
                self.admit()
            raise
        if not place.granted:
            raise self._refusal()

    def enter_nowait(self, size: int = 0) -> None:
        """Enter at once; `IngestFull` where there is no room, or others wait for it."""
        self._check()
        if self._line or not self._has_room(size):
            raise IngestFull(
                f"ingest {self._ingest!r} is full: {self.events} of {self._capacity} "
                f"{plural(self._capacity, 'event')} wait for the flow"
                + ("" if self._free_bytes is None else ", or the journal is full")
            )
        self._take(size)

    def leave(self, events: int, size: int = 0) -> None:
        """Make room."""
        self.events -= events
        self.bytes -= size
        self.admit()

    def admit(self) -> None:
        """Call in who waits, as far as there is room."""
        while self._line and self._has_room(self._line[0].size):
            place = self._line.popleft()
            self._take(place.size)
            place.granted = True
            place.called.set()

    def close(self, reason: str) -> None:
        """Let nobody in any more; who waits gets `IngestClosed`."""
        self.closed = reason
        while self._line:
            self._line.popleft().called.set()

    def _check(self) -> None:
        if self.closed is not None:
            raise self._refusal()

    def _refusal(self) -> IngestClosed:
        return IngestClosed(f"ingest {self._ingest!r} {self.closed}")

    def _has_room(self, size: int) -> bool:
        if self.events >= self._capacity:
            return False
        return self._free_bytes is None or self.bytes + size <= self._free_bytes()

    def _take(self, size: int) -> None:
        self.events += 1
        self.bytes += size
