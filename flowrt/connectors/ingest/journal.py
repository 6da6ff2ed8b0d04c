"""The journal of an ingest: events made durable in batches, kept until an epoch covers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from anyio.lowlevel import checkpoint

from flowrt.connectors.files.blocks import BLOCK_BYTES
from flowrt.connectors.ingest.frames import (
    MAGIC,
    Batch,
    Segment,
    batch_bytes,
    encode_batch,
    payloads_of,
    segments_in,
    whole_batch,
    whole_batch_behind,
)
from flowrt.contract.errors import InputError, LeaseError
from flowrt.contract.logs import flow_log
from flowrt.contract.plural import plural
from flowrt.contract.world import FileLock, Files

log = flow_log()

LOCK: Final = "journal.lock"
_TEMPORARY: Final = "events.tmp"
_TURN: Final = 256
"""After how many batches whoever looks for the end gives the loop a turn."""
_MOST_SEGMENT_BYTES: Final = 16 * 1024 * 1024


class Journal:
    """An open journal, owned by this process. `end` and `number` are where the next event goes.

    Offsets count the bytes of all batches there ever were; numbers count events.
    """

    def __init__(self, files: Files, folder: str, limit_bytes: int, lock: FileLock) -> None:
        self.files = files
        self.folder = folder
        self.stream = 0
        self.end = 0
        self.number = 0
        self.is_open = True
        self._segment_bytes = segment_bytes(limit_bytes)
        self._lock = lock
        self._segments: list[Segment] = []
        self._torn = False
        """Whether the last write failed: what lies behind `end` in the last segment is unknown."""

    @classmethod
    async def open(cls, files: Files, folder: str, limit_bytes: int) -> Journal:
        """Take a journal's folder (made where missing) and find the end of what is durable.

        `LeaseError` where another process has it, `InputError` where its last file is damaged.
        """
        await _make_folder(files, folder)
        lock = await files.lock(f"{folder}/{LOCK}")
        if lock is None:
            raise in_use(folder)
        try:
            journal = cls(files, folder, limit_bytes, lock)
            await journal._find_segments()
            await journal._find_end()
        except BaseException:
            lock.release()
            raise
        return journal

    @property
    def used_bytes(self) -> int:
        """How many bytes the events take that no epoch covers for good, and some that are."""
        return self.end - self._segments[0].base if self._segments else 0

    def path(self, segment: Segment) -> str:
        """Return where a segment lies."""
        return f"{self.folder}/{segment.name}"

    def bounds(self, stream: int) -> tuple[int, int | None]:
        """Return where a stream begins, as far as it is kept, and ends (None: not yet)."""
        own = [segment.base for segment in self._segments if segment.stream == stream]
        later = [segment.base for segment in self._segments if segment.stream > stream]
        begin = own[0] if own else (later[0] if later else self.end)
        return begin, (later[0] if later else None)

    def number_at(self, border: int) -> int:
        """Return the number of the event that follows the beginning of a segment, or the end."""
        if border == self.end:
            return self.number
        return next(segment.number for segment in self._segments if segment.base == border)

    def segment_at(self, offset: int) -> tuple[Segment, int]:
        """Return the segment that holds an offset before the end, and where it ends."""
        ends = [*(segment.base for segment in self._segments[1:]), self.end]
        for segment, end in zip(self._segments, ends, strict=True):
            if segment.base <= offset < end:
                return segment, end
        raise InputError(f"the journal {self.folder} has no events at offset {offset}")

    # ------------------------------------------------------------------ writing

    async def append(self, payloads: Sequence[bytes]) -> Batch:
        """Make events durable; `OSError` where that fails: they are not counted then.

        After a crash such a batch may be there all the same.
        """
        data = encode_batch(self.end, self.number, payloads)
        if self._segments and not self._torn and not self._is_full(len(data)):
            last = self._segments[-1]
            self._torn = True
            await self.files.write_at(self.path(last), last.place(self.end), data)
            await self.files.sync(self.path(last))
            self._torn = False
        else:
            # Where a sync failed the disk may have dropped bytes that look written: none of them
            # is trusted, the batch goes to a file of its own.
            await self._begin(self.stream, data)
        batch = Batch(self.end, self.number, len(payloads), len(data))
        self.end, self.number = batch.end, batch.number + batch.count
        return batch

    async def end_stream(self) -> None:
        """Mark durably that the input ended here: what follows is another stream."""
        await self._begin(self.stream + 1, b"")
        self.stream += 1

    async def forget(self, covered: Mapping[int, int]) -> None:
        """Delete the files whose events are all covered; `covered` has an offset for each stream.

        One that cannot be deleted is tried again the next time.
        """
        try:
            while len(self._segments) > 1:
                first, second = self._segments[:2]
                # One without events has no position that could cover it.
                if first.base < second.base and covered.get(first.stream, -1) < second.base:
                    return
                await self.files.delete(self.path(first))
                # Before the next one goes, so that a crash never leaves a gap.
                await self.files.sync_folder(self.folder)
                if first in self._segments:
                    self._segments.remove(first)
        except OSError as error:
            log.warning(
                "the journal %s cannot delete what it needs no more: %s", self.folder, error
            )

    def close(self) -> None:
        """Let another process have it; may be called twice."""
        self.is_open = False
        self._lock.release()

    def _is_full(self, more: int) -> bool:
        size = self.end - self._segments[-1].base
        return size > 0 and size + more > self._segment_bytes

    async def _begin(self, stream: int, data: bytes) -> None:
        """Begin a segment at the end, durably."""
        segment = Segment(stream, self.end, self.number)
        self._torn = True
        await self.files.write(self.path(segment), [MAGIC, data])
        await self.files.sync(self.path(segment))
        await self.files.sync_folder(self.folder)
        self._torn = False
        if segment not in self._segments:
            self._segments.append(segment)

    # ------------------------------------------------------------------ opening

    async def _find_segments(self) -> None:
        """Find the files; `InputError` where one does not reach to the next."""
        self._segments = segments_in(await self.files.names(self.folder))
        for older, newer in pairwise(self._segments):
            size = await self.files.size(self.path(older)) or 0
            if size < older.place(newer.base):
                raise cut_short(self.path(older), size)

    async def _find_end(self) -> None:
        """Find the last whole batch, and copy it to a file that surely is durable.

        It alone may not be: its process may have died between the write and the sync, or the sync
        have failed. What is torn behind it stays behind in the old file.
        """
        if not self._segments:
            return
        last = self._segments[-1]
        self.stream = last.stream
        data = await self.files.read(self.path(last))
        found = await _last_batch(data, last)
        place = len(MAGIC) if data.startswith(MAGIC) else 0
        tail = b""
        self.end, self.number = last.base, last.number
        if found is not None:
            place = last.place(found.end)
            tail = data[last.place(found.offset) : place]
            self.end, self.number = found.offset, found.number
        if place < len(data):
            self._cut(last, data, place)
        await self._renew(tail)
        if found is not None:
            self.end, self.number = found.end, found.number + found.count

    def _cut(self, segment: Segment, data: bytes, place: int) -> None:
        if whole_batch_behind(data, place, segment) is not None:
            raise damaged(self.path(segment), place)
        log.warning(
            "the journal %s ends in a write that a crash cut short: %d %s at byte %d of %s left "
            "out; no send of theirs had returned",
            self.folder,
            len(data) - place,
            plural(len(data) - place, "byte"),
            place,
            segment.name,
        )

    async def _renew(self, tail: bytes) -> None:
        """Put a segment that begins at the end in its place, whole or not at all."""
        segment, temporary = (
            Segment(self.stream, self.end, self.number),
            f"{self.folder}/{_TEMPORARY}",
        )
        await self.files.write(temporary, [MAGIC, tail])
        await self.files.sync(temporary)
        await self.files.rename(temporary, self.path(segment))
        await self.files.sync_folder(self.folder)
        if segment not in self._segments:
            self._segments.append(segment)


def segment_bytes(limit_bytes: int) -> int:
    """Return how large a file grows; only one event or group that is larger makes it so."""
    return min(limit_bytes // 8, _MOST_SEGMENT_BYTES)


class Replay:
    """Reads batches from an offset to where the journal, or the stream, ends now."""

    def __init__(self, journal: Journal, offset: int, end: int) -> None:
        self._journal = journal
        self._offset = offset
        self._end = end
        self._data = b""
        self._at = 0

    async def next(self) -> tuple[Batch, list[bytes]] | None:
        """Return a batch and its events; None at the end. `InputError` where it is damaged."""
        if self._offset >= self._end:
            return None
        batch = whole_batch(self._data, self._at, self._offset)
        if batch is None:
            batch = await self._load()
        payloads = payloads_of(self._data, self._at, batch)
        self._at += batch.size
        self._offset = batch.end
        return batch, payloads

    async def _load(self) -> Batch:
        segment, end = self._journal.segment_at(self._offset)
        path, place, left = (
            self._journal.path(segment),
            segment.place(self._offset),
            end - self._offset,
        )
        data = await self._journal.files.read(path, place, min(BLOCK_BYTES, left))
        size = batch_bytes(data, 0, self._offset) or 0
        if len(data) < size <= left:
            data = await self._journal.files.read(path, place, size)
        batch = whole_batch(data, 0, self._offset)
        if batch is None:
            raise damaged(path, place)
        self._data, self._at = data, 0
        return batch


def damaged(path: str, place: int) -> InputError:
    """Return the error for a file whose bytes are not as they were written."""
    return InputError(
        f"the journal file {path} is damaged at byte {place}: its bytes do not fit their "
        f"checksum, and events that were acknowledged lie there or behind. {_ADVICE}"
    )


def cut_short(path: str, size: int) -> InputError:
    """Return the error for a file that ends before the next one begins."""
    return InputError(
        f"the journal file {path} ends at byte {size}, and the next one begins further on: it was "
        f"cut, or files between them were deleted. {_ADVICE}"
    )


_ADVICE: Final = (
    "Bring the files back from a backup; or, if those events may be lost, move the journal's "
    "folder away and start the flow with a new checkpoint folder"
)


def in_use(folder: str) -> LeaseError:
    """Return the error for a journal that another process has."""
    return LeaseError(
        f"the journal {folder} is in use by another process, or another Ingest of this one: stop "
        "that, or give this one a folder of its own"
    )


async def _last_batch(data: bytes, segment: Segment) -> Batch | None:
    """Return the last of the whole batches that a segment's file begins with."""
    found, place, turn = None, len(MAGIC), 0
    while data.startswith(MAGIC):
        batch = whole_batch(data, place, segment.offset(place))
        if batch is None:
            break
        found, place, turn = batch, place + batch.size, turn + 1
        if turn % _TURN == 0:
            await checkpoint()
    return found


async def _make_folder(files: Files, folder: str) -> None:
    """Make a folder and those above it, so that they are there after a crash."""
    missing = []
    above = folder
    while above and not await files.is_folder(above):
        missing.append(above)
        above = above.rpartition("/")[0]
    await files.make_folder(folder)
    for made in reversed(missing):
        await files.sync_folder(made.rpartition("/")[0] or ("/" if made.startswith("/") else "."))
