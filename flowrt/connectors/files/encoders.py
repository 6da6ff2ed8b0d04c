"""Values as lines of JSON or CSV. No I/O."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from io import StringIO
from operator import attrgetter
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec

from flowrt.connectors.files.letters import writable
from flowrt.contract.errors import SinkError
from flowrt.contract.failures import text_of
from flowrt.contract.on_error import DeadLetter
from flowrt.contract.plural import plural


class Encoder(Protocol):
    """Encodes values as whole lines; `SinkError` names the type of a value that can't be."""

    fields: list[str] | None
    """The columns, for formats with a header and once they are known."""

    def header(self) -> bytes:
        """Return what stands at the top of each file; asked after values were encoded."""
        ...

    def encode(self, values: Sequence[Any]) -> bytes:
        """Return the lines of values, each with its newline."""
        ...


class JsonEncoder:
    """One JSON value a line: builtins, tuples as arrays, dataclasses, Structs, times and such.

    JSON has no form for the floats nan and inf: they are refused, or null with `allow_nan`. A
    `DeadLetter` is never refused: see `writable`.
    """

    fields: list[str] | None = None

    def __init__(self, *, allow_nan: bool = False) -> None:
        # One call for a whole batch: twelve times as fast as a call for each value and a join.
        self._encoder = msgspec.json.Encoder()
        self._other_form = msgspec.msgpack.Encoder()
        self._allow_nan = allow_nan

    def header(self) -> bytes:
        """See `Encoder.header`: there is none."""
        return b""

    def encode(self, values: Sequence[Any]) -> bytes:
        """See `Encoder.encode`."""
        try:
            return self._lines(values)
        except Exception:
            if not any(isinstance(value, DeadLetter) for value in values):
                raise
        return b"".join(self._lines([self._as_it_can_be(value)]) for value in values)

    def _as_it_can_be(self, value: Any) -> Any:
        if isinstance(value, DeadLetter) and self._flaw(value) is not None:
            return writable(value, self._flaw)
        return value

    def _flaw(self, value: Any) -> str | None:
        """Say why JSON has no form for a value; None where it has."""
        try:
            self._encoder.encode(value)
            return None if self._allow_nan else _nan_in(value)
        except Exception as error:  # also of code that is not ours, such as that of a time zone
            return str(error) or type(error).__name__

    def _lines(self, values: Sequence[Any]) -> bytes:
        try:
            lines = self._encoder.encode_lines(values)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._culprit(values, error) from error
        # The encoder writes them as null and says nothing; most lines have no null at all.
        if not self._allow_nan and b"null" in lines and self._may_have_nan(values):
            _refuse_nan(values)
        return lines

    def _may_have_nan(self, values: Sequence[Any]) -> bool:
        """Look for their bytes in another form: a tenth of the time that looking at values takes.

        True also for other values with the same bytes, and for those that have no such form.
        """
        try:
            return _NAN_OR_INF.search(self._other_form.encode(values)) is not None
        except (TypeError, ValueError, OverflowError):
            return True

    def _culprit(self, values: Sequence[Any], error: Exception) -> SinkError:
        for value in values:
            try:
                self._encoder.encode(value)
            except (TypeError, ValueError, RecursionError) as own:
                return cannot_encode("JSON", value, str(own))
        return cannot_encode("JSON", values, str(error))


_NAN_OR_INF: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""How msgpack's form of a float that is nan or inf begins: all bits of the exponent are set."""


def _refuse_nan(values: Sequence[Any]) -> None:
    for value in values:
        found = _nan_in(value)
        if found is not None:
            reason = f"{found}, and would become null (allow_nan=True lets it)"
            raise cannot_encode("JSON", value, reason)


def _nan_in(value: Any) -> str | None:
    """Say where a value holds a float that is not finite; None for nowhere."""
    place = _place_of_nan(msgspec.to_builtins(value))
    if place is None:
        return None
    return f"its {place} is nan or infinite" if place else "it is nan or infinite"


