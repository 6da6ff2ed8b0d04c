"""A table of an SQLite database as a sink: an epoch's rows and its mark in one transaction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import anyio
import msgspec

from flowrt.connectors.sizes import size_bytes
from flowrt.connectors.sqlite.commits import Commits, Prepared
from flowrt.connectors.sqlite.database import Database, database_path, quoted
from flowrt.connectors.sqlite.rows import FLOAT, RowMaker
from flowrt.connectors.sqlite.table import Table, in_blocks, types_of
from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.sink import Committable, Sink, SinkContext, Writer
from flowrt.contract.time import Duration, duration_ms

BLOCK_BYTES: Final = 256 * 1024
"""Rows are decoded by so much at a time: a worker thread that decodes holds up the event loop."""
ROW_BYTES: Final = 50
"""What a row that is held takes beside its own bytes, about."""


class SqliteSink(Sink[Any]):
    """Writes rows to a table of an SQLite database: adds them, or with a key puts them in place.

    Exactly once: an epoch's rows are kept in the snapshot, and written when the epoch is committed,
    in one transaction with a mark that says so (in the table `flowrt_commits`), which can be done
    again with one effect. Readers see whole epochs. At the end of each epoch its rows are tried out
    and taken back, so that a row which the table does not take (`SinkError`, with the row) fails
    the flow before the epoch is decided. Should a decided epoch fail all the same, because somebody
    else wrote in between or two subtasks contradict each other, nothing is lost: mend the table and
    start again, and the commit comes again.

    A row is a dict, a dataclass, a Struct or a tuple, all with the same columns: those given, else
    those of the first row. `columns` are names, names with their SQL types, or a dataclass or
    Struct; with types the table is created where it is missing. `mode="upsert"` writes the last row
    of each `key` (a column or several, with a unique index), `mode="append"` every row, in order.

    The rows of an open epoch are held in memory: while the epoch before is being committed, up to
    half of `max_epoch_bytes`, and then writes wait. Without such an end in sight they cannot wait,
    for the epoch ends behind them: more than `max_epoch_bytes` is a `SinkError`.

    The database is switched to WAL mode, and each commit is synced. One that is locked by others is
    waited for, `busy_timeout` long. `SinkError` where the database is not the one that the
    checkpoint knows; where the flow starts from nothing and rows of an earlier life are in the
    table; and where it goes back behind rows that are there (the last two only when appending).

    At the end of each epoch, and before and after each commit, it is looked whether the database
    and its log are still the files that were opened: one that was deleted, moved, or replaced by
    another is a `SinkError`. The epoch does not count as committed in this sink then, and its rows
    are in the checkpoint.

    SQLite has no form for the float nan and would make it NULL: it is a `SinkError`, or NULL with
    `allow_nan`.
    """

    kind = "repeatable"

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str,
        *,
        mode: Literal["append", "upsert"] = "append",
        key: str | Sequence[str] = (),
        columns: Sequence[str] | Mapping[str, str] | type | None = None,
        max_epoch_bytes: int | str = "64MB",
        busy_timeout: Duration = "10s",
        allow_nan: bool = False,
    ) -> None:
        if mode not in ("append", "upsert"):
            raise ConfigError(f'the mode is "append" or "upsert", not {mode!r}')
        if (mode == "upsert") != bool(key):
            raise ConfigError(
                f"mode={mode!r} with key={key!r}: a key is for upserts, and they need one"
            )
        self._path = database_path(path)
        self._table = _table(table, [key] if isinstance(key, str) and key else list(key), columns)
        self._max_bytes = size_bytes(max_epoch_bytes)
        self._busy_ms = duration_ms(busy_timeout)
        self._allow_nan = allow_nan
        self._operator = ""
        self._database: Database | None = None
        self._commits: Commits | None = None
        self._held = Held(self._max_bytes)

    def describe(self) -> str:
        """Return the mode and place of the table."""
        mode = f"upsert by {', '.join(self._table.key)}" if self._table.key else "append"
        return f"sqlite {self._path}, table {self._table.name} ({mode})"

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        """See `Sink.recover`."""
        await self.close()
        self._operator = ctx.operator
        who = f"sink {ctx.operator!r}"
        left_log = None if self._database is None else self._database.left_log
        self._database = Database(
            self._path, who, SinkError, busy_ms=self._busy_ms, left_log=left_log
        )
        self._commits = Commits(self._database, self._table, ctx.operator)
        self._held = Held(self._max_bytes)
        tokens = ctx.world.randomness.token(), ctx.world.randomness.token()
        await self._commits.recover(epoch, _decode(committables), tokens)

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        """Return a writer for one subtask."""
        where = f"sink {ctx.operator!r}, table {self._table.name!r}"
        maker = RowMaker(where, self._table.columns, allow_nan=self._allow_nan)
        return _RowWriter(ctx, self._table, self._open(), self._held, maker)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """See `Sink.commit`: the rows appear, with the mark."""
        prepared = [one for one in _decode(committables) if one.blocks]
        if prepared:
            await self._open().commit(epoch, prepared)
        else:
            await self._open().check()
        self._held.committed(epoch)

    async def close(self) -> None:
        """Close the connection."""
        commits, self._commits = self._commits, None
        if commits is not None:
            await commits.close()

    def _open(self) -> Commits:
        if self._commits is None:
            raise SinkError(f"sink {self._operator!r} is closed")
        return self._commits


class Held:
    """What the writers of a sink hold of the open epoch, and when they must wait."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._committed = 0
        self._news = anyio.Event()

    async def wait_for_room(self, prepared: int) -> None:
        """Wait while much is held and the epoch that the caller has prepared is not committed.

        Who has prepared it holds up nobody that has not: all before it have sent the barrier on.
        """
        while self.bytes * 2 >= self.max_bytes and prepared > self._committed:
            await self._news.wait()

    def committed(self, epoch: int) -> None:
        """Hear that an epoch is committed."""
        self._committed = epoch
        self._news.set()
        self._news = anyio.Event()


