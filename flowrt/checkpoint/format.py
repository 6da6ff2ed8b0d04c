"""The state file: encoded blocks of keyed state, in order of key groups, with an index at the end.

    magic (8 bytes, with the format's version)
    blocks: length (4 bytes, little endian), data
    index: msgpack list of [state, group, entries, offset, length, digest of the data (8 bytes)]
    trailer: offset of the index (8), its length (4), its digest (16), magic again

The index lets a reader take the blocks of some key groups alone. `StateFile` carries size and
checksum of the whole, so that a file is verified before anything of it is believed; the digests
inside guard what is read later, while files are merged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Final

import msgspec

from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import Block, StateFile
from flowrt.contract.world import Files

MAGIC: Final = b"flowrtS\x02"
PIECE_BYTES: Final = 512 * 1024
"""How much is read, hashed or written in one go: a millisecond's work at most."""

_LENGTH = struct.Struct("<I")
_TRAILER = struct.Struct("<QI16s8s")


class IndexEntry(msgspec.Struct, frozen=True, array_like=True):
    """Where one block lies in its file."""

    state: str
    group: int
    entries: int
    offset: int
    length: int
    digest: bytes

    @property
    def end(self) -> int:
        """The offset behind the block's data."""
        return self.offset + self.length


_INDEX = msgspec.msgpack.Decoder(list[IndexEntry])


class StateFileBuilder:
    """Makes the bytes of a state file, a block at a time; keeps only what was not yet taken."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._index: list[IndexEntry] = []
        self._chunks: list[bytes] = []
        self.size = 0
        self.entries = 0
        self.waiting = 0
        self._put(MAGIC)

    def add(self, block: Block) -> None:
        """Append a block; key groups must not go down."""
        if self._index and self._index[-1].group > block.group:
            raise ValueError("blocks must come in order of their key groups")
        self._put(_LENGTH.pack(len(block.data)))
        self._index.append(
            IndexEntry(
                block.state,
                block.group,
                block.entries,
                self.size,
                len(block.data),
                _digest(block.data, 8),
            )
        )
        self._put(block.data)
        self.entries += block.entries

    def finish(self) -> None:
        """Append index and trailer; nothing may be added afterwards."""
        index = msgspec.msgpack.encode(self._index)
        offset = self.size
        self._put(index)
        self._put(_TRAILER.pack(offset, len(index), _digest(index, 16), MAGIC))

    def take(self) -> list[bytes]:
        """Return the bytes made since the last call."""
        chunks, self._chunks, self.waiting = self._chunks, [], 0
        return chunks

    def state_file(self, name: str, groups: range) -> StateFile:
        """Describe the finished file."""
        return StateFile(
            name=name,
            size=self.size,
            checksum=self._hash.hexdigest(),
            entries=self.entries,
            first_group=groups[0],
            last_group=groups[-1],
        )

    def _put(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._chunks.append(chunk)
        self.size += len(chunk)
        self.waiting += len(chunk)


async def verify_state_file(files: Files, path: str, described: StateFile) -> str | None:
    """Return what is wrong with a file (missing, size, checksum); None where it is whole."""
    size = await files.size(path)
    if size is None:
        return f"{path} is missing"
    if size != described.size:
        return f"{path} has {size} instead of {described.size} bytes"
    digest = blake2b(digest_size=16)
    for offset in range(0, size, PIECE_BYTES):
        digest.update(await files.read(path, offset, PIECE_BYTES))
    if digest.hexdigest() != described.checksum:
        return f"{path} is damaged: its bytes do not fit its checksum"
    return None


async def read_index(files: Files, path: str, described: StateFile) -> list[IndexEntry]:
    """Return where the blocks lie that may be taken from a file (its key groups); in file order.

    `CheckpointError` where the file is torn or damaged; `OSError` where it cannot be read.
    """
    start = described.size - _TRAILER.size
    trailer = await files.read(path, max(start, 0))
    if start < len(MAGIC) or len(trailer) != _TRAILER.size:
        raise _damaged(path, "its end is missing")
    offset, length, digest, magic = _TRAILER.unpack(trailer)
    if magic != MAGIC:
        raise _damaged(path, "it is no state file of this version")
    index = await files.read(path, offset, length)
    if len(index) != length or _digest(index, 16) != digest:
        raise _damaged(path, "its index does not fit its checksum")
    groups = range(described.first_group, described.last_group + 1)
    return [entry for entry in _INDEX.decode(index) if entry.group in groups]


async def read_blocks(files: Files, path: str, entries: Sequence[IndexEntry]) -> list[Block]:
    """Return the blocks of neighbouring index entries, with one read.

    `CheckpointError` where the bytes are damaged; `OSError` where they cannot be read.
    """
    if not entries:
        return []
    start = entries[0].offset
    span = await files.read(path, start, entries[-1].end - start)
    blocks = []
    for entry in entries:
        data = span[entry.offset - start : entry.end - start]
        if len(data) != entry.length or _digest(data, 8) != entry.digest:
            raise _damaged(path, f"the block of state {entry.state!r}, group {entry.group}")
        blocks.append(Block(entry.state, entry.group, entry.entries, data))
    return blocks


def batches(indexes: Sequence[Sequence[IndexEntry]]) -> Iterator[range]:
    """Cut the key groups of some files into ranges that can be read in one go each.

    A range's blocks have `PIECE_BYTES` at most over all files, or it is a single group.
    """
    bytes_of: dict[int, int] = {}
    for index in indexes:
        for entry in index:
            bytes_of[entry.group] = bytes_of.get(entry.group, 0) + entry.length
    groups = sorted(bytes_of)
    starts, total = groups[:1], 0
    for group in groups:
        if total and total + bytes_of[group] > PIECE_BYTES:
            starts.append(group)
            total = 0
        total += bytes_of[group]
    for start, end in pairwise([*starts, groups[-1] + 1] if groups else []):
        yield range(start, end)


def in_groups(index: Iterable[IndexEntry], groups: range) -> list[IndexEntry]:
    """Return the entries of some key groups; they are neighbours in the file."""
    return [entry for entry in index if entry.group in groups]


def _digest(data: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size).digest()


def _damaged(path: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"the state file {path} is damaged: {what}. Start the job again: it goes on from the "
        "newest checkpoint whose files are whole"
    )
