"""CSV by RFC 4180: quoted fields may hold delimiters, doubled quotes and newlines. No I/O."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

from flowrt.connectors.files.formats import SHOWN_BYTES, Broken, Decoded, split_lines
from flowrt.contract.errors import ConfigError
from flowrt.contract.plural import plural


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How a CSV file is written.

    `fields` names the columns of files without a header row; None takes the names from the first
    row. With a declared type, an optional field is None where its text is one of `nulls`.
    """

    delimiter: str = ","
    quote: str = '"'
    fields: Sequence[str] | None = None
    nulls: Sequence[str] = ("",)

    def __post_init__(self) -> None:
        for name, mark in (("delimiter", self.delimiter), ("quote", self.quote)):
            if len(mark) != 1 or not mark.isascii() or mark in "\r\n":
                raise ConfigError(
                    f"the {name} of a CSV format is one ASCII character, not {mark!r}"
                )
        if self.delimiter == self.quote:
            raise ConfigError(f"{self.quote!r} cannot be both delimiter and quote of a CSV format")
        if self.fields is not None:
            check_fields(self.fields)


def check_fields(fields: Sequence[str]) -> None:
    """Raise `ConfigError` unless the names of columns are unique and there is one."""
    twice = sorted({name for name in fields if list(fields).count(name) > 1})
    if not fields or twice:
        what = f"{', '.join(map(repr, twice))} twice" if twice else "no column"
        raise ConfigError(f"a CSV header names {what}: each column needs a name of its own")


class _Unfinished(Exception):
    """The lines end inside a quoted field."""


class CsvLines:
    """Rows as dicts of text, or of a declared type, from a file with known columns."""

    def __init__(self, format: CsvFormat, fields: Sequence[str], type: Any = None) -> None:
        self._format = format
        self._quote = format.quote.encode()
        self._width = len(fields)
        self._convert = _Plain(fields) if type is None else _Typed(fields, type, format.nulls)

    def decode(self, piece: bytes, lines: int, limit: int, last: bool, skip: bool) -> Decoded:
        """See `Format.decode`."""
        whole = piece if last else self._without_open_quote(piece)
        if whole:
            try:
                texts = whole.decode().split("\n")
                if not texts[-1]:
                    texts.pop()
                if self._quote in whole:  # a newline inside quotes is part of the field
                    texts = [text + "\n" for text in texts]
                values = self._convert.rows(_reader(iter(texts), self._format))
                if len(values) <= limit:
                    return Decoded(values, len(whole))
            except (csv.Error, ValueError, msgspec.ValidationError):
                pass  # met again below, with its place; blank lines too
        return self._row_by_row(piece, limit, last, skip)

    def _without_open_quote(self, piece: bytes) -> bytes:
        """Leave out the last lines while the number of quotes before their end is odd."""
        quotes = piece.count(self._quote)
        end = len(piece)
        while quotes % 2 and end:
            start = piece.rfind(b"\n", 0, end - 1) + 1
            quotes -= piece.count(self._quote, start, end)
            end = start
        return piece[:end]

    def _row_by_row(self, piece: bytes, limit: int, last: bool, skip: bool) -> Decoded:
        values: list[Any] = []
        broken: list[Broken] = []
        done = 0
        for at, size, row, reason in read_rows(piece, self._format, last):
            if row is not None:
                reason = self._add(row, values)
            if reason and values and not skip:
                return Decoded(values, done)
            done = at + size
            if reason:
                broken.append(Broken(at, piece[at : at + min(size, SHOWN_BYTES)], reason))
                if not skip:
                    return Decoded([], done, broken)
            if len(values) == limit:
                break
        return Decoded(values, done, broken)

    def _add(self, row: list[str], values: list[Any]) -> str | None:
        """Add a row to the values; return why that is impossible, or None."""
        if not row:
            return None
        if len(row) != self._width:
            fields = plural(len(row), "field")
            return f"it has {len(row)} {fields}, the header has {self._width}"
        try:
            values += self._convert.rows([row])
        except msgspec.ValidationError as error:
            return str(error).replace("$[0]", "$")
        return None