class _RowWriter:
    """Keeps the rows of an epoch, encoded; for upserts the last of each key."""

    def __init__(
        self, ctx: SinkContext, table: Table, commits: Commits, held: Held, maker: RowMaker
    ) -> None:
        self._table = table
        self._commits = commits
        self._held = held
        self._subtask = ctx.subtask
        self._who = f"sink {ctx.operator!r}, table {table.name!r}"
        self._maker = maker
        self._encode = msgspec.msgpack.Encoder().encode
        self._rows: list[bytes] = []
        self._by_key: dict[bytes, bytes] = {}
        self._key: list[int] = []
        self._bytes = 0
        self._prepared = 0

    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        await self._held.wait_for_room(self._prepared)
        before = self._bytes
        for value in values:
            row = self._maker.row(value)
            try:
                encoded = self._encode(row)
            except (ValueError, OverflowError) as error:  # half a surrogate, a huge number
                raise SinkError(f"{self._who} cannot take {value!r:.200}: {error}") from error
            if FLOAT in encoded:
                self._maker.check_nan(encoded, row, value)
            if self._table.key:
                self._put(row, encoded)
            else:
                self._rows.append(encoded)
                self._bytes += len(encoded) + ROW_BYTES
        self._held.bytes += self._bytes - before
        if self._held.bytes > self._held.max_bytes:
            raise SinkError(
                f"{self._who}: the rows of one epoch take more than max_epoch_bytes="
                f"{self._held.max_bytes}, and all are kept in memory and in the snapshot until it "
                "ends. Make epochs shorter (epoch_interval), read slower (max_rate), or allow more"
            )

    def _put(self, row: Sequence[Any], encoded: bytes) -> None:
        if not self._key:
            self._key = self._places()
        cells = [row[place] for place in self._key]
        if None in cells:
            raise SinkError(
                f"{self._who}: the key {list(self._table.key)} of {row!r:.200} is NULL, and "
                "SQL takes no NULL for another: give each row a key, or leave it out"
            )
        key = self._encode(cells)
        # Taken out first: the last row of a key comes last also where SQL thinks more keys equal.
        old = self._by_key.pop(key, None)
        self._bytes += len(encoded) - len(old) if old is not None else len(encoded) + ROW_BYTES
        self._by_key[key] = encoded

    def _places(self) -> list[int]:
        columns = self._maker.columns or []
        missing = [name for name in self._table.key if name not in columns]
        if missing:
            raise SinkError(
                f"{self._who}: rows have no {', '.join(map(repr, missing))}, which is in the key; "
                f"they have {columns}"
            )
        return [columns.index(name) for name in self._table.key]

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        rows = self._rows or list(self._by_key.values())
        mark = self._commits.mark
        blocks = list(in_blocks(rows, BLOCK_BYTES))
        columns = self._maker.columns or []
        prepared = Prepared(self._subtask, mark.life, mark.epoch, columns, blocks)
        if blocks:
            await self._commits.try_out(prepared)
        self._rows, self._by_key = [], {}
        self._held.bytes -= self._bytes
        self._bytes = 0
        self._prepared = epoch
        return msgspec.to_builtins(prepared, builtin_types=(bytes,))

    async def close(self) -> None:
        return None


def _table(
    name: str, key: list[str], columns: Sequence[str] | Mapping[str, str] | type | None
) -> Table:
    types = columns if isinstance(columns, Mapping) else {}
    if isinstance(columns, type):
        types = types_of(columns)
    names = list(types) if types or isinstance(columns, (Mapping, type)) else columns
    if names is not None and (not names or isinstance(names, str)):
        raise ConfigError(f"columns names the columns of table {name!r}, not {columns!r}")
    for one in (name, *(names or ()), *key):
        quoted(one)
    missing = [one for one in key if names is not None and one not in names]
    if missing:
        raise ConfigError(f"the key {key} is not among the columns {list(names or ())}")
    return Table(name, key, names, types)


def _decode(committables: Sequence[Committable]) -> list[Prepared]:
    return msgspec.convert(list(committables), list[Prepared])
