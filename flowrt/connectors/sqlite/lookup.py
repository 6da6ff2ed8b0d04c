"""Looking rows up in an SQLite database, from inside a flow."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

import msgspec
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from flowrt.connectors.sqlite.database import Database, database_path
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.time import Duration, duration_ms

T = TypeVar("T")


class SqliteLookup(Generic[T]):
    """Finds a row by a query with placeholders: `await lookup(key)` is a row, or None.

    For a coroutine function in `map`. The values go where the query says `?`, in order. The row is
    the first found, as a dict or of the given `type` (a dataclass, a Struct, a TypedDict). The
    table is read as it is at that moment, so what a record finds may be another after a restart;
    where that must not be, read the table as a stream, or join one that stands still.

    Up to `connections` queries run at once, in worker threads; each connection only reads.
    `InputError` where the database cannot be read, the query fails, or a value is none that SQLite
    knows. `close`, or leaving `with`, closes what is open; a later call opens anew.

    Another file at the path, put there by rename, is read from the next call on.
    """

    @overload
    def __init__(
        self: SqliteLookup[dict[str, Any]],
        path: str | os.PathLike[str],
        query: str,
        *,
        connections: int = 4,
        busy_timeout: Duration = "10s",
    ) -> None: ...
    @overload
    def __init__(
        self,
        path: str | os.PathLike[str],
        query: str,
        *,
        type: type[T],
        connections: int = 4,
        busy_timeout: Duration = "10s",
    ) -> None: ...
    def __init__(
        self,
        path: str | os.PathLike[str],
        query: str,
        *,
        type: Any = None,
        connections: int = 4,
        busy_timeout: Duration = "10s",
    ) -> None:
        if connections < 1:
            raise ConfigError(f"connections must be at least 1, not {connections}")
        self._path = database_path(path)
        self._query = query
        self._type = type
        self._connections = connections
        self._busy_ms = duration_ms(busy_timeout)
        self._idle: list[Database] = []
        # For each event loop: one that ended must not hold up another.
        self._turns: RunVar[CapacityLimiter] = RunVar("flowrt_sqlite_lookup")

    async def __call__(self, *values: Any) -> T | None:
        """Return the first row that the query finds for these values; None where there is none."""
        turns = self._turns.get(None)
        if turns is None:
            turns = CapacityLimiter(self._connections)
            self._turns.set(turns)
        async with turns:
            database = self._idle.pop() if self._idle else self._database()
            try:
                row = await database.run(lambda connection: self._find(connection, values))
            finally:
                self._idle.append(database)
        found: T | None = self._typed(row)
        return found

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _database(self) -> Database:
        who = f"the lookup {self._query!r:.80}"
        return Database(self._path, who, InputError, read_only=True, busy_ms=self._busy_ms)

    def _find(self, connection: Any, values: tuple[Any, ...]) -> dict[str, Any] | None:
        try:
            cursor = connection.execute(self._query, values)
        except (OverflowError, ValueError) as error:  # beyond 64 bits; half a surrogate
            raise InputError(
                f"the lookup {self._query!r:.80} in {self._path} cannot look for "
                f"{values!r:.200}: {error}"
            ) from error
        row = cursor.fetchone()
        names = [column[0] for column in cursor.description or ()]
        cursor.close()  # else the read would go on, and old pages could not be let go of
        return None if row is None else dict(zip(names, row, strict=True))

    def _typed(self, row: dict[str, Any] | None) -> Any:
        if row is None or self._type is None:
            return row
        try:
            return msgspec.convert(row, self._type, strict=False)
        except msgspec.ValidationError as error:
            raise InputError(
                f"the lookup {self._query!r:.80} in {self._path} found a row that does not fit "
                f"the type {getattr(self._type, '__name__', self._type)}: {error}. The row: "
                f"{row!r:.200}"
            ) from error
