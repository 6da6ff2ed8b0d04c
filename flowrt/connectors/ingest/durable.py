"""Events on their way from senders to the flow, through a journal on disk."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import anyio

from flowrt.connectors.ingest.claim import in_use
from flowrt.connectors.ingest.events import Events
from flowrt.connectors.ingest.frames import Batch, segments_in
from flowrt.connectors.ingest.gate import Gate
from flowrt.connectors.ingest.journal import Journal, Replay, segment_bytes
from flowrt.connectors.ingest.memory import read_twice
from flowrt.connectors.ingest.pieces import Pieces
from flowrt.connectors.ingest.writer import Group, GroupWriter, Sent
from flowrt.contract.errors import (
    ConfigError,
    IngestClosed,
    IngestError,
    InputError,
    LeaseError,
)
from flowrt.contract.source import Chunk, Position, Reader, SourceContext, Split
from flowrt.contract.world import Files

_NO_FOLDER: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)


class JournalInbox:
    """Makes events durable, and gives them to the flow then.

    The journal is open for as long as the flow reads; what is sent before and between waits.
    """

    def __init__(
        self, ingest: str, capacity: int, folder: str, limit_bytes: int, events: Events
    ) -> None:
        self.gate = Gate(ingest, capacity, lambda: limit_bytes - self.journal_bytes)
        self._ingest = ingest
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._events = events
        self._writer = GroupWriter(ingest, self.gate, segment_bytes(limit_bytes), self._on_durable)
        self._closed = False
        self._claimed: Journal | None = None
        """The journal from when a job claims it to when its first reader comes."""
        self._journal: Journal | None = None
        self._opening: anyio.Event | None = None
        self._stream: int | None = None
        """The stream that goes on for as long as this object lives."""
        self._readers: set[int] = set()
        self._ready = Pieces()
        self._arrival: anyio.Event | None = None
        self._read = 0
        self._number = 0
        self._covered: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """How many events the flow has not read yet; those on disk count once it is opened."""
        return self.gate.events + max(self._number - self._read - self._ready.events, 0)

    @property
    def is_read(self) -> bool:
        """Whether a flow reads."""
        return bool(self._readers)

    @property
    def journal_bytes(self) -> int:
        """How many bytes the journal holds; 0 while it is not open."""
        return 0 if self._journal is None else self._journal.used_bytes

    # ------------------------------------------------------------------ for senders

    async def put(self, event: Any) -> None:
        """Take an event; return when it is durable."""
        sent = self._encoded(event, waits=True)
        await self.gate.enter(sent.size)
        group = self._writer.add(sent)
        try:
            await group.wait()
        except BaseException:
            if group.withdraw(sent):
                self.gate.leave(1, sent.size)
            raise
        self._check(group)

    async def put_many(self, events: Iterable[Any]) -> None:
        """Take events in order; return when all are durable."""
        groups: deque[Group] = deque()
        for event in events:
            sent = self._encoded(event, waits=True)
            await self.gate.enter(sent.size)
            group = self._writer.add(sent)
            if not groups or group is not groups[-1]:
                groups.append(group)
            while groups and groups[0].done:
                self._check(groups.popleft())
        for group in groups:
            await group.wait()
            self._check(group)

    def put_nowait(self, event: Any) -> None:
        """Take an event, which becomes durable with the next group."""
        sent = self._encoded(event, waits=False)
        self.gate.enter_nowait(sent.size)
        self._writer.add(sent)

    def close(self) -> None:
        """End the input behind what was taken."""
        self._closed = True
        self._writer.close()

    def ended(self) -> None:
        """Let the journal go where no reader came for it; send those away who wait for one."""
        if self._claimed is not None:
            self._claimed.close()
            self._claimed = None
        self._writer.dismiss(IngestClosed(f"ingest {self._ingest!r} {self.gate.closed}"))

    def _encoded(self, event: Any, *, waits: bool) -> Sent:
        sent = Sent(*self._events.encode(event), waits=waits)
        if sent.size > self._limit_bytes // 2:
            raise IngestError(
                f"ingest {self._ingest!r}: an event of {len(sent.payload)} bytes is too large for "
                f"a journal of {self._limit_bytes}: it may take half of it"
            )
        return sent

    def _check(self, group: Group) -> None:
        if isinstance(group.error, IngestClosed):
            raise IngestClosed(str(group.error))
        if group.error is not None:
            raise IngestError(
                f"ingest {self._ingest!r} could not write an event to its journal {self._folder}: "
                f"{group.error}. It may have become durable all the same: where it is sent again, "
                "a key in it lets the flow tell"
            ) from group.error

    # ------------------------------------------------------------------ for the flow

    async def claim(self, ctx: SourceContext) -> None:
        """Open the journal, so that a job that cannot have it does not begin."""
        try:
            self._claimed = await self._open(ctx.world.files, take_over=ctx.take_over)
        except OSError as error:
            message = (
                f"ingest {self._ingest!r} cannot open its journal {self._folder}: "
                f"{type(error).__name__}: {error}"
            )
            if error.errno in _NO_FOLDER:
                raise ConfigError(f"{message}. Name a folder that is there or can be") from error
            raise InputError(f"{message}. See whether the disk is there and healthy") from error

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return a split for each time that the input was ended, and the one that goes on."""
        found = segments_in(await ctx.world.files.names(self._folder))
        last = found[-1].stream if found else 0
        if self._stream is not None:
            last = self._stream
        streams = {segment.stream for segment in found if segment.stream < last}
        return [Split(str(stream)) for stream in sorted({*streams, last})]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[Any]:
        """Return a reader of one stream; the first opens the journal."""
        stream = int(split.id)
        if stream in self._readers:
            raise read_twice(self._ingest)
        self._readers.add(stream)
        try:
            journal = await self._opened(ctx.world.files)
            begin, end = journal.bounds(stream)
            offset, number = position or (begin, journal.number_at(begin))
            last = journal.end if end is None else end
            # The number tells, where the offset is that of a batch which is gone.
            if not begin <= offset <= last or number > journal.number_at(last):
                raise self._not_there(offset, begin, last)
        except BaseException:
            await self.release(stream)
            raise
        # No turn of the loop from here on: what is ready now lies in the journal and is read there.
        self._read = number
        if end is None:
            self.gate.leave(self._ready.clear())
        return _JournalReader(self, stream, Replay(journal, offset, last), number, end is None)

    async def committed(self, positions: Mapping[str, Position]) -> None:
        """Let go of what the epoch before this one covered.

        Not of what this one does: where its checkpoint is damaged, a recovery goes on from the one
        before.
        """
        if self._journal is not None:
            covered = {int(split): offset for split, offset in self._covered.items()}
            self._covered |= {split: at[0] for split, at in positions.items() if at is not None}
            await self._journal.forget(covered)
            self.gate.admit()

    async def release(self, stream: int) -> None:
        """Close the journal when nobody reads any more; what was taken becomes durable first."""
        self._readers.discard(stream)
        if not self._readers and self._journal is not None:
            await self._writer.stop()

    async def take(self, limit: int) -> Chunk[Any] | None:
        """Wait for events that became durable since the reader came; None once the input ended."""
        while not self._ready.events:
            failure = self._writer.failure
            if isinstance(failure, LeaseError):
                raise LeaseError(str(failure)) from failure
            if failure is not None:
                raise InputError(
                    f"ingest {self._ingest!r} cannot write its journal {self._folder}: "
                    f"{type(failure).__name__}: {failure}"
                ) from failure
            if self._journal is not None and self._journal.stream != self._stream:
                return None
            self._arrival = anyio.Event()
            await self._arrival.wait()
        chunk = self._ready.take(limit)
        self.gate.leave(len(chunk.values))
        return chunk

    def went_on(self, number: int) -> None:
        """Take note that the flow has all events before `number`."""
        self._read = number

    def decoded(self, payload: bytes, number: int) -> Any:
        """Return an event that lay in the journal; `InputError` where its type has changed."""
        try:
            return self._events.decode(payload)
        except Exception as error:
            raise InputError(
                f"ingest {self._ingest!r}: event {number} in the journal {self._folder} does not "
                f"fit the declared type any more: {error}. Give new fields a default, or let a "
                "flow with the old type read the journal to its end first"
            ) from error

    async def _opened(self, files: Files) -> Journal:
        while self._opening is not None:  # another subtask is about it
            await self._opening.wait()
        if self._journal is not None and self._journal.is_open and not self._writer.stopping:
            return self._journal
        self._opening = opening = anyio.Event()
        try:
            await self._writer.finished()
            journal, self._claimed = self._claimed, None
            if journal is None:
                journal = await self._open(files)
        finally:
            self._opening = None
            opening.set()
        self._journal, self._number, self._covered = journal, journal.number, {}
        assert self._stream is not None
        self._writer.start(journal, self._stream)
        return journal

    async def _open(self, files: Files, *, take_over: bool = False) -> Journal:
        journal = await Journal.open(files, self._folder, self._limit_bytes, take_over=take_over)
        if self._stream is None:
            self._stream = journal.stream
        if journal.stream != self._stream and not self._closed:
            journal.close()
            raise in_use(self._folder)
        return journal

    def _on_durable(self, batch: Batch | None, values: list[Any]) -> None:
        if batch is not None:
            self._number = batch.number + batch.count
            self._ready.add(batch, values)
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None

    def _not_there(self, offset: int, begin: int, end: int) -> InputError:
        return InputError(
            f"ingest {self._ingest!r} should go on from offset {offset} of the journal "
            f"{self._folder}, which holds {begin} to {end}: it was cut, replaced or deleted, or "
            "the checkpoint is older than what the journal keeps. Bring the journal back, or start "
            "the flow with a new checkpoint folder"
        )


