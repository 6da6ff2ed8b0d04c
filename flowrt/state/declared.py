"""Values of a declared type: encoded and decoded by msgspec, checked when they are written.

Whether a value may be stored as it is, is found by trying: it must come back from its bytes the
same, field by field and type by type. For records of plain fields the outcome holds for all values
with the same types of fields (the shape), so it is remembered.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import msgspec
from msgspec import inspect
from msgspec.msgpack import Decoder, Encoder

from flowrt.state import self_describing
from flowrt.state.classes import FieldReader, Unfit, class_name, field_reader, is_frozen, is_record
from flowrt.state.sealed import FAST, Sealed

_MOST_SHAPES: Final = 1_000
"""So many are remembered, should a class have fields of ever other types."""


class DeclaredCodec:
    """For a state declared with a type that msgspec can decode."""

    __slots__ = ("_decode", "_encode", "_is_simple", "_readers", "_shapes", "_type")

    scalar = None
    quick: frozenset[type] = frozenset()

    def __init__(self, declared: Any) -> None:
        try:
            self._decode = Decoder(declared).decode
            self._is_simple = _is_simple(inspect.type_info(declared))
        except (TypeError, NameError, RecursionError) as error:
            raise Unfit(f"the declared type {declared!r} cannot be used: {error}") from error
        self._encode = Encoder().encode
        self._type = declared
        self._readers: dict[type, FieldReader] = {}
        self._shapes: dict[Any, bool] = {}

    def seal(self, value: Any) -> Any:
        """See `Codec.seal`."""
        shape = self._shape(value)
        as_it_is = self._shapes.get(shape)
        if as_it_is:
            return value
        data = self._encoded(value)
        if as_it_is is None and self._comes_back(value, shape, data):
            return value
        return Sealed(data)

    def unseal(self, stored: Any) -> Any:
        """See `Codec.unseal`."""
        return self._decoded(stored) if type(stored) is Sealed else stored

    def encode(self, stored: Any) -> bytes:
        """See `Codec.encode`."""
        return stored if type(stored) is Sealed else self._encoded(stored)

    def restore(self, data: bytes) -> Any:
        """See `Codec.restore`."""
        value = self._decoded(data)
        shape = self._shape(value)
        as_it_is = self._shapes.get(shape)
        if as_it_is is None:
            as_it_is = self._comes_back(value, shape, data)
        return value if as_it_is else Sealed(data)

    def _shape(self, value: Any) -> Any:
        """Return what values that fare alike have in common; None where each is looked at."""
        kind = type(value)
        reader = self._readers.get(kind)
        if reader is not None:
            return (kind, *map(type, reader(value)))
        if kind in FAST:
            return kind
        if is_record(kind):
            self._readers[kind] = field_reader(kind)
            return self._shape(value)
        return None

    def _comes_back(self, value: Any, shape: Any, data: bytes) -> bool:
        """Say whether a value may be stored as it is; `Unfit` where it could not be read again."""
        kind = type(value)
        back = self._decoded(data)
        if isinstance(value, Enum):
            return back is value
        if type(back) is not kind and isinstance(value, type(back)) and is_record(kind):
            raise Unfit(
                f"a value of type {class_name(kind)} would come back as the declared "
                f"{self._name()}: declare a union of the classes, or no type"
            )
        if shape is None or self._shape(back) != shape:
            return False  # with an int for a float, say: decoded each time, so always the same
        if kind not in FAST and not FAST.issuperset(shape[1:]):
            return False
        constant = kind in FAST or is_frozen(kind)
        equal = bool(back == value)
        simple = self._is_simple if kind in FAST else _is_simple_record(kind)
        # A constant that is not itself again (not a number) says nothing about others of its shape.
        if simple and (equal or not constant) and len(self._shapes) < _MOST_SHAPES:
            self._shapes[shape] = constant
        return constant and equal

    def _encoded(self, value: Any) -> bytes:
        try:
            return self._encode(value)
        except (OverflowError, UnicodeEncodeError):
            # Numbers beyond 64 bits and halves of characters are more than msgpack can carry.
            return self_describing.OWN_FORM + self_describing.encode(value)
        except (
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
            msgspec.MsgspecError,
        ) as error:
            raise Unfit(
                f"a value of type {class_name(type(value))} cannot be encoded as the declared "
                f"{self._name()}: {error}"
            ) from error

    def _decoded(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            if data[:1] == self_describing.OWN_FORM:
                return self_describing.decode(memoryview(data)[1:])
            raise Unfit(
                f"what was stored does not fit the declared {self._name()}: {error}"
            ) from error

    def _name(self) -> str:
        return class_name(self._type) if isinstance(self._type, type) else repr(self._type)


def _is_simple_record(kind: type) -> bool:
    """Say whether decoding a record depends on its fields' types alone, never on their values."""
    if hasattr(kind, "__post_init__"):
        return False
    try:
        info = inspect.type_info(kind)
    except (TypeError, NameError):
        return False
    fields = getattr(info, "fields", None)
    return fields is not None and all(_is_simple(field.type) for field in fields)


def _is_simple(info: inspect.Type) -> bool:
    if isinstance(info, inspect.UnionType):
        return all(map(_is_simple, info.types))
    if isinstance(info, inspect.IntType | inspect.FloatType):
        limits = (info.gt, info.ge, info.lt, info.le, info.multiple_of)
        return all(limit is None for limit in limits)
    if isinstance(info, inspect.StrType):
        return (info.min_length, info.max_length, info.pattern) == (None, None, None)
    if isinstance(info, inspect.BytesType):
        return (info.min_length, info.max_length) == (None, None)
    return isinstance(
        info,
        inspect.AnyType
        | inspect.BoolType
        | inspect.DateType
        | inspect.DecimalType
        | inspect.NoneType
        | inspect.TimeDeltaType
        | inspect.UUIDType,
    )
