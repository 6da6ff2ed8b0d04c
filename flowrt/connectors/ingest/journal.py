"""The journal of an ingest: events made durable in batches, kept until an epoch covers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from anyio.lowlevel import checkpoint

from flowrt.connectors.files.blocks import BLOCK_BYTES
from flowrt.connectors.ingest.claim import Claim
from flowrt.connectors.ingest.frames import (
    MAGIC,
    Batch,
    Segment,
    batch_bytes,
    cut_name,
    cut_off_in,
    cuts_in,
    encode_batch,
    payloads_of,
    segments_in,
    whole_batch,
    whole_batch_behind,
)
from flowrt.contract.errors import InputError
from flowrt.contract.logs import flow_log
from flowrt.contract.plural import plural
from flowrt.contract.world import Files

log = flow_log()

_TURN: Final = 256
"""After how many batches whoever looks for the end gives the loop a turn."""
_MOST_SEGMENT_BYTES: Final = 16 * 1024 * 1024


class Journal:
    """An open journal, owned by this process. `end` and `number` are where the next event goes.

    Offsets count the bytes of all batches there ever were; numbers count events.
    """

    def __init__(self, files: Files, folder: str, limit_bytes: int, claim: Claim) -> None:
        self.files = files
        self.folder = folder
        self.stream = 0
        self.end = 0
        self.number = 0
        self.is_open = True
        self._segment_bytes = segment_bytes(limit_bytes)
        self._claim = claim
        self._segments: list[Segment] = []
        self._torn = False
        """Whether the last write failed: what lies behind `end` in the last segment is unknown."""

    @classmethod
    async def open(
        cls, files: Files, folder: str, limit_bytes: int, *, take_over: bool = False
    ) -> Journal:
        """Take a journal's folder (made where missing) and find the end of what is durable.

        `LeaseError` where another process has it; with `take_over` that one loses it. `InputError`
        where its last file is damaged, `OSError` where the disk fails.
        """
        await _make_folder(files, folder)
        claim = await Claim.take(files, folder, take_over=take_over)
        try:
            journal = cls(files, folder, limit_bytes, claim)
            await journal._find()
        except BaseException:
            claim.release()
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

        After a crash such a batch may be there all the same, and so it may for the next owner where
        this raises `LeaseError`: the journal was taken over.
        """
        data = encode_batch(self.end, self.number, payloads)
        try:
            if self._segments and not self._torn and not self._is_full(len(data)):
                last = self._segments[-1]
                self._torn = True
                await self.files.write_at(self.path(last), last.place(self.end), data)
                await self.files.sync(self.path(last))
                self._torn = False
            else:
                # Where a sync failed the disk may have dropped bytes that look written: none of
                # them is trusted, the batch goes to a file of its own.
                await self._begin(self.stream, data)
        finally:
            # Also where it failed: the next owner deletes what does not count any more.
            await self._claim.check()
        batch = Batch(self.end, self.number, len(payloads), len(data))
        self.end, self.number = batch.end, batch.number + batch.count
        return batch

    async def end_stream(self) -> None:
        """Mark durably that the input ended here: what follows is another stream."""
        try:
            await self._begin(self.stream + 1, b"")
        finally:
            await self._claim.check()
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
        self._claim.release()

    def _is_full(self, more: int) -> bool:
        size = self.end - self._segments[-1].base
        return size > 0 and size + more > self._segment_bytes

    async def _begin(self, stream: int, data: bytes) -> None:
        """Begin a segment at the end, durably."""
        segment = self._segment(stream)
        self._torn = True
        await self.files.write(self.path(segment), [MAGIC, data])
        await self.files.sync(self.path(segment))
        await self.files.sync_folder(self.folder)
        self._torn = False
        if segment not in self._segments:
            self._segments.append(segment)

    def _segment(self, stream: int) -> Segment:
        return Segment(stream, self.end, self.number, self._claim.generation)

    # ------------------------------------------------------------------ opening

    async def _find(self) -> None:
        try:
            await self._find_segments()
            await self._find_end()
            await self._begin_generation()
        finally:
            # The next owner goes on from what this one saw, or this one is told so here.
            await self._claim.check()

    async def _find_segments(self) -> None:
        """Find the files; `InputError` where one does not reach to the next."""
        self._segments = segments_in(await self.files.names(self.folder))
        for older, newer in pairwise(self._segments):
            size = await self.files.size(self.path(older))
            if size is None and older not in segments_in(await self.files.names(self.folder)):
                # One that was taken over is at its last act: it deletes what an epoch covers.
                return await self._find_segments()
            if (size or 0) < older.place(newer.base):
                raise cut_short(self.path(older), size or 0)

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
        segment = self._segment(self.stream)
        temporary = f"{self.folder}/events-{segment.generation}.tmp"
        await self.files.write(temporary, [MAGIC, tail])
        await self.files.sync(temporary)
        await self.files.rename(temporary, self.path(segment))
        await self.files.sync_folder(self.folder)
        if segment not in self._segments:
            place = segment.place_in_line
            before = [older for older in self._segments if older.place_in_line < place]
            self._segments = [*before, segment]

    async def _begin_generation(self) -> None:
        """Say durably where a generation begins: older ones write nothing there that counts.

        That is its first segment, behind which they may still be writing. What they wrote is
        deleted by a later owner: they may still be reading it.
        """
        generation, names = self._claim.generation, await self.files.names(self.folder)
        if generation and generation not in cuts_in(names):
            first = self._segments[-1] if self._segments else self._segment(self.stream)
            path = f"{self.folder}/{cut_name(first)}"
            await self.files.write(path, [])
            await self.files.sync(path)
            await self.files.sync_folder(self.folder)
            return
        for segment in cut_off_in(names):
            await self.files.delete(self.path(segment))


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
