"""The rows of an SQLite table or query in the order of a column, from any position on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from flowrt.connectors.sqlite.database import quoted
from flowrt.contract.errors import ConfigError, InputError

if TYPE_CHECKING:
    from sqlite3 import Connection

Place: TypeAlias = list[Any]
"""A position: the value of the column in the last row read, and that row's rowid where it has one.

[] is the place before the first row.
"""

LAG_ROWS: Final = 1_000_000
"""Rows are counted up to here: to count more would take long."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of a database: of a table or a query, in the order of which column."""

    path: str
    table: str | None
    query: str | None
    column: str

    def __str__(self) -> str:
        return f"{'the query' if self.table is None else f'table {self.table!r}'} in {self.path}"

    def order(self, connection: Connection) -> Order:
        """Find out how to read them; `ConfigError` where there is no such table or column."""
        if self.table is not None and not _has(connection, "name = ?", self.table):
            raise ConfigError(f"there is no {self}")
        own = f"q.{quoted(self.column)}"
        with_rowid = (own, "q.rowid")
        is_rowid = self._is_rowid(connection)
        if self.table is not None and not is_rowid and self._fits(connection, with_rowid):
            return Order(self, with_rowid, None)
        problem = self._problem(connection, (own,))
        if problem is not None:
            advice = ": name its column that grows with column=" if self.column == "rowid" else ""
            raise ConfigError(f"{self} cannot be read by {self.column!r} ({problem}){advice}")
        ends_with = "name = ? AND sql LIKE '%AUTOINCREMENT%'"
        kept = is_rowid and _has(connection, ends_with, self.table)
        return Order(self, (own,), self.table if kept else None)

    def _is_rowid(self, connection: Connection) -> bool:
        if self.table is None or self.column == "rowid":
            return self.table is not None
        columns = connection.execute(f"PRAGMA table_info({quoted(self.table)})").fetchall()
        keys = [(name, type.upper()) for _, name, type, _, _, place in columns if place]
        return keys == [(self.column, "INTEGER")]

    def _fits(self, connection: Connection, by: tuple[str, ...]) -> bool:
        return self._problem(connection, by) is None

    def _problem(self, connection: Connection, by: tuple[str, ...]) -> Exception | None:
        from sqlite3 import OperationalError

        try:
            connection.execute(f"EXPLAIN SELECT {', '.join(by)}, q.* FROM {self.sql} AS q")
        except OperationalError as error:
            return error
        return None

    @property
    def sql(self) -> str:
        """What stands behind FROM."""
        return f"({self.query})" if self.table is None else quoted(self.table)


@dataclass(frozen=True, slots=True)
class Order:
    """How to read rows behind a place. `by` are the columns of a place, as SQL.

    `sequence` is the table's name where SQLite itself remembers the largest rowid there ever was.
    """

    rows: Rows
    by: tuple[str, ...]
    sequence: str | None

    def read(
        self, place: Place, limit: int, connection: Connection
    ) -> tuple[list[dict[str, Any]], list[Place]]:
        """Return up to `limit` rows that follow, and the place behind each."""
        by = ", ".join(self.by)
        cursor = connection.execute(
            f"SELECT {by}, q.* FROM {self.rows.sql} AS q {self._behind(place)} "
            f"ORDER BY {by} LIMIT ?",
            (*place, limit + 1),
        )
        names = [column[0] for column in cursor.description][len(self.by) :]
        found = cursor.fetchall()
        places = [list(row[: len(self.by)]) for row in found]
        self._check(place, places)
        del found[limit:], places[limit:]
        skip = len(self.by)
        return [dict(zip(names, row[skip:], strict=True)) for row in found], places

    def count(self, place: Place, connection: Connection) -> int:
        """Return how many rows follow, up to `LAG_ROWS`."""
        ((count,),) = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {self.rows.sql} AS q {self._behind(place)} "
            f"LIMIT {LAG_ROWS})",
            tuple(place),
        )
        return int(count)

    def check_end(self, place: Place, connection: Connection) -> None:
        """Raise `InputError` where rows end before a place: new ones would not be seen."""
        largest, table = f"max({self.by[0]})", f"{self.rows.sql} AS q"
        if self.sequence is not None:
            largest, table = "max(q.seq)", "(SELECT * FROM sqlite_sequence WHERE name = ?) AS q"
        given = (place[0], *([self.sequence] if self.sequence is not None else []))
        ((before,),) = connection.execute(f"SELECT {largest} < ? FROM {table}", given)
        if before:
            raise InputError(
                f"{self.rows} ends before the position to go on from, {self.rows.column} "
                f"{place[0]!r}: was it replaced, or were its last rows deleted? Rows to come would "
                "not be seen. Start the flow from a new checkpoint folder; for ids that are never "
                "given twice, declare the column INTEGER PRIMARY KEY AUTOINCREMENT"
            )

    def _behind(self, place: Place) -> str:
        if not place:
            return ""
        return f"WHERE ({', '.join(self.by)}) > ({', '.join('?' * len(self.by))})"

    def _check(self, place: Place, places: list[Any]) -> None:
        """Raise `InputError` where a row has no place of its own."""
        if not place and places and places[0][0] is None:
            raise InputError(
                f"{self.rows} has a row whose {self.rows.column!r} is NULL: it has no place in the "
                "order. Give it a value, or read by another column"
            )
        for one, next in pairwise(places):
            if one == next:
                raise InputError(
                    f"{self.rows} has two rows with {self.rows.column} {one[0]!r}, and nothing "
                    "says in which order: read by a column that is unique"
                )


def _has(connection: Connection, condition: str, *given: Any) -> bool:
    found = connection.execute(
        f"SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND {condition}", given
    )
    return found.fetchone() is not None
