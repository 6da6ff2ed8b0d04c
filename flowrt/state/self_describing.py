"""Bytes that say what they are: builtins come back exactly as they were, without a declared type.

msgpack, with extensions for what it cannot tell apart or cannot carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec.msgpack import Decoder, Encoder, Ext

from flowrt.state.classes import (
    UUID,
    Unfit,
    check_findable,
    class_name,
    field_names,
    find_class,
    is_record,
    make_record,
)

PLAIN: Final = frozenset({int, float, str, bytes, bool, type(None)})
"""What msgpack gives back as it was, but for numbers beyond 64 bits and halves of characters."""

OWN_FORM: Final = b"\xc1"
"""Begins bytes that describe themselves where a type is declared: in msgpack it means nothing."""

_TUPLE, _SET, _FROZENSET, _DICT, _RECORD, _ENUM = 1, 2, 3, 4, 5, 6
_INTEGER, _TEXT, _COMPLEX, _DECIMAL, _UUID = 16, 17, 18, 19, 20
_DATETIME, _DATE, _TIME, _TIMEDELTA = 24, 25, 26, 27

_pack: Final = Encoder().encode
_Packer: TypeAlias = Callable[[Any], Any]
_PACKERS: dict[type, _Packer] = {}


def encode(value: Any) -> bytes:
    """Encode a value; `Unfit` where it cannot be, naming the type."""
    try:
        if type(value) in PLAIN:
            try:
                return _pack(value)
            except (OverflowError, UnicodeEncodeError):
                pass
        return _pack(_packed(value))
    except RecursionError:
        raise Unfit(f"a {type(value).__name__} is nested too deeply, or contains itself") from None


def decode(data: bytes | memoryview) -> Any:
    """Decode what `encode` gave; `Unfit` where it cannot be."""
    try:
        return _unpack(data)
    except (msgspec.MsgspecError, RecursionError, ValueError, TypeError, KeyError) as error:
        raise Unfit(f"the stored bytes cannot be read: {error}") from error


def _packed(value: Any) -> Any:
    """Return what msgpack can carry in place of a value."""
    return _PACKERS.get(type(value), _pack_instance)(value)


def _as_it_is(value: Any) -> Any:
    return value


def _pack_int(value: int) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    return Ext(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _pack_text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(_TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def _pack_list(value: Iterable[Any]) -> list[Any]:
    return [_PACKERS.get(type(item), _pack_instance)(item) for item in value]


def _pack_dict(value: dict[Any, Any]) -> Any:
    keys, items = _pack_list(value), _pack_list(value.values())
    if PLAIN.issuperset(map(type, keys)):
        return dict(zip(keys, items, strict=True))
    return Ext(_DICT, _pack([part for pair in zip(keys, items, strict=True) for part in pair]))


def _pack_frozenset(value: frozenset[Any]) -> Ext:
    # Sorted, so that equal ones have equal bytes: they may be keys.
    return Ext(_FROZENSET, _pack([msgspec.Raw(item) for item in sorted(map(encode, value))]))


def _pack_zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        is_named = timezone(offset).tzname(None) != name
        parts = [offset.days, offset.seconds, offset.microseconds]
        return [*parts, name] if is_named else parts
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    raise Unfit(
        f"a time zone of type {class_name(type(zone))} cannot be stored: "
        "use datetime.timezone or a ZoneInfo with a key"
    )


def _pack_datetime(value: datetime) -> Ext:
    naive = value.replace(tzinfo=None).isoformat()
    return Ext(_DATETIME, _pack([naive, value.fold, _pack_zone(value.tzinfo)]))


def _pack_time(value: time) -> Ext:
    naive = value.replace(tzinfo=None).isoformat()
    return Ext(_TIME, _pack([naive, value.fold, _pack_zone(value.tzinfo)]))


def _pack_instance(value: Any) -> Any:
    cls = type(value)
    if isinstance(value, Enum):
        check_findable(cls)
        member = _packed(value.value) if isinstance(value, Flag) else value.name
        return Ext(_ENUM, _pack([class_name(cls), member]))
    if not is_record(cls):
        raise Unfit(
            f"a value of type {class_name(cls)} cannot be stored: use builtins, a dataclass, "
            "a NamedTuple or a msgspec Struct"
        )
    check_findable(cls)
    fields = {}
    for name in field_names(cls):
        # A field that was never set has nothing to store.
        if (item := getattr(value, name, _UNSET)) is not _UNSET:
            fields[name] = _packed(item)
    return Ext(_RECORD, _pack([class_name(cls), fields]))


class RecordForm(NamedTuple):
    """Has the bytes of a record of that class whose fields are these."""

    what: str
    fields: tuple[tuple[str, Any], ...]


def _pack_record_form(value: RecordForm) -> Ext:
    return Ext(_RECORD, _pack([value.what, {name: _packed(item) for name, item in value.fields}]))


_UNSET: Final = object()

_PACKERS |= {
    RecordForm: _pack_record_form,
    type(None): _as_it_is,
    bool: _as_it_is,
    float: _as_it_is,
    bytes: _as_it_is,
    int: _pack_int,
    str: _pack_text,
    list: _pack_list,
    dict: _pack_dict,
    tuple: lambda value: Ext(_TUPLE, _pack(_pack_list(value))),
    set: lambda value: Ext(_SET, _pack(_pack_list(value))),
    frozenset: _pack_frozenset,
    complex: lambda value: Ext(_COMPLEX, _pack([value.real, value.imag])),
    Decimal: lambda value: Ext(_DECIMAL, str(value).encode()),
    UUID: lambda value: Ext(_UUID, value.bytes),
    datetime: _pack_datetime,
    date: lambda value: Ext(_DATE, value.isoformat().encode()),
    time: _pack_time,
    timedelta: lambda value: Ext(
        _TIMEDELTA, _pack([value.days, value.seconds, value.microseconds])
    ),
}


def _zone(parts: Any) -> tzinfo | None:
    if parts is None:
        return None
    if isinstance(parts, str):
        try:
            return ZoneInfo(parts)
        except ZoneInfoNotFoundError as error:
            raise Unfit(f"the time zone {parts!r} is not known here: install tzdata") from error
    days, seconds, microseconds, *name = parts
    offset = timedelta(days, seconds, microseconds)
    if name:
        return timezone(offset, *name)
    return timezone(offset) if offset else UTC


def _unpack_datetime(data: memoryview) -> datetime:
    text, fold, zone = _unpack(data)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_zone(zone))


def _unpack_time(data: memoryview) -> time:
    text, fold, zone = _unpack(data)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_zone(zone))


def _unpack_dict(data: memoryview) -> dict[Any, Any]:
    parts = iter(_unpack(data))
    return dict(zip(parts, parts, strict=True))


def _unpack_enum(data: memoryview) -> Any:
    name, member = _unpack(data)
    cls = find_class(name)
    if not issubclass(cls, Enum):
        raise Unfit(f"class {name} was stored as an Enum and is none now")
    try:
        return cls(member) if issubclass(cls, Flag) else cls[member]
    except (KeyError, ValueError):
        raise Unfit(f"Enum {name} has no member {member!r} any more") from None


def _unpack_record(data: memoryview) -> Any:
    name, fields = _unpack(data)
    cls = find_class(name)
    if not is_record(cls):
        raise Unfit(f"class {name} was stored with fields and has none now")
    return make_record(cls, fields)


_UNPACKERS: Final[dict[int, Callable[[memoryview], Any]]] = {
    _TUPLE: lambda data: tuple(_unpack(data)),
    _SET: lambda data: set(_unpack(data)),
    _FROZENSET: lambda data: frozenset(_unpack(data)),
    _DICT: _unpack_dict,
    _RECORD: _unpack_record,
    _ENUM: _unpack_enum,
    _INTEGER: lambda data: int.from_bytes(data, "little", signed=True),
    _TEXT: lambda data: str(data, "utf-8", "surrogatepass"),
    _COMPLEX: lambda data: complex(*_unpack(data)),
    _DECIMAL: lambda data: Decimal(str(data, "ascii")),
    _UUID: lambda data: UUID(bytes=bytes(data)),
    _DATETIME: _unpack_datetime,
    _DATE: lambda data: date.fromisoformat(str(data, "ascii")),
    _TIME: _unpack_time,
    _TIMEDELTA: lambda data: timedelta(*_unpack(data)),
}


def _unpack_extension(code: int, data: memoryview) -> Any:
    unpacker = _UNPACKERS.get(code)
    if unpacker is None:
        raise Unfit(f"the stored bytes hold an unknown extension {code}")
    return unpacker(data)


_unpack: Final[Callable[[bytes | memoryview], Any]] = Decoder(ext_hook=_unpack_extension).decode


def plain(data: bytes | memoryview) -> Any:
    """Decode to builtins: a record as the dict of its fields, an Enum's member as what it has.

    Whatever has become of the classes. `Unfit` where the bytes cannot be read.
    """
    if data[:1] == OWN_FORM:
        data = memoryview(data)[1:]
    try:
        return _unpack_plain(data)
    except (msgspec.MsgspecError, RecursionError, ValueError, TypeError, KeyError) as error:
        raise Unfit(f"the stored bytes cannot be read: {error}") from error


def _unpack_plain_extension(code: int, data: memoryview) -> Any:
    if code in (_RECORD, _ENUM):
        return _unpack_plain(data)[1]
    if code == _TUPLE:
        return tuple(_unpack_plain(data))
    return _unpack_extension(code, data)


_unpack_plain: Final[Callable[[bytes | memoryview], Any]] = Decoder(
    ext_hook=_unpack_plain_extension
).decode