class _Plain:
    """Rows as dicts of text; `ValueError` where one is too short or too long."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)

    def rows(self, rows: Iterable[list[str]]) -> list[Any]:
        fields = self._fields
        return [dict(zip(fields, row, strict=True)) for row in rows]


class _Typed:
    """Rows of a declared type; columns that it does not have are not looked at.

    `ValueError` where a row is too short or too long, or does not fit the type.
    """

    def __init__(self, fields: Sequence[str], type: Any, nulls: Sequence[str]) -> None:
        wanted = _fields_of(type)
        missing = [
            name for name, (required, _) in wanted.items() if required and name not in fields
        ]
        if missing:
            raise ConfigError(
                f"the CSV header lacks {', '.join(map(repr, missing))}, which the declared type "
                f"{getattr(type, '__name__', type)} needs; it has: {', '.join(fields)}"
            )
        names = [name for name in fields if name in wanted] if wanted else list(fields)
        self._width = len(fields)
        self._names = tuple(names)
        self._pick = _picker([list(fields).index(name) for name in names])
        self._nullable = [name for name in names if name in wanted and wanted[name][1]]
        self._nulls = frozenset(nulls)
        self._type = list[type]

    def rows(self, rows: Iterable[list[str]]) -> list[Any]:
        names, pick, nulls, width = self._names, self._pick, self._nulls, self._width
        named: list[dict[str, str | None]] = [
            dict(zip(names, pick(row), strict=True))
            for row in rows
            if len(row) == width or _wrong_width()
        ]
        for name in self._nullable:
            for row in named:
                if row[name] in nulls:
                    row[name] = None
        converted: list[Any] = msgspec.convert(named, self._type, strict=False)
        return converted


def _wrong_width() -> bool:
    raise ValueError


def _picker(indexes: list[int]) -> Any:
    if len(indexes) > 1:
        return itemgetter(*indexes)
    return lambda row: [row[index] for index in indexes]


def _fields_of(type: Any) -> Mapping[str, tuple[bool, bool]]:
    """Return a type's fields by name: whether each is required, and whether it may be None."""
    info = msgspec.inspect.type_info(type)
    return {
        field.encode_name: (field.required, _may_be_none(field.type))
        for field in getattr(info, "fields", ())
    }


def _may_be_none(info: msgspec.inspect.Type) -> bool:
    if isinstance(info, msgspec.inspect.UnionType):
        return info.includes_none
    return isinstance(info, msgspec.inspect.NoneType)


def read_rows(
    piece: bytes, format: CsvFormat, last: bool
) -> Iterator[tuple[int, int, list[str] | None, str | None]]:
    """Read rows one by one: where each begins, its size in bytes, and its fields or what is wrong.

    Ends before a row that the piece does not hold whole, unless it is the file's `last` piece.
    """
    lines = split_lines(piece)
    first = at = 0
    while first < len(lines):
        reader = _reader(_texts(lines[first:]), format)
        seen = 0
        while first < len(lines):
            row: list[str] | None = None
            reason: str | None = None
            try:
                row = next(reader)
                read = reader.line_num - seen  # type: ignore[attr-defined]
            except csv.Error as error:
                read = reader.line_num - seen  # type: ignore[attr-defined]
                reason = _reason(error)
            except UnicodeDecodeError as error:
                read = reader.line_num - seen + 1  # type: ignore[attr-defined]
                reason = str(error)
            except _Unfinished:
                if not last:
                    return
                read = 1  # the quote may be the mistake: the lines that follow may be good
                reason = "its quoted field never ends"
            size = min(sum(map(len, lines[first : first + read])) + read, len(piece) - at)
            yield at, size, row, reason
            first, at, seen = first + read, at + size, seen + read
            if reason:
                break


def _reader(lines: Iterator[str], format: CsvFormat) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=format.delimiter, quotechar=format.quote, strict=True)


def _texts(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        yield line.decode() + "\n"
    raise _Unfinished


def _reason(error: Exception) -> str:
    text = str(error)
    if "field limit" in text:
        text += "; csv.field_size_limit(...) raises that limit"
    return text
