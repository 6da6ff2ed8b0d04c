"""A value as a row of a table: dicts, dataclasses, Structs, tuples. No I/O."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from flowrt.contract.errors import SinkError
from flowrt.contract.plural import plural

Row: TypeAlias = Sequence[Any]

_AS_THEY_ARE: Final[frozenset[type]] = frozenset({str, int, float, bytes, type(None)})
_SHOWN: Final = 200
FLOAT: Final = b"\xcb"
"""How msgpack's form of a float begins; in what has it nowhere there is none."""
_MAY_BE_NAN: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""The same where it is nan or infinite: all bits of the exponent are set."""


class RowMaker:
    """Turns values into rows with the cells of `columns`, in their order.

    Without columns those of the first value count. Cells become None, `int`, `float`, `str` or
    `bytes`: a bool an int, an Enum its value, times, Decimals and UUIDs text. `SinkError` names
    `where` and the value that has a column too many or too few, or a cell that is none of these.
    """

    def __init__(
        self, where: str, columns: Sequence[str] | None = None, *, allow_nan: bool = False
    ) -> None:
        self.columns = None if columns is None else list(columns)
        self._where = where
        self._allow_nan = allow_nan
        self._getters: dict[type, Callable[[Any], Row]] = {}

    def row(self, value: Any) -> Row:
        """Return the row of one value."""
        getter = self._getters.get(type(value)) or self._learn(value)
        try:
            row = getter(value)
        except (KeyError, AttributeError):
            raise self._refusal(value, self._difference(value)) from None
        if len(row) != len(self.columns or ()) or (
            isinstance(value, dict) and len(value) != len(row)
        ):
            raise self._refusal(value, self._difference(value))
        if not _AS_THEY_ARE.issuperset(map(type, row)):
            row = [self._cell(cell, index, value) for index, cell in enumerate(row)]
        return row

    def check_nan(self, encoded: bytes, row: Row, value: Any) -> None:
        """Raise `SinkError` where a cell is nan, unless that is allowed: SQLite makes it NULL.

        `encoded` is the row in MessagePack: few rows need a closer look.
        """
        if self._allow_nan or _MAY_BE_NAN.search(encoded) is None:
            return
        for column, cell in zip(self.columns or [], row, strict=True):
            if isinstance(cell, float) and math.isnan(cell):
                reason = f"its {column!r} is nan, and would become NULL (allow_nan=True lets it)"
                raise self._refusal(value, reason)

    def _learn(self, value: Any) -> Callable[[Any], Row]:
        names = _columns_of(value)
        if self.columns is None:
            if not names:
                reason = "its columns have no names"
                if isinstance(value, (tuple, list)):
                    reason += "; give the sink columns=[...]"
                raise self._refusal(value, reason)
            self.columns = names
        getter = self._getters[type(value)] = self._getter(value, self.columns)
        return getter

    def _getter(self, value: Any, columns: list[str]) -> Callable[[Any], Row]:
        if isinstance(value, (tuple, list)):
            return tuple
        if isinstance(value, dict):
            get: Callable[[Any], Any] = itemgetter(*columns)
        elif isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
            get = attrgetter(*columns)
        else:
            raise self._refusal(value, "a row is a dict, dataclass, Struct or tuple")
        return get if len(columns) > 1 else lambda value: (get(value),)

    def _cell(self, cell: Any, index: int, value: Any) -> Any:
        if isinstance(cell, Enum):
            cell = cell.value
        if type(cell) in _AS_THEY_ARE:
            return cell
        if isinstance(cell, (datetime, date, time)):
            return cell.isoformat()
        if isinstance(cell, (Decimal, UUID)):
            return str(cell)
        for plain in (int, float, str):  # a bool is an int
            if isinstance(cell, plain):
                return plain(cell)
        if isinstance(cell, (bytes, bytearray, memoryview)):
            return bytes(cell)
        column = (self.columns or [])[index]
        reason = (
            f"column {column!r} holds a {type(cell).__name__}, for which a table has no type; "
            "make it text or bytes before the sink"
        )
        raise self._refusal(value, reason)

    def _difference(self, value: Any) -> str:
        columns, names = self.columns or [], _columns_of(value)
        if not names:
            cells = plural(len(value), "cell")
            return f"it has {len(value)} {cells}, and the columns are {columns}"
        missing = [name for name in columns if name not in names]
        if missing:
            return f"it lacks {', '.join(map(repr, missing))}; each row needs the columns {columns}"
        extra = [name for name in names if name not in columns]
        return f"it has {', '.join(map(repr, extra))} beside the columns {columns}"

    def _refusal(self, value: Any, reason: str) -> SinkError:
        text = repr(value)
        text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
        return SinkError(
            f"{self._where}: a value of type {type(value).__name__} does not fit: {reason}. "
            f"The value: {text}"
        )


def _columns_of(value: Any) -> list[str]:
    """Return the names that a value brings for its columns; [] where it has none."""
    if isinstance(value, dict):
        return [str(name) for name in value]
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return list(getattr(value, "_fields", ()))
