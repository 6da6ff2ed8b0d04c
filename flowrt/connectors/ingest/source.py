"""Events that a service pushes into a flow."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, Generic, TypeVar, overload

from flowrt.connectors.ingest.durable import JournalInbox
from flowrt.connectors.ingest.events import Events
from flowrt.connectors.ingest.memory import MemoryInbox, read_twice
from flowrt.contract.errors import ConfigError, IngestError
from flowrt.contract.source import Position, Reader, Source, SourceContext, Split

T = TypeVar("T")

JOURNAL_LIMIT_BYTES: Final = 256 * 1024 * 1024
LEAST_JOURNAL_BYTES: Final = 1_024


class Ingest(Source[T], Generic[T]):
    """A source that is pushed: `await orders.send(event)`, from any task of the flow's event loop.

    At most `capacity` events wait for the flow; then `send` waits, in the order of asking, and
    `send_nowait` raises. Events may be sent before the flow runs; once it has ended they get
    `IngestClosed`, until another job reads. `close` ends the input, so that the flow finishes.

    Without `journal` events are in memory only and count at most once: a crash, a restart and a
    drain lose those that the last epoch does not cover. What was sent is what the flow gets.

    With `journal`, a folder of its own, an event is durable when its `send` returns, and counts
    exactly once end to end, with a sink that allows it and a checkpoint folder. One whose `send`
    did not return (it was cancelled, it raised, the process died) counts once or not at all: who
    sends it again gives it a key by which the flow leaves out the second. All that is sent while
    one sync is under way becomes durable by the next. The journal keeps events until an epoch
    behind the one that covers them is committed, and at most `journal_limit_bytes` of them: then
    `send` waits for the flow. While the flow restarts, `send` waits too.

    In a journal events are encoded: as the declared `type` (a dataclass, a msgspec Struct, whatever
    msgspec can decode), or without one as plain data: None, bool, int, float, str, bytes, lists and
    dicts. The flow gets what the bytes say, so the same each time. A flow that starts without a
    checkpoint reads all that the journal still has.

    `name` is for messages. Event time comes from `flow.source(orders, watermarks=...)`, and idle
    moments are common here: see `WatermarkStrategy.with_idleness`.
    """

    bounded = False
    max_open_splits = 1

    @overload
    def __init__(
        self,
        name: str,
        *,
        type: type[T],
        capacity: int = 1_000,
        journal: str | os.PathLike[str] | None = None,
        journal_limit_bytes: int = JOURNAL_LIMIT_BYTES,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        type: Any = None,
        capacity: int = 1_000,
        journal: str | os.PathLike[str] | None = None,
        journal_limit_bytes: int = JOURNAL_LIMIT_BYTES,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        type: Any = None,
        capacity: int = 1_000,
        journal: str | os.PathLike[str] | None = None,
        journal_limit_bytes: int = JOURNAL_LIMIT_BYTES,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"ingest {name!r}: capacity is in events and at least 1")
        if journal_limit_bytes < LEAST_JOURNAL_BYTES:
            raise ConfigError(
                f"ingest {name!r}: journal_limit_bytes must be at least {LEAST_JOURNAL_BYTES}"
            )
        self.name = name
        self.replayable = self.needs_checkpoints = journal is not None
        self._journal = None if journal is None else PurePath(journal).as_posix()
        self._inbox: MemoryInbox | JournalInbox
        if self._journal is None:
            self._inbox = MemoryInbox(name, capacity)
        else:
            events = Events(name, type)
            self._inbox = JournalInbox(name, capacity, self._journal, journal_limit_bytes, events)
        self._closed = False
        self._is_claimed = False
        self._thread: int | None = None
        """The thread of the flow's event loop, while there is a flow."""

    # ------------------------------------------------------------------ for the service

    async def send(self, event: T) -> None:
        """Hand an event in; waits while the flow is behind, and with a journal until it is durable.

        `IngestClosed` where nobody will read it, `IngestError` in another thread than the flow's.
        With a journal also for an event that cannot be encoded, naming its type, or where the disk
        fails; then, or when `send` is cancelled, the event may have become durable all the same.
        """
        self._check_thread()
        await self._inbox.put(event)

    async def send_many(self, events: Iterable[T]) -> None:
        """Hand events in, in order, as `send` does for each, but with a few syncs for all.

        Where it raises or is cancelled, some of them may have been taken.
        """
        self._check_thread()
        await self._inbox.put_many(events)

    def send_nowait(self, event: T) -> None:
        """Hand an event in at once; `IngestFull` where `send` would wait for room.

        With a journal it promises less than `send`: the event becomes durable with the next sync,
        a moment later, and nobody hears if that fails. A crash before loses it; otherwise it counts
        once.
        """
        self._check_thread()
        self._inbox.put_nowait(event)

    def close(self) -> None:
        """End the input: the flow processes what was taken, and finishes.

        Senders that wait for room get `IngestClosed`, and so does everybody from now on. A new
        `Ingest` on the same journal, in the next life of the service, takes events again.
        """
        self._check_thread()
        self._closed = True
        self._inbox.gate.close("is closed: no event can be sent any more")
        self._inbox.close()

    @property
    def waiting(self) -> int:
        """How many events were taken and not read by the flow yet; for a health endpoint."""
        return self._inbox.waiting

    @property
    def journal_bytes(self) -> int:
        """How many bytes of `journal_limit_bytes` are in use; 0 while no flow reads."""
        return self._inbox.journal_bytes

    # ------------------------------------------------------------------ for the flow

    def describe(self) -> str:
        """Return the name, and where the journal is."""
        return f"ingest {self.name} ({f'journal {self._journal}' if self._journal else 'memory'})"

    async def claim(self, ctx: SourceContext) -> None:
        """Take the journal, from whoever has it with `ctx.take_over`, else `LeaseError`."""
        if self._is_claimed or self._inbox.is_read:
            raise read_twice(self.name)
        self._is_claimed = True
        self._open_again()
        try:
            await self._inbox.claim(ctx)
        except BaseException:
            self.ended()
            raise

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return one split, and with a journal one more for each former life that was closed."""
        self._open_again()
        return await self._inbox.splits(ctx)

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Return the reader; `LeaseError` where another process has the journal."""
        self._open_again()
        return await self._inbox.reader(split, position, ctx)

    async def committed(self, epoch: int, positions: Mapping[str, Position]) -> None:
        """See `Source.committed`."""
        await self._inbox.committed(positions)

    def ended(self) -> None:
        """See `Source.ended`."""
        if self._inbox.is_read:
            return  # that was a job which was refused: another one reads
        self._is_claimed, self._thread = False, None
        if not self._closed:
            self._inbox.gate.close("is not read any more: its flow has ended, start it again")
        self._inbox.ended()

    def _check_thread(self) -> None:
        """Refuse a call from where the flow's event loop cannot be woken."""
        if self._thread is not None and self._thread != threading.get_ident():
            raise IngestError(
                f"ingest {self.name!r} belongs to the event loop in which its flow runs, and this "
                "is another thread. Call it there: anyio.from_thread.run(orders.send, event) in a "
                "worker thread of that loop, or with asyncio from any thread "
                "asyncio.run_coroutine_threadsafe(orders.send(event), loop).result()"
            )

    def _open_again(self) -> None:
        self._thread = threading.get_ident()
        if not self._closed:
            self._inbox.gate.closed = None
