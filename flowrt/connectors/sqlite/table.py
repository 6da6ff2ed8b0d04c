"""The SQL of an SQLite sink: its table, its rows, and the mark of what it has committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from flowrt.connectors.sqlite.database import code_of, quoted
from flowrt.contract.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from sqlite3 import Connection

_MARKS: Final = """
CREATE TABLE IF NOT EXISTS flowrt_commits (
  sink TEXT NOT NULL, table_name TEXT NOT NULL, life TEXT NOT NULL, owner TEXT NOT NULL,
  epoch INTEGER NOT NULL, PRIMARY KEY (sink, table_name)
)
"""
_CONSTRAINT, _MISMATCH = 19, 20
MOST_CELLS: Final = 900
"""In one statement; SQLite before 3.32 takes 999."""


class Mark(NamedTuple):
    """What the database knows of a sink.

    `life` stays the same from a start from nothing on, `owner` is new with each start; `epoch` is
    the last whose rows are in the table, 0 before the first.
    """

    life: str
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table and how rows get into it: added, or with `key` put in place of the row with that key.

    `types` are the columns with their SQL types where the table may be created; they and `columns`
    are None where nobody has said.
    """

    name: str
    key: Sequence[str] = ()
    columns: Sequence[str] | None = None
    types: Mapping[str, str] = field(default_factory=dict)

    def make(self, connection: Connection) -> None:
        """Create what is missing; `ConfigError` where the table cannot be what is wanted."""
        connection.execute(_MARKS)
        if self.types:
            columns = [f"{quoted(name)} {type}" for name, type in self.types.items()]
            if self.key:
                columns.append(f"PRIMARY KEY ({_list(self.key)})")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {quoted(self.name)} ({', '.join(columns)})"
            )
        self._check(connection)

    def _check(self, connection: Connection) -> None:
        found = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(self.name)})")]
        if not found:
            raise ConfigError(
                f"there is no table {self.name!r}: create it, or give the sink its columns with "
                "types, such as columns={'name': 'TEXT NOT NULL', 'count': 'INTEGER'}"
            )
        missing = [name for name in (*(self.columns or ()), *self.key) if name not in found]
        if missing:
            raise ConfigError(
                f"table {self.name!r} has no column {', '.join(map(repr, missing))}, only {found}: "
                "add it to the table, or name the columns that are there"
            )
        if self.key:
            self._check_key(connection)

    def _check_key(self, connection: Connection) -> None:
        try:
            connection.execute(f"EXPLAIN {self.insert(self.key)}", [None] * len(self.key))
        except Exception as error:
            if "ON CONFLICT" not in str(error):
                raise
            raise ConfigError(
                f"table {self.name!r} has no unique index over the key {list(self.key)}, so rows "
                f"cannot be put in place of others: CREATE UNIQUE INDEX … ON {quoted(self.name)} "
                f"({_list(self.key)})"
            ) from error

    def insert(self, columns: Sequence[str], rows: int = 1) -> str:
        """Return the statement that takes so many rows."""
        row = f"({', '.join('?' * len(columns))})"
        text = f"INSERT INTO {quoted(self.name)} ({_list(columns)})"
        text += f" VALUES {', '.join([row] * rows)}"
        if not self.key:
            return text
        rest = [quoted(name) for name in columns if name not in self.key]
        set_rest = "UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in rest)
        return f"{text} ON CONFLICT ({_list(self.key)}) DO {set_rest if rest else 'NOTHING'}"

    def apply(
        self, connection: Connection, columns: Sequence[str], blocks: Iterable[bytes]
    ) -> None:
        """Write rows; `SinkError` names the first that the table does not take.

        Must be called within a transaction, which is to be undone after an error.
        """
        from sqlite3 import Error

        for block in blocks:
            rows = msgspec.msgpack.decode(block)
            connection.execute("SAVEPOINT block")
            try:
                self._insert(connection, columns, rows)
            except (Error, OverflowError) as error:
                # A trigger may have ended the transaction: then nothing may be tried any more.
                if not (_is_about_a_row(error) and connection.in_transaction):
                    raise
                connection.execute("ROLLBACK TO block")
                raise self._refusal(connection, columns, rows, error) from error
            connection.execute("RELEASE block")

    def _insert(self, connection: Connection, columns: Sequence[str], rows: list[Any]) -> None:
        """Write rows, many in a statement.

        Each statement lets go of the interpreter and must get it back from a busy event loop: with
        one for each row that is most of the time.
        """
        at_once = max(MOST_CELLS // len(columns), 1)
        whole = len(rows) - len(rows) % at_once
        connection.executemany(
            self.insert(columns, at_once),
            (
                list(chain.from_iterable(rows[start : start + at_once]))
                for start in range(0, whole, at_once)
            ),
        )
        connection.executemany(self.insert(columns), rows[whole:])

    def _refusal(
        self, connection: Connection, columns: Sequence[str], rows: list[Any], error: Exception
    ) -> SinkError:
        from sqlite3 import Error

        for row in rows:  # the library does not say which one it was
            try:
                connection.execute(self.insert(columns), row)
            except (Error, OverflowError) as own:
                shown = repr(dict(zip(columns, row, strict=True)))
                return SinkError(f"table {self.name!r} does not take the row {shown:.200}: {own}")
        return SinkError(f"table {self.name!r} does not take a row: {error}")


def read_mark(connection: Connection, sink: str, table: str) -> Mark | None:
    """Return what the database knows of a sink."""
    found = connection.execute(
        "SELECT life, owner, epoch FROM flowrt_commits WHERE sink = ? AND table_name = ?",
        (sink, table),
    ).fetchone()
    return None if found is None else Mark(*found)


def write_mark(connection: Connection, sink: str, table: str, mark: Mark) -> None:
    """Put a mark in place of the one before."""
    connection.execute(
        "INSERT OR REPLACE INTO flowrt_commits (sink, table_name, life, owner, epoch) "
        "VALUES (?, ?, ?, ?, ?)",
        (sink, table, *mark),
    )


def types_of(type: Any) -> dict[str, str]:
    """Return the columns of a dataclass or Struct with their SQL types.

    `ConfigError` for a type without fields, or a field that has no SQL type.
    """
    try:
        fields = getattr(msgspec.inspect.type_info(type), "fields", ())
    except TypeError:
        fields = ()
    if not fields:
        raise ConfigError(
            f"the columns of a table come from a dataclass, a Struct, names or names with types, "
            f"not from {type!r}"
        )
    return {field.name: _sql_type(type, field) for field in fields}


def _sql_type(type: Any, field: Any) -> str:
    info = field.type
    options = list(info.types) if isinstance(info, msgspec.inspect.UnionType) else [info]
    kinds = [kind for kind in options if not isinstance(kind, msgspec.inspect.NoneType)]
    name = _SQL_TYPES.get(kinds[0].__class__.__name__) if len(kinds) == 1 else None
    if name is None:
        raise ConfigError(
            f"field {field.name!r} of {type.__name__} has no SQL type of its own: give the sink "
            "columns={name: SQL type, …}"
        )
    return name if len(kinds) < len(options) else f"{name} NOT NULL"


_SQL_TYPES: Final = {
    "BoolType": "INTEGER",
    "BytesType": "BLOB",
    "DateTimeType": "TEXT",
    "DateType": "TEXT",
    "DecimalType": "TEXT",
    "FloatType": "REAL",
    "IntType": "INTEGER",
    "StrType": "TEXT",
    "TimeType": "TEXT",
    "UUIDType": "TEXT",
}


def in_blocks(rows: Iterable[bytes], block_bytes: int) -> Iterator[bytes]:
    """Join encoded rows to lists of about `block_bytes` each."""
    block: list[bytes] = []
    size = 0
    for row in rows:
        block.append(row)
        size += len(row)
        if size >= block_bytes:
            yield _joined(block)
            block, size = [], 0
    if block:
        yield _joined(block)


def _joined(rows: list[bytes]) -> bytes:
    # An array of 32 bits' length by the specification of MessagePack, then what is in it.
    return b"\xdd" + len(rows).to_bytes(4, "big") + b"".join(rows)


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))


def _is_about_a_row(error: Exception) -> bool:
    """Say whether the table refused a row: a constraint, a type, a size, a trigger."""
    return isinstance(error, OverflowError) or code_of(error) in (0, 1, 18, _CONSTRAINT, _MISMATCH)