class _JournalReader:
    """Reads what lay in the journal when it came, then what becomes durable."""

    def __init__(
        self, inbox: JournalInbox, stream: int, replay: Replay, number: int, is_live: bool
    ) -> None:
        self._inbox = inbox
        self._stream = stream
        self._replay: Replay | None = replay
        self._old = Pieces()
        self._number = number
        self._is_live = is_live

    async def read(self, limit: int) -> Chunk[Any] | None:
        if self._replay is not None:
            await self._load(self._replay, limit)
        chunk: Chunk[Any] | None = None
        if self._old.events:
            chunk = self._old.take(limit)
        elif self._is_live:
            chunk = await self._inbox.take(limit)
        if chunk is not None:
            self._inbox.went_on(chunk.position[1])
        return chunk

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return self._inbox.waiting, "events"

    async def close(self) -> None:
        await self._inbox.release(self._stream)

    async def _load(self, replay: Replay, limit: int) -> None:
        """Have `limit` events of the journal at hand, or all that are left of it."""
        while self._old.events < limit:
            found = await replay.next()
            if found is None:
                self._replay = None
                return
            batch, payloads = found
            numbered = enumerate(payloads, batch.number)
            values = [self._inbox.decoded(payload, number) for number, payload in numbered]
            self._old.add(batch, values, taken=max(self._number - batch.number, 0))
