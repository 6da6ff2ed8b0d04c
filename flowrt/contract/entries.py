"""How keyed state lies in a block.

A block's data is one byte for the kind of the state, then the entries, each

    head (operation, whether the value is wrapped, width of the lengths), three lengths,
    key, name, value

with lengths of one byte each, or of four (little-endian) where one of them needs it. Keys that are
equal in Python have the same bytes, so that a later entry finds the earlier ones that it replaces.
Where a key or a name must come back in another form than its bytes say (True and not 1), the value
is `wrapped` together with that form: see `wrap`.

What an entry does, replayed in order:

    value   WRITE sets the key's value; CLEAR deletes it; BATCH is the WRITEs of many keys
    map     WRITE sets one name of the key; DROP deletes one; CLEAR deletes all
    list    WRITE appends to the key's list; CLEAR empties it

A BATCH exists because msgpack encodes many entries at once many times quicker than one by one.
It holds what comes back from msgpack exactly as it was (see `are_plain`). Its key says how many
entries it stands for (four bytes), its value is a msgpack array: key, value, key, value and so on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec.msgpack import Decoder, Encoder

from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import Block

VALUE: Final = 1
MAP: Final = 2
LIST: Final = 3
KINDS: Final = {VALUE: "value", MAP: "map", LIST: "list"}

WRITE: Final = 0
DROP: Final = 1
CLEAR: Final = 2
BATCH: Final = 3

OPERATION: Final = 0b0011
"""The bits of a head that say what the entry does."""

_WRAPPED = 0b0100
_WIDE = 0b1000
_WIDE_LENGTHS = Struct("<BIII")

PLAIN_VALUES: Final[frozenset[type]] = frozenset({int, float, str, bytes, bool, type(None)})
"""Types whose values may be in a batch."""

_PLAIN_KEYS: Final[frozenset[type]] = frozenset({int, str})
_SIZED: Final[frozenset[type]] = frozenset({str, bytes})
_SHORT: Final = 255
_COUNT_BYTES: Final = 4

unwrap: Final = Decoder(tuple[bytes | None, bytes | None, bytes]).decode
"""From a wrapped value to what `wrap` was given; `msgspec.MsgspecError` where it is damaged."""

Batch: TypeAlias = dict[Any, Any]
"""Values by key, all of them plain."""

_encode: Final = Encoder().encode
_decode: Final = Decoder(list[Any]).decode


class Entry(NamedTuple):
    """One change of one key, or a batch."""

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


def wrap(own_key: bytes | None, own_name: bytes | None, value: bytes) -> bytes:
    """Return a value together with the forms of its key and name; None where the bytes say it."""
    return _encode((own_key, own_name, value))


def in_form_of(older: Entry, newer: Entry) -> Entry:
    """Return a map's `newer` WRITE with key and name as `older` has them: a dict keeps the first.

    `msgspec.MsgspecError` where one of them is damaged.
    """
    if not (older.wrapped or newer.wrapped):
        return newer
    value = unwrap(newer.value)[2] if newer.wrapped else newer.value
    if older.wrapped:
        own_key, own_name, _ = unwrap(older.value)
        value = wrap(own_key, own_name, value)
    return newer._replace(value=value, wrapped=older.wrapped)


def are_plain(keys: Collection[Any], values: Collection[Any], types: frozenset[type]) -> bool:
    """Say whether a batch may hold entries: keys and values are plain, of `types`, and short.

    Exactly of these types: True is no 1 here. Short, so that no batch takes long to encode.
    """
    return _fit(keys, _PLAIN_KEYS) and _fit(values, types)


def is_plain(key: Any, value: Any, types: frozenset[type]) -> bool:
    """Say whether a batch may hold an entry; see `are_plain`, which is quicker for many."""
    return type(key) in _PLAIN_KEYS and type(value) in types and _is_short(key) and _is_short(value)


def _fit(items: Collection[Any], types: frozenset[type]) -> bool:
    kinds = set(map(type, items))
    if not kinds <= types:
        return False
    if kinds.isdisjoint(_SIZED):
        return True
    return max(map(len, items)) <= _SHORT if kinds <= _SIZED else all(map(_is_short, items))


def _is_short(item: Any) -> bool:
    return type(item) not in _SIZED or len(item) <= _SHORT


def add_batch(buffer: bytearray, entries: list[Any]) -> bool:
    """Append writes to a value state's data; False, and nothing, where they cannot be encoded.

    `entries` are key, value, key, value and so on; no key twice. They cannot where an int has more
    than 64 bits, or text has half a character.
    """
    try:
        data = _encode(entries)
    except (OverflowError, UnicodeEncodeError):
        return False
    count = len(entries) // 2
    add_entry(buffer, BATCH, count.to_bytes(_COUNT_BYTES, "little"), value=data)
    return True


def kind_of(block: Block) -> int:
    """Return the kind of a block's state; `StateError` for data that is none."""
    kind = block.data[0] if block.data else 0
    if kind not in KINDS:
        raise _damaged(block, "it does not say what kind of state it holds")
    return kind


def read_entries(block: Block) -> Iterator[Entry]:
    """Iterate over a block's entries, oldest first; `StateError` where its data is not whole."""
    data = block.data
    for _, head, key_at, name_at, value_at, end in frames(block):
        key, name, value = data[key_at:name_at], data[name_at:value_at], data[value_at:end]
        yield Entry(head & OPERATION, key, name, value, bool(head & _WRAPPED))


def read_batch(block: Block, key: bytes, value: bytes) -> Batch:
    """Return what a batch in a block holds; `StateError` where it is damaged."""
    try:
        entries = _decode(value)
        keys = entries[::2]
        values = dict(zip(keys, entries[1::2], strict=True))
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise _damaged(block, f"a batch cannot be read: {error}") from error
    if not _PLAIN_KEYS.issuperset(map(type, keys)):
        raise _damaged(block, "a batch cannot be read: it has keys that are neither int nor text")
    if len(values) != batch_size(key):
        wanted = batch_size(key)
        raise _damaged(block, f"a batch has {len(values)} entries and should have {wanted}")
    return values


def frames(block: Block) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Iterate over where each entry starts, its head, where its parts start, and its end."""
    last = BATCH if kind_of(block) == VALUE else CLEAR
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
        operation = head & OPERATION
        if end > size or operation > last:
            raise _damaged(block, "an entry is cut")
        yield start, head, key_at, name_at, value_at, end
        start = end
        count += batch_size(data[key_at:name_at]) if operation == BATCH else 1
    if count != block.entries:
        raise _damaged(block, f"it has {count} entries where {block.entries} were written")


def batch_size(key: bytes) -> int:
    """Return how many entries a batch stands for, from its key."""
    return int.from_bytes(key, "little")


def _damaged(block: Block, how: str) -> StateError:
    return StateError(
        f"the stored block of state {block.state!r}, key group {block.group}, is damaged: {how}; "
        "restore an older checkpoint"
    )
