"""How keyed state lies in a block.

Framed entries that can be merged without decoding a key or a value.

A block's data is one byte for the kind of the state, then the entries, each

    head (operation, whether the value is wrapped, width of the lengths), three lengths,
    key, name, value

with lengths of one byte each, or of four (little-endian) where one of them needs it. Keys that are
equal in Python have the same bytes, so that a later entry finds the earlier ones that it replaces.
Where a key must come back in another form than its bytes say (True and not 1), the value is
`wrapped` together with that form; nothing here looks into it.

What an entry does, replayed in order:

    value   WRITE sets the key's value; CLEAR deletes it
    map     WRITE sets one name of the key; DROP deletes one; CLEAR deletes all
    list    WRITE appends to the key's list; CLEAR empties it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import Final, NamedTuple, TypeVar

from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import Block

T = TypeVar("T")

SLICE: Final = 512
"""How many entries are merged without a pause: some tenths of a millisecond of work."""

VALUE: Final = 1
MAP: Final = 2
LIST: Final = 3
KINDS: Final = {VALUE: "value", MAP: "map", LIST: "list"}

WRITE: Final = 0
DROP: Final = 1
CLEAR: Final = 2

_OPERATION = 0b0011
_WRAPPED = 0b0100
_WIDE = 0b1000
_WIDE_LENGTHS = Struct("<BIII")


class Entry(NamedTuple):
    """One change of one key."""

    operation: int
    key: bytes
    name: bytes = b""
    value: bytes = b""
    wrapped: bool = False


def add_entry(
    buffer: bytearray,
    operation: int,
    key: bytes,
    name: bytes = b"",
    value: bytes = b"",
    wrapped: bool = False,
) -> None:
    """Append an entry to a block's data; the buffer must begin with the kind's byte."""
    head = operation | _WRAPPED if wrapped else operation
    lengths = (head, len(key), len(name), len(value))
    try:
        buffer += bytes(lengths)
    except ValueError:  # a length is above 255
        buffer += _WIDE_LENGTHS.pack(head | _WIDE, *lengths[1:])
    buffer += key
    buffer += name
    buffer += value


def kind_of(block: Block) -> int:
    """Return the kind of a block's state; `StateError` for data that is none."""
    kind = block.data[0] if block.data else 0
    if kind not in KINDS:
        raise _damaged(block, "it does not say what kind of state it holds")
    return kind


def read_entries(block: Block) -> Iterator[Entry]:
    """Iterate over a block's entries, oldest first; `StateError` where its data is not whole."""
    data = block.data
    for _, head, key_at, name_at, value_at, end in _frames(block):
        key, name, value = data[key_at:name_at], data[name_at:value_at], data[value_at:end]
        yield Entry(head & _OPERATION, key, name, value, bool(head & _WRAPPED))


def _frames(block: Block) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Iterate over where each entry starts, its head, where its parts start, and its end."""
    kind_of(block)
    data, size, start, count = block.data, len(block.data), 1, 0
    while start < size:
        head = data[start]
        if head & _WIDE:
            if start + 13 > size:
                raise _damaged(block, "an entry is cut")
            _, key_size, name_size, value_size = _WIDE_LENGTHS.unpack_from(data, start)
            key_at = start + 13
        elif start + 4 > size:
            raise _damaged(block, "an entry is cut")
        else:
            _, key_size, name_size, value_size = data[start : start + 4]
            key_at = start + 4
        name_at = key_at + key_size
        value_at = name_at + name_size
        end = value_at + value_size
        if end > size or head & _OPERATION > CLEAR:
            raise _damaged(block, "an entry is cut")
        yield start, head, key_at, name_at, value_at, end
        start = end
        count += 1
    if count != block.entries:
        raise _damaged(block, f"it has {count} entries where {block.entries} were written")


def merge_blocks(blocks: Sequence[Block], drop_deleted: bool) -> Block:
    """Merge the blocks of one state and key group, oldest first, into one with the same effect.

    With `drop_deleted` deletions are left out: right only where nothing older than `blocks` is
    kept. `ValueError` where there is no block or the blocks don't belong together.
    """
    return next(merged for merged in merge_in_slices(blocks, drop_deleted) if merged is not None)


def merge_in_slices(blocks: Sequence[Block], drop_deleted: bool) -> Iterator[Block | None]:
    """Do as `merge_blocks`, in slices of some tenths of a millisecond.

    Yields None after each slice, and at last the block.
    """
    if len({(block.state, block.group, block.data[:1]) for block in blocks}) != 1:
        raise ValueError("merge_blocks wants blocks of one state, key group and kind, at least one")
    kind = kind_of(blocks[0])
    merge = _merge_values(blocks, drop_deleted) if kind == VALUE else _merge(blocks, drop_deleted)
    data = bytearray([kind])
    count = 0
    for entries in merge:
        for entry in entries:
            data += entry
        count += len(entries)
        yield None
    yield Block(blocks[0].state, blocks[0].group, count, bytes(data))


def _merge_values(blocks: Sequence[Block], drop_deleted: bool) -> Iterator[list[bytes]]:
    """Of a value the last entry says it all, so entries are taken as they are."""
    last: dict[bytes, bytes] = {}
    for block in blocks:
        data = block.data
        for frames in _slices(_frames(block)):
            for start, _, key_at, name_at, _, end in frames:
                last[data[key_at:name_at]] = data[start:end]
            yield []
    for entries in _slices(last.values()):
        if drop_deleted:
            yield [entry for entry in entries if entry[0] & _OPERATION == WRITE]
        else:
            yield entries


def _merge(blocks: Sequence[Block], drop_deleted: bool) -> Iterator[list[bytes]]:
    changes: dict[bytes, _Change] = {}
    kind = kind_of(blocks[0])
    for block in blocks:
        for taken in _slices(read_entries(block)):
            for entry in taken:
                change = changes.get(entry.key)
                if change is None:
                    change = changes[entry.key] = _Change()
                change.take(entry, kind)
            yield []
    left = (entry for change in changes.values() for entry in change.entries(drop_deleted))
    for entries in _slices(left):
        framed = []
        for entry in entries:
            buffer = bytearray()
            add_entry(buffer, *entry)
            framed.append(bytes(buffer))
        yield framed


def _slices(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, SLICE)):
        yield some


class _Change:
    """What the entries of one key amount to: first clear, then drop names, then write."""

    __slots__ = ("cleared", "dropped", "written")

    def __init__(self) -> None:
        self.cleared: Entry | None = None
        self.dropped: dict[bytes, Entry] = {}
        self.written: dict[bytes | int, Entry] = {}

    def take(self, entry: Entry, kind: int) -> None:
        if entry.operation == WRITE:
            # What a list holds has no name: each element stays, in order.
            self.written[len(self.written) if kind == LIST else entry.name] = entry
        elif entry.operation == DROP:
            # Written again after this, it stands behind the names that were there before.
            self.written.pop(entry.name, None)
            self.dropped[entry.name] = entry
        else:
            self.cleared = entry
            self.dropped.clear()
            self.written.clear()

    def entries(self, drop_deleted: bool) -> Iterator[Entry]:
        if not drop_deleted:
            if self.cleared is not None:
                yield self.cleared
            yield from self.dropped.values()
        yield from self.written.values()


def _damaged(block: Block, how: str) -> StateError:
    return StateError(
        f"the stored block of state {block.state!r}, key group {block.group}, is damaged: {how}; "
        "restore an older checkpoint"
    )