def _place_of_nan(value: Any) -> str | None:
    """Return where in a value the first float is that is not finite; None for nowhere."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    if isinstance(value, dict):
        inside = [(f"[{key!r}]", one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        inside = [(f"[{index}]", one) for index, one in enumerate(value)]
    else:
        return None
    for name, one in inside:
        place = _place_of_nan(one)
        if place is not None:
            return name + place
    return None


class CsvEncoder:
    """Rows by RFC 4180, with a header row; lines end in a newline alone.

    A row is a dict, a dataclass, a Struct, or a tuple or list in the order of the columns. The
    columns are `fields`, else those of the first value. A field that is None or missing in a dict
    is empty.
    """

    def __init__(self, fields: Sequence[str] | None = None) -> None:
        self.fields = None if fields is None else list(fields)
        self._getters: dict[type, Callable[[Any], Any]] = {}

    def header(self) -> bytes:
        """See `Encoder.header`."""
        return _csv([self.fields or []])

    def encode(self, values: Sequence[Any]) -> bytes:
        """See `Encoder.encode`."""
        if values and self.fields is None:
            self.fields = _fields_of(values[0])
        rows = [self._row(value) for value in values]
        types: set[type] = set()
        for row in rows:
            types.update(map(type, row))
        if not types <= _AS_THEY_ARE:
            rows = [
                [self._cell(cell, index, value) for index, cell in enumerate(row)]
                for row, value in zip(rows, values, strict=True)
            ]
        try:
            return _csv(rows)
        except (csv.Error, UnicodeEncodeError) as error:
            raise SinkError(f"a row cannot be written as CSV: {error}") from error

    def _row(self, value: Any) -> Sequence[Any]:
        fields = self.fields or []
        if isinstance(value, dict):
            if not value.keys() <= set(fields):
                extra = ", ".join(repr(name) for name in value if name not in fields)
                raise cannot_encode("CSV", value, f"it has {extra} beside the columns {fields}")
            return [value.get(name) for name in fields]
        if isinstance(value, (tuple, list)):
            if len(value) != len(fields):
                has, wanted = plural(len(value), "field"), plural(len(fields), "column")
                reason = f"it has {len(value)} {has} for {len(fields)} {wanted}"
                raise cannot_encode("CSV", value, reason)
            return value
        getter = self._getters.get(type(value))
        if getter is None:
            getter = self._getters[type(value)] = _getter(value, fields)
        row: Sequence[Any] = getter(value)
        return row

    def _cell(self, cell: Any, index: int, value: Any) -> Any:
        if type(cell) in _AS_THEY_ARE:
            return cell
        if isinstance(cell, Enum):
            cell = cell.value
        if isinstance(cell, bool):
            return "true" if cell else "false"
        if isinstance(cell, (datetime, date, time)):
            return cell.isoformat()
        if isinstance(cell, (str, int, float, Decimal, UUID)):
            return cell
        column = (self.fields or [])[index]
        raise cannot_encode("CSV", value, f"column {column!r} holds a {type(cell).__name__}")


_AS_THEY_ARE: Final[frozenset[type]] = frozenset({str, int, float, type(None)})


def cannot_encode(format: str, value: object, reason: str) -> SinkError:
    """Return the error for a value that a format has no form for."""
    text = text_of(value)
    return SinkError(
        f"a value of type {type(value).__name__} cannot be written as {format}: {reason}; "
        f"map it to something that can be before the sink. The value: {text:.200}"
    )


def _csv(rows: list[Sequence[Any]] | list[list[str]]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    if "\r" in text.getvalue():  # the library quotes it only where it ends lines
        text = StringIO()
        for row in rows:
            has_return = any(isinstance(cell, str) and "\r" in cell for cell in row)
            if has_return:
                csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(row)
            else:
                csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode()


def _fields_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(name) for name in value]
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value._fields)
    reason = "its columns have no names"
    if isinstance(value, (tuple, list)):
        reason += "; give them with fields=[...]"
    raise cannot_encode("CSV", value, reason)


def _getter(value: Any, fields: list[str]) -> Callable[[Any], Any]:
    """Return how to get a row from values of this type."""
    if not isinstance(value, msgspec.Struct) and not dataclasses.is_dataclass(value):
        raise cannot_encode("CSV", value, "a row is a dict, dataclass, Struct, tuple or list")
    own = _fields_of(value)
    missing = [name for name in fields if name not in own]
    if missing:
        raise cannot_encode("CSV", value, f"it has no {', '.join(map(repr, missing))}")
    get = attrgetter(*fields)
    return get if len(fields) > 1 else lambda value: (get(value),)
