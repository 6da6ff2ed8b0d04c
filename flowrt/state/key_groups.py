"""Which key group a key belongs to: the same in every process and for equal keys, well spread."""

from __future__ import annotations

from collections.abc import Collection
from reprlib import repr as short
from typing import Any, Final
from zlib import crc32

from msgspec.msgpack import Encoder

from flowrt.contract.errors import StateError
from flowrt.contract.state import KEY_GROUPS
from flowrt.state.classes import Unfit
from flowrt.state.keys import canonical
from flowrt.state.self_describing import encode

_SHIFT: Final = 33 - KEY_GROUPS.bit_length()
assert 1 << (32 - _SHIFT) == KEY_GROUPS, "the groups are taken from the top bits of 32"

_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: its multiples lie evenly (Knuth, multiplicative hashing)."""

_LAST: Final = KEY_GROUPS - 1
_HALF: Final = (1 << 32) - 1
_TEXT: Final = {str}
_NUMBER: Final = {int}
_ITEMS: Final = frozenset({int, str, bytes, type(None)})
_pack: Final = Encoder().encode


def key_group(key: Any) -> int:
    """Return the key's group, 0 to 127. Python's own hash of text differs from process to process.

    `StateError` for a key that cannot be stored: unhashable, not equal to itself, or of a type that
    is not supported; the message names the type.
    """
    kind = type(key)
    try:
        if kind is str:
            return crc32(key.encode()) >> _SHIFT
        if kind is int:
            return _spread(key)
        if kind is tuple and _ITEMS.issuperset(map(type, key)):
            return crc32(_pack(key)) >> _SHIFT
    except (UnicodeEncodeError, OverflowError):
        pass  # half a character, or more than 64 bits: rare, and done below
    try:
        return _group_of(canonical(key))
    except (Unfit, RecursionError) as error:
        raise StateError(f"the key {short(key)} has no key group: {error}") from error


def key_groups(keys: Collection[Any]) -> list[int]:
    """Return the group of each key, in order: quicker than one by one. `StateError` as there."""
    kinds = set(map(type, keys))
    if kinds == _TEXT:
        try:
            return [crc32(key.encode()) >> _SHIFT for key in keys]
        except UnicodeEncodeError:
            pass  # half a character: that key takes the longer way
    if kinds == _NUMBER:
        if min(keys) >= 0 and max(keys) <= _HALF:
            return [key * _GOLDEN >> 57 & _LAST for key in keys]  # the same: nothing to fold in
        return [(((key ^ (key >> 32)) * _GOLDEN) >> 57) & _LAST for key in keys]
    return list(map(key_group, keys))


def _group_of(form: Any) -> int:
    kind = type(form)
    if kind is int:
        return _spread(form)
    if kind is str:
        return crc32(form.encode("utf-8", "surrogatepass")) >> _SHIFT
    if kind is tuple and _ITEMS.issuperset(map(type, form)):
        # As above, for this may be a NamedTuple that equals the tuple seen there.
        try:
            return crc32(_pack(form)) >> _SHIFT
        except (UnicodeEncodeError, OverflowError):
            pass
    return crc32(encode(form)) >> _SHIFT


def _spread(number: int) -> int:
    return (((number ^ (number >> 32)) * _GOLDEN) >> 57) & _LAST
