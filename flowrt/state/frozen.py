"""The state of one operator subtask as it was at a barrier, to be encoded beside the stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import Block
from flowrt.state.blocks import SLICE_NS, BlockWriter
from flowrt.state.nested import ListTable, MapTable
from flowrt.state.table import ValueTable

AnyTable: TypeAlias = ValueTable | MapTable | ListTable


class FrozenState:
    """See `flowrt.contract.snapshot.Frozen`."""

    def __init__(
        self,
        tables: Mapping[str, AnyTable],
        changed: Sequence[str],
        waiting: Mapping[str, Sequence[Block]],
        *,
        is_anew: bool = False,
    ) -> None:
        self._tables = tables
        self._changed = changed
        self._waiting = waiting
        # As they are now: once declared they are no longer there, nor in any table that is frozen.
        self._undeclared = [b for blocks in waiting.values() for b in blocks] if is_anew else []
        self._is_anew = is_anew
        self._is_begun = False
        self.is_encoded = False
        self.is_whole = False

    def encode(self) -> Iterator[list[Block]]:
        """See `Frozen.encode`; `StateError` when called twice, or for what cannot be encoded."""
        if self._is_begun:
            raise StateError("a frozen state can be encoded only once")
        self._is_begun = True
        return self._slices()

    def _slices(self) -> Iterator[list[Block]]:
        blocks: list[Block] = []
        spent = 0
        for cost in self._write(blocks):
            spent += cost
            if spent >= SLICE_NS:
                spent = 0
                yield []
        self.is_encoded = True
        tables = self._tables.values()
        self.is_whole = not self._waiting and all(table.is_whole for table in tables)
        if self._is_anew:
            # The tables are written from nothing; what nothing has declared yet goes with them.
            self.is_whole = True
            blocks += self._undeclared
        yield blocks

    def _write(self, blocks: list[Block]) -> Iterator[int]:
        for name in self._changed:
            table = self._tables[name]
            writer = BlockWriter(name, table.kind)
            yield from table.write_frozen(writer)
            for block in writer.finish():
                blocks.append(block)
                yield len(block.data)
