"""Events on their way from senders to the flow, in memory alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import anyio

from flowrt.connectors.ingest.gate import Gate
from flowrt.contract.errors import ConfigError
from flowrt.contract.source import Chunk, Position, Reader, SourceContext, Split


class MemoryInbox:
    """Keeps up to `capacity` events until the flow reads them."""

    def __init__(self, ingest: str, capacity: int) -> None:
        self.gate = Gate(ingest, capacity, None)
        self.journal_bytes = 0
        self._ingest = ingest
        self._id: str | None = None
        self._ready: deque[Any] = deque()
        self._arrival: anyio.Event | None = None
        self._closed = False
        self.is_read = False
        """Whether a flow reads."""

    @property
    def waiting(self) -> int:
        """How many events the flow has not read yet."""
        return len(self._ready)

    async def put(self, event: Any) -> None:
        """Take an event as soon as there is room."""
        await self.gate.enter()
        self._add(event)

    async def put_many(self, events: Iterable[Any]) -> None:
        """Take events in order."""
        for event in events:
            await self.put(event)

    def put_nowait(self, event: Any) -> None:
        """Take an event at once; `IngestFull` where there is no room."""
        self.gate.enter_nowait()
        self._add(event)

    def close(self) -> None:
        """End the input behind what was taken."""
        self._closed = True
        self._wake()

    def ended(self) -> None:
        """Keep what was taken for another job."""

    async def claim(self, ctx: SourceContext) -> None:
        """There is nothing that another process could have."""

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the one split: another one in each life, for one that ended is never read again.

        The clock tells lives apart.
        """
        if self._id is None:
            self._id = str(ctx.world.clock.now_ms())
        return [Split(self._id)]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[Any]:
        """Return a reader; what an earlier life had taken is gone."""
        if split not in await self.splits(ctx):
            return _Gone()
        if self.is_read:
            raise read_twice(self._ingest)
        self.is_read = True
        return _MemoryReader(self, position or 0)

    async def committed(self, positions: Mapping[str, Position]) -> None:
        """Nothing is kept that could go."""

    async def take(self, limit: int) -> list[Any]:
        """Wait for events; [] once the input is ended."""
        while not self._ready and not self._closed:
            self._arrival = anyio.Event()
            await self._arrival.wait()
        values = list(islice(self._ready, limit))
        for _ in values:
            self._ready.popleft()
        self.gate.leave(len(values))
        return values

    def release(self) -> None:
        """Let another reader come."""
        self.is_read = False

    def _add(self, event: Any) -> None:
        self._ready.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None


class _MemoryReader:
    """A position is a number of events."""

    def __init__(self, inbox: MemoryInbox, position: int) -> None:
        self._inbox = inbox
        self._position = position

    async def read(self, limit: int) -> Chunk[Any] | None:
        values = await self._inbox.take(limit)
        self._position += len(values)
        return Chunk(values, self._position) if values else None

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return self._inbox.waiting, "events"

    async def close(self) -> None:
        self._inbox.release()


class _Gone:
    """Reads what an earlier life of the process had in memory: nothing."""

    async def read(self, limit: int) -> Chunk[Any] | None:
        return None

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return 0, "events"

    async def close(self) -> None:
        return None


def read_twice(ingest: str) -> ConfigError:
    """Return the error for an ingest that is a source twice."""
    return ConfigError(
        f"ingest {ingest!r} is read already: give each flow, and each source in it, an Ingest of "
        "its own"
    )
