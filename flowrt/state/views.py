"""Reading a state from outside its operator: any key, no current one, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from flowrt.contract.entries import BATCH, OPERATION, batch_size, frames, kind_of, read_batch
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import AggregatingState, StateSpec
from flowrt.state.ageing import AgeingLists, AgeingTable, AgeingValues
from flowrt.state.keys import encode_key
from flowrt.state.nested import ListTable, MapTable
from flowrt.state.table import ValueTable

PIECE: Final = 512
"""How many entries are looked at without a pause: some tenths of a millisecond of work."""


class StateView:
    """One state of one operator subtask: what its operator would get, for any key."""

    __slots__ = ("_result", "_table")

    def __init__(
        self, table: ValueTable | MapTable | ListTable | AgeingTable, spec: StateSpec[Any]
    ) -> None:
        self._table = table
        self._result = spec.result if isinstance(spec, AggregatingState) else None

    def get(self, key: Any) -> Any:
        """Return what a key has, as a value of the caller's own; MISSING where it has nothing.

        A list state gives a list, a map state a dict, an aggregating state its result.
        """
        table = self._table
        if isinstance(table, ValueTable | AgeingValues):
            value = table.get(key)
            return value if value is MISSING or self._result is None else self._result(value)
        unseal = table.sealer.unseal
        if isinstance(table, ListTable | AgeingLists):
            return [unseal(stored) for stored in table.elements(key)] or MISSING
        return {name: unseal(stored) for name, stored in table.entries(key).items()} or MISSING

    def key_lists(self) -> Iterator[list[Any]]:
        """Iterate over all keys, a list at a time; the state may change between two lists.

        A key that has a value all the time comes exactly once. One that comes or goes meanwhile may
        be left out, or have nothing any more.
        """
        return self._table.key_lists()


def in_pieces(block: Block) -> Iterator[Block]:
    """Cut a block into small ones, to be loaded one after the other."""
    data, head = block.data, block.data[:1]
    start, end, entries = 1, 1, 0
    for _, operation, key_at, name_at, _, end in frames(block):
        is_batch = operation & OPERATION == BATCH
        entries += batch_size(data[key_at:name_at]) if is_batch else 1
        if entries >= PIECE:
            yield Block(block.state, block.group, entries, head + data[start:end])
            start, entries = end, 0
    if entries:
        yield Block(block.state, block.group, entries, head + data[start:end])


def of_key(block: Block, key: Any) -> Iterator[Block | None]:
    """Take the entries of one key from a block: None after each piece of work, then they.

    A batch is taken whole. `Unfit` for what can be no key.
    """
    identity, _ = encode_key(key)
    data, found, entries = block.data, bytearray((kind_of(block),)), 0
    work = 0
    for start, head, key_at, name_at, value_at, end in frames(block):
        if head & OPERATION == BATCH:
            values = read_batch(block, data[key_at:name_at], data[value_at:end])
            size = len(values) if key in values else 0
            work += PIECE // 4
        else:
            size = int(data[key_at:name_at] == identity)
            work += 1
        if size:
            found += data[start:end]
            entries += size
        if work >= PIECE:
            work = 0
            yield None
    yield Block(block.state, block.group, entries, bytes(found))
