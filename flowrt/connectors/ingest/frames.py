"""The bytes of an ingest's journal: segments that hold batches of events. No I/O.

A batch is what became durable with one sync. It has one checksum, so that a crash leaves it whole
or not at all; the next is written only once it is durable, so that only the last can be torn.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

MAGIC: Final = b"flowrt-ingest 1\n"
"""What every segment begins with; the number is that of the format."""

_MARK: Final = b"\xb5evs"
_HEADER: Final = Struct("<4sQQIII")
"""Mark, offset, number of the first event, count of events, bytes of the body, checksum."""

_LENGTH: Final = Struct("<I")
_NAME: Final = re.compile(r"events-(\d+)-(\d+)-(\d+)(?:-g(\d+))?\.journal")
_CUT: Final = re.compile(r"cut-(\d+)-(\d+)-(\d+)")

BATCH_BYTES: Final = _HEADER.size
EVENT_BYTES: Final = _LENGTH.size
"""What a batch, and each event in it, takes beside the events' own bytes."""


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file of the journal.

    `stream` counts how often the input was ended before. `base` is the offset in the journal of
    the first byte behind `MAGIC`, `number` that of the first event. `generation` counts how often
    the journal had been taken over by force: no two owners write into the same file.
    """

    stream: int
    base: int
    number: int
    generation: int = 0

    @property
    def name(self) -> str:
        """The file's name."""
        by = f"-g{self.generation}" if self.generation else ""
        return f"events-{self.stream:06d}-{self.base:015d}-{self.number:012d}{by}.journal"

    @property
    def place_in_line(self) -> tuple[int, int]:
        """Its stream and where it begins; two of the same are by two generations."""
        return self.stream, self.base

    def place(self, offset: int) -> int:
        """Return where in the file an offset of the journal lies."""
        return len(MAGIC) + offset - self.base

    def offset(self, place: int) -> int:
        """Return which offset of the journal lies at a place in the file."""
        return place - len(MAGIC) + self.base


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that became durable together: where they begin, the first one's number, how many."""

    offset: int
    number: int
    count: int
    size: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.size


def cut_name(segment: Segment) -> str:
    """Return the name of the file that says where a generation's first segment begins."""
    return f"cut-{segment.generation}-{segment.stream:06d}-{segment.base:015d}"


def cuts_in(names: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Return the stream and offset where each generation but the first begins, among names."""
    matches = [match for name in names if (match := _CUT.fullmatch(name))]
    return {int(match[1]): (int(match[2]), int(match[3])) for match in matches}


def segments_in(names: Sequence[str]) -> list[Segment]:
    """Return the segments among the names in a folder that count, in order.

    From where a generation begins, nothing counts that older ones write there, however late.
    """
    cuts = cuts_in(names)
    return sorted(
        segment
        for segment in _named(names)
        if _has_begun(segment, cuts) and not _is_cut_off(segment, cuts)
    )


def cut_off_in(names: Sequence[str]) -> list[Segment]:
    """Return the segments among the names in a folder that never count again."""
    cuts = cuts_in(names)
    return [segment for segment in _named(names) if _is_cut_off(segment, cuts)]


def _named(names: Sequence[str]) -> list[Segment]:
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    return [Segment(*(int(part or 0) for part in match.groups())) for match in matches]


def _has_begun(segment: Segment, cuts: Mapping[int, tuple[int, int]]) -> bool:
    # Otherwise its maker died before it could say where its generation begins.
    cut = cuts.get(segment.generation)
    return segment.generation == 0 if cut is None else segment.place_in_line >= cut


def _is_cut_off(segment: Segment, cuts: Mapping[int, tuple[int, int]]) -> bool:
    own, place = segment.generation, segment.place_in_line
    return any(place >= cut for generation, cut in cuts.items() if generation > own)


def encode_batch(offset: int, number: int, payloads: Sequence[bytes]) -> bytes:
    """Return the bytes of a batch for `offset` of the journal."""
    pack = _LENGTH.pack
    body = b"".join([part for payload in payloads for part in (pack(len(payload)), payload)])
    head = _HEADER.pack(_MARK, offset, number, len(payloads), len(body), 0)
    checksum = zlib.crc32(body, zlib.crc32(head))
    return _HEADER.pack(_MARK, offset, number, len(payloads), len(body), checksum) + body


def batch_bytes(data: bytes, at: int, offset: int) -> int | None:
    """Return the size that a header at `data[at:]` tells; None where there is no header."""
    if len(data) - at < BATCH_BYTES:
        return None
    mark, found, _, _, size, _ = _HEADER.unpack_from(data, at)
    return BATCH_BYTES + size if (mark, found) == (_MARK, offset) else None


def whole_batch(data: bytes, at: int, offset: int) -> Batch | None:
    """Return the batch at `data[at:]`, for `offset` of the journal; None unless it is whole."""
    size = batch_bytes(data, at, offset)
    if size is None or len(data) - at < size:
        return None
    _, _, number, count, body, checksum = _HEADER.unpack_from(data, at)
    head = zlib.crc32(_HEADER.pack(_MARK, offset, number, count, body, 0))
    if zlib.crc32(memoryview(data)[at + BATCH_BYTES : at + size], head) != checksum:
        return None
    return Batch(offset, number, count, size)


def payloads_of(data: bytes, at: int, batch: Batch) -> list[bytes]:
    """Return the events of a whole batch at `data[at:]`."""
    payloads = []
    at += BATCH_BYTES
    for _ in range(batch.count):
        start = at + EVENT_BYTES
        at = start + _LENGTH.unpack_from(data, at)[0]
        payloads.append(data[start:at])
    return payloads


def whole_batch_behind(data: bytes, at: int, segment: Segment) -> int | None:
    """Return where in a segment's file behind `at` a whole batch lies; None where none does."""
    while (at := data.find(_MARK, at + 1)) >= 0:
        if whole_batch(data, at, segment.offset(at)) is not None:
            return at
    return None
