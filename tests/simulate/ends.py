"""The two ends of a simulated flow: a source that keeps its records, tables that outlive processes.

All of them are outside the process that reads and writes them: they go through `Process.touch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flowrt import Sink, SinkContext, SinkError, Source, SourceContext, Split, Writer
from flowrt.contract.sink import Committable, SinkKind
from flowrt.contract.source import Chunk, Position, Reader
from flowrt.contract.time import WatermarkStrategy
from flowrt.contract.waiting import sleep_ms
from tests.simulate.machine import Process


class ViolationError(AssertionError):
    """flowrt did what its contracts forbid."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """A record of a simulated source; `copy` tells apart what a step made of it."""

    split: str
    number: int
    key: int
    at: int
    copy: int = 0


# ------------------------------------------------------------------------------------------ source


@dataclass
class Shelf:
    """What a source keeps: its records by split, and how far it was told that they are done with.

    `splits` never change. `told` is the largest position of each split that was committed.
    """

    name: str
    splits: Mapping[str, Sequence[Event]]
    told: dict[str, int] = field(default_factory=dict)


class ShelfSource(Source[Event]):
    """Reads a shelf in chunks of any size, at any pace."""

    def __init__(
        self, shelf: Shelf, process: Process, watermarks: WatermarkStrategy[Any], open_splits: int
    ) -> None:
        self.watermarks = watermarks
        self.max_open_splits = open_splits
        self._shelf = shelf
        self._process = process

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        async def splits() -> list[Split]:
            return [Split(id) for id in self._shelf.splits]

        return await self._process.touch("list", self._shelf.name, splits)

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[Event]:
        self._process.machine.note(f"{self._process.number} reads {split.id} from {position}")
        return _ShelfReader(self._shelf.splits[split.id], position or 0, self._process)

    async def committed(self, epoch: int, positions: Mapping[str, Position]) -> None:
        async def told() -> None:
            for split, position in positions.items():
                self._shelf.told[split] = max(position or 0, self._shelf.told.get(split, 0))

        await self._process.touch("told", f"{self._shelf.name} {epoch} {dict(positions)}", told)


class _ShelfReader:
    def __init__(self, events: Sequence[Event], position: int, process: Process) -> None:
        self._events = events
        self._position = position
        self._process = process

    async def read(self, limit: int) -> Chunk[Event] | None:
        chance = self._process.chance
        await sleep_ms(self._process.machine.clock, chance.choice([0, 1, 5, 20, 60]))
        if self._position >= len(self._events):
            return None
        size = min(limit, chance.choice([0, 1, 1, 2, 4, 10]))
        values = list(self._events[self._position : self._position + size])
        self._position += len(values)
        return Chunk(values, self._position)

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return len(self._events) - (position or 0), "records"

    async def close(self) -> None:
        pass


# ------------------------------------------------------------------------------------------ tables


@dataclass
class Table:
    """Rows of one sink in a database: committed by epoch, or prepared and waiting."""

    name: str
    rows: dict[int, list[Any]] = field(default_factory=dict)
    prepared: dict[int, list[Any]] = field(default_factory=dict)
    tokens: int = 0
    session: int = 0

    @property
    def last_epoch(self) -> int | None:
        return max(self.rows, default=None)

    def everything(self) -> list[Any]:
        """Return all committed rows, in the order of their epochs."""
        return [row for epoch in sorted(self.rows) for row in self.rows[epoch]]


class TableSink(Sink[Any]):
    """Writes to a table.

    Prepared rows wait in the database (repeatable), or in the process's own transaction, which dies
    with it (deciding), or nothing waits (direct).
    """

    def __init__(self, table: Table, process: Process, kind: SinkKind) -> None:
        self.kind = kind
        self.table = table
        self.process = process
        self._session = 0
        self._transaction: dict[int, list[Any]] = {}

    async def last_committed(self, ctx: SinkContext) -> int | None:
        async def last_committed() -> int | None:
            self.table.session += 1
            self._session = self.table.session
            return self.table.last_epoch

        return await self.process.touch("begin session", self.table.name, last_committed)

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        self._transaction = {}

        async def recover() -> None:
            if self.kind == "repeatable":
                self._recover(epoch, committables)
            elif self.kind == "deciding" and epoch != self.table.last_epoch:
                raise ViolationError(
                    f"{self.table.name} committed {self.table.last_epoch}, but {epoch} is restored"
                )

        await self.process.touch("recover", f"{self.table.name} {epoch}", recover)

    def _recover(self, epoch: int | None, tokens: Sequence[int]) -> None:
        table = self.table
        if epoch is None and table.rows:
            raise ViolationError(f"{table.name} has rows, but the job starts from nothing")
        if epoch is not None:
            self._show(epoch, tokens)
        table.rows = {shown: rows for shown, rows in table.rows.items() if shown <= (epoch or 0)}
        table.prepared = {}

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        return _TableWriter(self)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        async def commit() -> None:
            if self.kind == "deciding":
                self._commit_transaction(epoch)
            elif self.kind == "repeatable":
                self._show(epoch, committables)

        await self.process.touch("commit", f"{self.table.name} {epoch}", commit)

    def _show(self, epoch: int, tokens: Sequence[int]) -> None:
        table = self.table
        if epoch in table.rows:
            return
        lost = [token for token in tokens if token not in table.prepared]
        if lost:
            raise SinkError(f"{table.name}: {len(lost)} parts of epoch {epoch} were rolled back")
        table.rows[epoch] = [row for token in tokens for row in table.prepared.pop(token)]

    def _commit_transaction(self, epoch: int) -> None:
        if self._session != self.table.session:
            raise SinkError(f"{self.table.name}: a newer instance began a session")
        if epoch not in self.table.rows:
            self.table.rows[epoch] = self._transaction.pop(epoch, [])

    # ------------------------------------------------------------------------------ for the writers

    async def prepare(self, epoch: int, rows: list[Any]) -> Committable | None:
        async def prepare() -> int | None:
            if self.kind == "deciding":
                self._transaction.setdefault(epoch, []).extend(rows)
                return None
            self.table.tokens += 1
            self.table.prepared[self.table.tokens] = rows
            return self.table.tokens

        if self.kind == "direct" or not rows:
            return None
        return await self.process.touch("prepare", f"{self.table.name} {epoch}", prepare)


class _TableWriter:
    def __init__(self, sink: TableSink) -> None:
        self._sink = sink
        self._rows: list[Any] = []

    async def write(self, values: Sequence[Any], timestamps: object) -> None:
        async def show() -> None:
            self._sink.table.rows.setdefault(0, []).extend(values)

        if self._sink.kind == "direct":
            await self._sink.process.touch("write rows", self._sink.table.name, show)
        else:
            self._rows += values

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        rows, self._rows = self._rows, []
        return await self._sink.prepare(epoch, rows)

    async def close(self) -> None:
        pass
