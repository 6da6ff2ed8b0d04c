"""Keys as bytes: keys that are equal in Python have equal bytes, whatever their types.

1, 1.0, True and Decimal(1) are one key in a dict, so they must be one key in a snapshot and in one
key group too. `canonical` chooses the form that stands for all equal ones; the form a key was first
seen in is stored beside it where the two differ.
"""

from __future__ import annotations

import cmath
import dataclasses
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple

from flowrt.state.classes import (
    UUID,
    Unfit,
    check_findable,
    class_name,
    field_names,
    field_reader,
    has_value_equality,
    is_frozen,
    is_named_tuple,
    is_record,
)
from flowrt.state.self_describing import RecordForm, decode, encode

EXACT: Final = frozenset({int, str, bytes, type(None), date, timedelta, UUID})
"""Types whose values are their own canonical form."""

_NAIVE_1970: Final = datetime(1970, 1, 1)  # noqa: DTZ001  (taken from naive ones)
_NUMBERS: Final = (int, float, complex, Decimal)


class Canonical(NamedTuple):
    """Stands for keys that no builtin can stand for: what they are, and what makes them equal."""

    what: str
    parts: Any


def encode_key(key: Any) -> tuple[bytes, bytes | None]:
    """Return a key's bytes, and those of its own form where it differs; `Unfit` for no key."""
    kind = type(key)
    if kind in EXACT or (kind is tuple and EXACT.issuperset(map(type, key))):
        return encode(key), None
    identity, own = encode(canonical(key)), encode(key)
    return identity, None if own == identity else own


decode_key = decode
"""From a key's own form (or its bytes, where they are the same) to the key."""


def canonical(key: Any) -> Any:
    """Return the form that stands for all keys equal to this one; `Unfit` for no key."""
    kind = type(key)
    if kind in EXACT:
        return key
    if kind is bool or kind in _NUMBERS:
        return _canonical_number(key)
    if kind is tuple or is_named_tuple(kind):
        if kind is not tuple:
            check_findable(kind)
        return tuple([canonical(item) for item in key])
    if kind is frozenset:
        return frozenset([canonical(item) for item in key])
    if kind is datetime or kind is time:
        return _canonical_time(key)
    if isinstance(key, Enum):
        return _canonical_member(key)
    if is_record(kind):
        return _canonical_record(key)
    raise Unfit(
        f"a key of type {class_name(kind)} is not supported: use text, numbers, bytes, dates, an "
        "Enum, a tuple or frozenset of such, or a frozen dataclass or Struct"
    )


def _canonical_number(key: Any) -> Any:
    if isinstance(key, int):
        return int(key)
    if isinstance(key, Decimal):
        return _canonical_decimal(key)
    if cmath.isnan(key):
        raise _not_a_number(key)
    if isinstance(key, complex):
        # Adding zero makes -0.0 the zero that it equals.
        return complex(key.real + 0.0, key.imag + 0.0) if key.imag else _canonical_number(key.real)
    return int(key) if key.is_integer() else key


def _canonical_decimal(key: Decimal) -> Any:
    if key.is_nan():
        raise _not_a_number(key)
    if key.is_infinite() or Decimal(float(key)) == key:
        # Compared exactly: Decimal("0.5") is 0.5, but Decimal("0.1") is not 0.1.
        return _canonical_number(float(key))
    sign, digits, exponent = key.as_tuple()
    assert isinstance(exponent, int)
    while digits[-1] == 0:  # not `normalize`, which rounds to the precision of the context
        digits, exponent = digits[:-1], exponent + 1
    return int(key) if exponent >= 0 else Decimal((sign, digits, exponent))


def _not_a_number(key: Any) -> Unfit:
    return Unfit(f"the key {key!r} equals nothing, not even itself: give such records another key")


def _canonical_time(key: datetime | time) -> Any:
    if key.tzinfo is not None:
        encode(key)  # raises for a time zone that cannot be stored
    key = key.replace(fold=0)  # does not count when keys are compared
    offset = key.utcoffset()
    if offset is None:
        return key.replace(tzinfo=None)
    if isinstance(key, time):
        since = timedelta(hours=key.hour, minutes=key.minute, seconds=key.second)
        return Canonical("time", since + timedelta(microseconds=key.microsecond) - offset)
    try:
        return key.replace(tzinfo=UTC) - offset
    except OverflowError:  # in the first or last hours of the calendar
        return Canonical("datetime", key.replace(tzinfo=None) - _NAIVE_1970 - offset)


def _canonical_member(key: Enum) -> Any:
    check_findable(type(key))
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int):
        return int.__int__(key)
    if vars(type(key))["_member_type_"] is not object:
        raise Unfit(
            f"a key of type {class_name(type(key))} is not supported: as keys, Enums may be "
            "plain or mixed with int or str only"
        )
    return key


def _canonical_record(key: Any) -> Any:
    kind = type(key)
    check_findable(kind)
    if not is_frozen(kind) or not has_value_equality(kind):
        raise Unfit(
            f"a key of type {class_name(kind)} could change: make the class frozen (and eq=True)"
        )
    values = field_reader(kind)(key)
    counted = _compared_fields(kind)
    if len(counted) == len(values) and EXACT.issuperset(map(type, values)):
        return key  # its bytes are those of its form below
    fields = dict(zip(field_names(kind), values, strict=True))
    return RecordForm(
        class_name(kind), tuple([(name, canonical(fields[name])) for name in counted])
    )


def _compared_fields(kind: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind) if field.compare)
    return field_names(kind)
