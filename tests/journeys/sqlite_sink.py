"""A deciding sink on SQLite: one transaction holds an epoch's rows and its number.

The transaction is open while the epoch runs and dies with its connection, so that nobody can finish
it after a crash: its commit is the commit point.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flowrt import Sink, SinkContext, SinkError, Writer
from flowrt.contract.sink import Committable

SCHEMA = """
create table if not exists results (epoch integer, word text, count integer);
create table if not exists epochs (operator text primary key, epoch integer, generation integer);
"""


class SqliteSink(Sink[tuple[str, int]]):
    """Writes rows (word, count) of all subtasks through one connection.

    `hook(step)` is called around the commit: what a test does there is its own affair.
    """

    kind = "deciding"

    def __init__(self, path: Path, hook: Callable[[str], None] = lambda step: None) -> None:
        self._path = path
        self._hook = hook
        self._connection: sqlite3.Connection | None = None
        self._context: SinkContext | None = None

    async def last_committed(self, ctx: SinkContext) -> int | None:
        self._context = ctx
        connection = self._open()
        # Whoever has an older generation finds the row changed and cannot commit any more.
        connection.execute("begin immediate")
        known = connection.execute(
            "select epoch, generation from epochs where operator = ?", (ctx.operator,)
        ).fetchone()
        epoch, generation = known or (None, 0)
        if generation > ctx.generation:
            connection.execute("rollback")
            raise SinkError(f"a newer instance (generation {generation}) writes to {self._path}")
        connection.execute(
            "insert or replace into epochs values (?, ?, ?)", (ctx.operator, epoch, ctx.generation)
        )
        connection.execute("commit")
        return None if epoch is None else int(epoch)

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        return _SqliteWriter(self._open())

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        connection, context = self._open(), self._context
        assert context is not None
        if not connection.in_transaction:
            connection.execute("begin immediate")
        connection.execute("update results set epoch = ? where epoch is null", (epoch,))
        mine = connection.execute(
            "update epochs set epoch = ? where operator = ? and generation = ?",
            (epoch, context.operator, context.generation),
        )
        if mine.rowcount != 1:
            connection.execute("rollback")
            raise SinkError(f"a newer instance writes to {self._path}: this one must stop")
        self._hook("before commit")
        connection.execute("commit")
        self._hook("after commit")

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()  # an open transaction is rolled back
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
            self._connection.executescript(SCHEMA)
        return self._connection


class _SqliteWriter:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows: list[tuple[str, int]] = []

    async def write(
        self, values: Sequence[tuple[str, int]], timestamps: Sequence[int | None] | None
    ) -> None:
        self._rows += values

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        # Only what is written between two barriers may be in the transaction when it commits, and
        # the next epoch's rows come after the commit of this one.
        if not self._connection.in_transaction:
            self._connection.execute("begin immediate")
        self._connection.executemany("insert into results values (null, ?, ?)", self._rows)
        self._rows = []
        return None

    async def close(self) -> None:
        self._rows = []


def rows_in(path: Path) -> list[tuple[str, int]]:
    """Return the committed rows, in the order of their epochs."""
    with sqlite3.connect(path, isolation_level=None) as connection:
        rows = connection.execute("select word, count from results order by epoch, rowid")
        found = rows.fetchall()
    connection.close()
    return found


def last_epoch_in(path: Path) -> int | None:
    """Return the last epoch that was committed."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        found = connection.execute("select epoch from epochs").fetchone()
        return None if found is None else found[0]
    finally:
        connection.close()
