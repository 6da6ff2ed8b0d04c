"""A table or query of an SQLite database as a source: rows in the order of a growing column."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec

from flowrt.connectors.sqlite.database import Database, database_path
from flowrt.connectors.sqlite.order import Order, Place, Rows
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.source import Chunk, Position, Reader, Source, SourceContext, Split
from flowrt.contract.time import Duration, duration_ms
from flowrt.contract.waiting import sleep_ms
from flowrt.contract.world import Clock

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")
R = TypeVar("R")


class SqliteSource(Source[T], Generic[T]):
    """Reads the rows of a table, or of a `query`, in the order of a column that grows.

    Exactly once end to end, with a sink that allows it: a position is the last value of `column`
    (and the rowid, for rows with the same value), so reading again gives the same rows as long as
    rows are only added, and each behind those that are there. Rows that were read may be deleted.

    By the rowid (the default; an INTEGER PRIMARY KEY is the same) that is so: SQLite has one writer
    at a time, so what is committed later has a larger one. Except where the rows with the largest
    are deleted, which AUTOINCREMENT mends and which is else an `InputError` when it is noticed, and
    where ids are given by hand. A time that a writer notes before its turn comes may be committed
    behind a larger one; such a row is never read. So read by the rowid, and take the time as event
    time. In a query, a view or a table WITHOUT ROWID the column must be unique; without an index
    over it each chunk reads all there is.

    Rows are dicts, or of the given `type` (a dataclass, a Struct, a TypedDict). `follow` goes on
    when the rows end: it looks for more each `poll_interval`, and then the source never ends.
    Without it the source has ended then, also for a later start from the checkpoint.

    Where another file has taken the place of the database, the source goes on in that one behind
    its position: right for a copy that holds the same rows, and more. One that ends before the
    position, or has no such table or column, is an `InputError`.

    `ConfigError` where table or column do not exist; `InputError` where the database cannot be
    read, for a row that is not of the type, and for one whose column is NULL, as far as it is seen.
    """

    @overload
    def __init__(
        self: SqliteSource[dict[str, Any]],
        path: str | os.PathLike[str],
        table: str | None = None,
        *,
        query: str | None = None,
        column: str = "rowid",
        follow: bool = False,
        poll_interval: Duration = "1s",
        busy_timeout: Duration = "10s",
    ) -> None: ...
    @overload
    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str | None = None,
        *,
        type: type[T],
        query: str | None = None,
        column: str = "rowid",
        follow: bool = False,
        poll_interval: Duration = "1s",
        busy_timeout: Duration = "10s",
    ) -> None: ...
    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str | None = None,
        *,
        type: Any = None,
        query: str | None = None,
        column: str = "rowid",
        follow: bool = False,
        poll_interval: Duration = "1s",
        busy_timeout: Duration = "10s",
    ) -> None:
        if (table is None) == (query is None):
            raise ConfigError("SqliteSource reads a table or a query: pass one of them")
        if query is not None and column == "rowid":
            raise ConfigError("a query has no rowid: name its column that grows with column=")
        poll_ms = duration_ms(poll_interval)
        if poll_ms == 0:
            raise ConfigError("poll_interval must be at least 1ms")
        self._path = database_path(path)
        self._rows = Rows(self._path, table, query, column)
        self._how = _How(_checked(type), poll_ms if follow else None)
        self._busy_ms = duration_ms(busy_timeout)
        self.bounded = not follow

    def describe(self) -> str:
        """Return the place of the rows and their order."""
        followed = "" if self.bounded else ", followed"
        return f"sqlite {self._rows} by {self._rows.column}{followed}"

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the one split: the table's name, or "query"."""
        return [Split(self._rows.table or "query")]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Return a reader; a position is the column's last value, and the rowid where it helps."""
        who = f"source {ctx.operator!r}"
        database = Database(self._path, who, InputError, read_only=True, busy_ms=self._busy_ms)
        return _RowReader(database, self._rows, position, ctx.world.clock, self._how)


@dataclass(frozen=True, slots=True)
class _How:
    """How a source reads: of which type its rows are, and how often it looks for more."""

    type: Any
    follow_ms: int | None


class _RowReader(Generic[T]):
    """Reads on behind a position; opens the database with the first read."""

    def __init__(
        self, database: Database, rows: Rows, position: Position | None, clock: Clock, how: _How
    ) -> None:
        self._database = database
        self._rows = rows
        self._place: Place = position or []
        self._clock = clock
        self._how = how
        self._order: Order | None = None
        self._ordered: Connection | None = None

    async def read(self, limit: int) -> Chunk[T] | None:
        while True:
            rows, places = await self._run(lambda order: partial(order.read, self._place, limit))
            if rows:
                values = self._typed(rows, places)
                self._place = places[-1]
                return Chunk(values, places[-1])
            if self._place:
                await self._run(lambda order: partial(order.check_end, self._place))
            if self._how.follow_ms is None:
                return None
            await sleep_ms(self._clock, self._how.follow_ms)

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return await self._run(lambda order: partial(order.count, position or [])), "records"

    async def close(self) -> None:
        await self._database.aclose()

    async def _run(self, call: Callable[[Order], Callable[[Connection], R]]) -> R:
        """Do with the connection what `call` returns for the order of its rows."""
        return await self._database.run(
            lambda connection: call(self._order_in(connection))(connection)
        )

    def _order_in(self, connection: Connection) -> Order:
        """Return how to read the rows there: a new connection may be to another file."""
        if self._order is None or self._ordered is not connection:
            try:
                order = self._rows.order(connection)
            except ConfigError as error:
                if self._order is None:
                    raise
                raise InputError(f"{error}. It was there when the flow looked before") from error
            if self._place and len(order.by) != len(self._place):
                raise InputError(
                    f"{self._rows} has other keys than it had, so the position to go on from, "
                    f"{self._rows.column} {self._place[0]!r}, is none there: was it replaced, or "
                    "made anew? Start the flow from a new checkpoint folder"
                )
            self._order, self._ordered = order, connection
        return self._order

    def _typed(self, rows: list[dict[str, Any]], places: list[Place]) -> list[Any]:
        wanted: Any = self._how.type
        if wanted is None:
            return rows
        try:
            return msgspec.convert(rows, list[wanted], strict=False)
        except msgspec.ValidationError as error:
            for row, place in zip(rows, places, strict=True):
                try:
                    msgspec.convert(row, wanted, strict=False)
                except msgspec.ValidationError as own:
                    raise InputError(
                        f"{self._rows}: the row with {self._rows.column} {place[0]!r} does not fit "
                        f"the type {getattr(wanted, '__name__', wanted)}: {own}. The row: "
                        f"{row!r:.200}"
                    ) from own
            raise InputError(f"{self._rows}: {error}") from error


def _checked(type: Any) -> Any:
    if type is not None:
        try:
            has_fields = hasattr(msgspec.inspect.type_info(type), "fields")
        except TypeError as error:
            raise ConfigError(f"rows cannot be read as {type!r}: {error}") from error
        if not has_fields:
            raise ConfigError(
                f"a row is read as a dataclass, a Struct or a TypedDict, not as {type!r}"
            )
    return type
