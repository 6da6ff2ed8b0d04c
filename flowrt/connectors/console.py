"""The terminal as a sink."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final, TextIO

import msgspec

from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.plural import plural
from flowrt.contract.sink import Committable, Sink, SinkContext, Writer

_WIDEST: Final = 200
"""Characters of one row, or of one cell of a table, that are shown."""


class ConsoleSink(Sink[Any]):
    """Prints the first `num_rows` rows of each epoch, and how many more there were.

    At least once: rows are printed at once or at the epoch's end, and nobody can take back what was
    printed, so after a restart the rows behind the last snapshot are printed again.

    Plain lines, as the rows come; on a terminal with rich installed, a table at the end of each
    epoch, with a column for each field of dicts, dataclasses and Structs. `file` is where to
    print, standard output unless given.
    """

    kind = "direct"

    def __init__(self, num_rows: int = 20, *, title: str = "", file: TextIO | None = None) -> None:
        if num_rows < 0:
            raise ConfigError(f"num_rows must not be negative, not {num_rows}")
        self._num_rows = num_rows
        self._title = title
        self._file = file

    def describe(self) -> str:
        """Return the kind and the number of rows shown."""
        return f"console ({self._num_rows} {plural(self._num_rows, 'row')} of each epoch)"

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        """Return a writer for one subtask."""
        file = self._file or sys.stdout
        title = self._title or ctx.operator
        if ctx.parallelism > 1:
            title += f"[{ctx.subtask}]"
        as_table = file.isatty() and find_spec("rich") is not None
        return _ConsoleWriter(file, title, self._num_rows, as_table)


class _ConsoleWriter:
    def __init__(self, file: TextIO, title: str, num_rows: int, as_table: bool) -> None:
        self._file = file
        self._title = title
        self._num_rows = num_rows
        self._as_table = as_table
        self._rows: list[Any] = []  # for the table
        self._seen = 0

    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        shown = values[: max(self._num_rows - self._seen, 0)]
        self._seen += len(values)
        if self._as_table:
            self._rows += shown
        elif shown:
            self._print("".join(f"{self._title}: {_short(value)}\n" for value in shown))

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        self._end(f", epoch {epoch}")
        return None

    async def close(self) -> None:
        self._end("")

    def _end(self, epoch: str) -> None:
        more = self._seen - self._num_rows
        if self._rows:
            self._print_table(f"{self._title}{epoch}")
        if more > 0:
            self._print(f"{self._title}{epoch}: … and {more} more rows\n")
        self._rows = []
        self._seen = 0

    def _print(self, text: str) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            raise self._cannot_print(error) from error

    def _cannot_print(self, error: Exception) -> SinkError:
        # Nothing is left to print for `close`, which would fail once more.
        self._rows = []
        self._seen = 0
        return SinkError(f"console sink {self._title!r} cannot print: {error}")

    def _print_table(self, title: str) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        rows = [_cells(row) for row in self._rows]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = Table(title=Text(title), title_justify="left")
        for column in columns:
            table.add_column(Text(column))
        for row in rows:
            cells = (row.get(name, "") for name in columns)
            table.add_row(
                *(Text(cell if isinstance(cell, str) else _short(cell)) for cell in cells)
            )
        try:
            Console(file=self._file).print(table)
        except (OSError, ValueError) as error:
            raise self._cannot_print(error) from error


def _cells(row: Any) -> Mapping[str, Any]:
    """Return a row's columns and what stands in them."""
    if isinstance(row, dict):
        return {str(name): value for name, value in row.items()}
    if isinstance(row, msgspec.Struct):
        return msgspec.structs.asdict(row)
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    if isinstance(row, tuple):
        names = getattr(row, "_fields", None) or map(str, range(len(row)))
        return dict(zip(names, row, strict=True))
    return {"value": row}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
