"""How values of a state are stored and encoded: by declared type, or describing themselves.

A value that cannot change is stored as it is. Any other is stored `Sealed`, that is encoded, and
decoded at each use: changing it in place reaches neither the state nor a snapshot half written.
"""

from __future__ import annotations

from datetime import datetime, time
from enum import Enum
from typing import Any, Final, Protocol

from flowrt.state.classes import (
    FieldReader,
    Unfit,
    check_findable,
    class_name,
    field_reader,
    is_frozen,
    is_record,
)
from flowrt.state.declared import DeclaredCodec
from flowrt.state.sealed import FAST, Sealed
from flowrt.state.self_describing import decode, encode

_NONE: Final[frozenset[type]] = frozenset()
_CONTAINERS: Final = (list, dict, tuple, set, frozenset)


class Codec(Protocol):
    """Between values, their stored form and bytes. Each method raises `Unfit` where it cannot."""

    @property
    def scalar(self) -> type | None:
        """Stored values are exactly of this type; such a value may be stored without `seal`."""
        ...

    @property
    def quick(self) -> frozenset[type]:
        """Values of exactly these types are their own stored form."""
        ...

    def seal(self, value: Any) -> Any:
        """Return the stored form of a value."""
        ...

    def unseal(self, stored: Any) -> Any:
        """Return the value of a stored form; one of the caller's own."""
        ...

    def encode(self, stored: Any) -> bytes:
        """Return the bytes of a stored form."""
        ...

    def restore(self, data: bytes) -> Any:
        """Return the stored form from its bytes."""
        ...


def codec_for(declared: Any) -> Codec:
    """Return the codec of a declared type (None: undeclared); `Unfit` for one without any."""
    if declared is None or declared is Any or declared is object:
        return UndeclaredCodec()
    if isinstance(declared, type):
        if declared in _CONTAINERS:
            return UndeclaredCodec(declared)
        if declared in FAST or declared in (datetime, time):
            return ScalarCodec(declared)
    return DeclaredCodec(declared)


class ScalarCodec:
    """For a state declared with an immutable builtin."""

    __slots__ = ("_type", "quick", "scalar")

    def __init__(self, declared: type) -> None:
        self._type = declared
        # A time zone may be of a kind that cannot be stored: such values are looked at first.
        self.scalar = declared if declared in FAST else None
        self.quick: frozenset[type] = frozenset({declared}) if declared in FAST else _NONE

    def seal(self, value: Any) -> Any:
        """See `Codec.seal`; an int where a float is declared becomes one."""
        kind = type(value)
        if kind is self._type:
            if self.scalar is None:
                encode(value)
            return value
        if self._type is float and isinstance(value, int | float) and kind is not bool:
            try:
                return float(value)
            except OverflowError as error:
                raise Unfit(f"an int is too large for the declared float: {error}") from None
        raise Unfit(
            f"a value of type {class_name(kind)} cannot be stored where {self._type.__name__} is "
            "declared"
        )

    def unseal(self, stored: Any) -> Any:
        """See `Codec.unseal`."""
        return stored

    def encode(self, stored: Any) -> bytes:
        """See `Codec.encode`."""
        return encode(self.seal(stored))

    def restore(self, data: bytes) -> Any:
        """See `Codec.restore`."""
        return self.seal(decode(data))


class UndeclaredCodec:
    """For a state without a declared type, or with a bare container: values describe themselves."""

    __slots__ = ("_expected", "_readers", "quick")

    scalar = None

    def __init__(self, expected: type | None = None) -> None:
        self._expected = expected
        self.quick = FAST if expected is None else _NONE
        self._readers: dict[type, FieldReader | None] = {}

    def seal(self, value: Any) -> Any:
        """See `Codec.seal`."""
        kind = type(value)
        if self._expected is not None and kind is not self._expected:
            raise Unfit(
                f"a value of type {class_name(kind)} cannot be stored where "
                f"{self._expected.__name__} is declared"
            )
        if kind in FAST or self._is_constant(kind, value):
            return value
        return Sealed(encode(value))

    def unseal(self, stored: Any) -> Any:
        """See `Codec.unseal`."""
        return decode(stored) if type(stored) is Sealed else stored

    def encode(self, stored: Any) -> bytes:
        """See `Codec.encode`."""
        return stored if type(stored) is Sealed else encode(stored)

    def restore(self, data: bytes) -> Any:
        """See `Codec.restore`."""
        value = decode(data)
        kind = type(value)
        if self._expected is not None and kind is not self._expected:
            raise Unfit(
                f"a {class_name(kind)} was stored where {self._expected.__name__} is declared now"
            )
        return value if kind in FAST or self._is_constant(kind, value) else Sealed(data)

    def _is_constant(self, kind: type, value: Any) -> bool:
        """Say whether a value can never change and be encoded at any time; looks one level deep."""
        if kind is tuple:
            return FAST.issuperset(map(type, value))
        if kind is datetime or kind is time:
            if value.tzinfo is not None:
                encode(value)  # raises for a time zone that cannot be stored
            return True
        if kind not in self._readers:
            self._readers[kind] = self._reader(kind)
        reader = self._readers[kind]
        return reader is not None and FAST.issuperset(map(type, reader(value)))

    @staticmethod
    def _reader(kind: type) -> FieldReader | None:
        """Return what reads the parts by which a value may change; None where anything may."""
        if issubclass(kind, Enum):
            check_findable(kind)
            return lambda _member: ()
        if is_record(kind) and is_frozen(kind):
            check_findable(kind)
            return field_reader(kind)
        return None
