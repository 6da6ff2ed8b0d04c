"""Merging the blocks of one state and key group, oldest first, into one with the same effect.

Keys and values stay bytes; only batches are decoded, and encoded again, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec.msgpack import Decoder, Encoder

from flowrt.contract.entries import (
    BATCH,
    DROP,
    LIST,
    OPERATION,
    VALUE,
    WRITE,
    Batch,
    Entry,
    add_batch,
    add_entry,
    frames,
    in_form_of,
    kind_of,
    read_batch,
    read_entries,
)
from flowrt.contract.snapshot import Block

T = TypeVar("T")

SLICE: Final = 512
"""How many entries are merged without a pause: some tenths of a millisecond of work."""

_Merged: TypeAlias = tuple[int, bytes | bytearray]
"""How many entries, and their bytes."""

_NOTHING: Final[_Merged] = (0, b"")

_encode_key: Final = Encoder().encode
_decode_key: Final = Decoder(int | str).decode


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
    for entries, merged in merge:
        data += merged
        count += entries
        yield None
    yield Block(blocks[0].state, blocks[0].group, count, bytes(data))


def _merge_values(blocks: Sequence[Block], drop_deleted: bool) -> Iterator[_Merged]:
    """Of a value the last entry says it all, so entries are taken as they are."""
    last = _LastValues()
    for block in blocks:
        data = block.data
        for some in _slices(frames(block)):
            for start, head, key_at, name_at, value_at, end in some:
                if head & OPERATION == BATCH:
                    values = read_batch(block, data[key_at:name_at], data[value_at:end])
                    last.take_batch(values)
                    yield _NOTHING
                else:
                    last.take(data[key_at:name_at], data[start:end])
            yield _NOTHING
    for entries in _slices(last.entries.values()):
        if drop_deleted:
            entries = [entry for entry in entries if entry[0] & OPERATION == WRITE]
        yield len(entries), b"".join(entries)
    for items in _slices(last.plain.items()):
        buffer = bytearray()
        add_batch(buffer, [*chain.from_iterable(items)])  # it can, for so they came
        yield len(items), buffer


class _LastValues:
    """The last entry of each key, by its bytes; or its plain value, where a batch had the last."""

    __slots__ = ("entries", "plain")

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.plain: Batch = {}

    def take(self, key: bytes, entry: bytes) -> None:
        self.entries[key] = entry
        if self.plain:
            self.plain.pop(_plain_key(key), None)

    def take_batch(self, values: Batch) -> None:
        self.plain.update(values)
        if self.entries:
            for key in values:
                self.entries.pop(_encode_key(key), None)


def _plain_key(data: bytes) -> Any:
    """Return a key as a batch has it; None for one that no batch can have."""
    try:
        return _decode_key(data)
    except msgspec.MsgspecError:
        return None


def _merge(blocks: Sequence[Block], drop_deleted: bool) -> Iterator[_Merged]:
    changes: dict[bytes, _Change] = {}
    kind = kind_of(blocks[0])
    for block in blocks:
        for taken in _slices(read_entries(block)):
            for entry in taken:
                change = changes.get(entry.key)
                if change is None:
                    change = changes[entry.key] = _Change()
                change.take(entry, kind)
            yield _NOTHING
    left = (entry for change in changes.values() for entry in change.entries(drop_deleted))
    for entries in _slices(left):
        buffer = bytearray()
        for entry in entries:
            add_entry(buffer, *entry)
        yield len(entries), buffer


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
            name = len(self.written) if kind == LIST else entry.name
            before = self.written.get(name)
            self.written[name] = entry if before is None else in_form_of(before, entry)
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
