"""Between tables and blocks: entries are written beside the stream, and read back at a restore."""

from __future__ import annotations

from collections.abc import Iterator
from reprlib import repr as short
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from flowrt.contract.entries import (
    BATCH,
    KINDS,
    VALUE,
    WRITE,
    Batch,
    add_batch,
    add_entry,
    kind_of,
    read_batch,
    read_entries,
    unwrap,
    wrap,
)
from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import KEY_GROUPS
from flowrt.state.classes import Unfit
from flowrt.state.keys import decode_key

SLICE_NS: Final = 200_000
"""Work of about so many nanoseconds is done without a pause."""

ENTRY_NS: Final = 1_500
"""What writing one entry costs, about, and a nanosecond more for each byte."""

BATCHED_NS: Final = 100
"""What writing one entry in a batch costs, about."""

EncodedKey: TypeAlias = tuple[bytes, bytes | None]
_NO_NAME: Final[EncodedKey] = (b"", None)


class Place(NamedTuple):
    """Where a state is, for messages."""

    operator: str
    state: str

    def error(self, reason: object, key: Any = MISSING) -> StateError:
        """Return the error to raise about this state, and a key of it."""
        at = "" if key is MISSING else f", key {short(key)}"
        return StateError(f"operator {self.operator!r}, state {self.state!r}{at}: {reason}")


class BlockWriter:
    """Collects the entries of one state, by key group."""

    __slots__ = ("_counts", "_groups", "_kind", "_state")

    def __init__(self, state: str, kind: int) -> None:
        self._state = state
        self._kind = kind
        self._groups: dict[int, bytearray] = {}
        self._counts = [0] * KEY_GROUPS

    def add(
        self,
        group: int,
        operation: int,
        key: EncodedKey,
        name: EncodedKey = _NO_NAME,
        value: bytes = b"",
    ) -> int:
        """Add an entry; return what that cost (ns), about."""
        key_data, own_key = key
        name_data, own_name = name
        wrapped = operation == WRITE and not (own_key is None and own_name is None)
        if wrapped:
            value = wrap(own_key, own_name, bytes(value))
        add_entry(self._data(group), operation, key_data, name_data, value, wrapped)
        self._counts[group] += 1
        return ENTRY_NS + len(key_data) + len(name_data) + len(value)

    def add_batch(self, group: int, entries: list[Any]) -> bool:
        """Add plain entries (key, value, key, value ...); False, and nothing, where it cannot."""
        if not add_batch(self._data(group), entries):
            return False
        self._counts[group] += len(entries) // 2
        return True

    def _data(self, group: int) -> bytearray:
        data = self._groups.get(group)
        if data is None:
            data = self._groups[group] = bytearray((self._kind,))
        return data

    def finish(self) -> Iterator[Block]:
        """Yield the blocks one by one, for making one is a copy."""
        while self._groups:
            group, data = self._groups.popitem()
            yield Block(self._state, group, self._counts[group], bytes(data))


class Stored(NamedTuple):
    """An entry as written: key and name (None without one) are decoded, `value` is still bytes."""

    operation: int
    key: Any
    name: Any
    value: bytes


def read_block(block: Block, place: Place, kind: int) -> Iterator[Stored]:
    """Iterate over a block's entries; `StateError` where it is damaged or of another kind.

    For a value state take `read_values`.
    """
    for stored in _read(block, place, kind):
        assert isinstance(stored, Stored), "only a value state has batches"
        yield stored


def read_values(block: Block, place: Place) -> Iterator[Stored | Batch]:
    """Do as `read_block` for a value state, whose blocks may have batches too."""
    return _read(block, place, VALUE)


def _read(block: Block, place: Place, kind: int) -> Iterator[Stored | Batch]:
    if (stored := kind_of(block)) != kind:
        raise place.error(
            f"the checkpoint holds a {KINDS[stored]} state of that name, and a {KINDS[kind]} state "
            "is declared now: declare it as before, or under another name"
        )
    last_data: bytes | None = None
    last_key: Any = None
    for operation, key_data, name_data, value, wrapped in read_entries(block):
        if operation == BATCH:
            yield read_batch(block, key_data, value)
            continue
        if wrapped:
            try:
                own_key, own_name, value = unwrap(value)
            except msgspec.MsgspecError as error:
                raise place.error(f"the stored entry is damaged: {error}") from error
            key_data, name_data = own_key or key_data, own_name or name_data
        if key_data != last_data:  # all entries of a key stand together
            last_data, last_key = key_data, decode_key(key_data)
        yield Stored(operation, last_key, decode_key(name_data) if name_data else None, value)


def restore_error(place: Place, error: Unfit, key: Any = MISSING) -> StateError:
    """Return the error for stored bytes that don't fit what is declared."""
    return place.error(
        f"what the checkpoint holds cannot be used: {error}. Declare the state with the type it "
        "was written with (new fields need defaults), give it migrate=, or another name to begin "
        "anew",
        key,
    )
