"""Keyed state in memory, with snapshots of what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from flowrt.contract.entries import KINDS, LIST, MAP, VALUE
from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import Block, HasKey
from flowrt.contract.state import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    StateSpec,
    ValueState,
)
from flowrt.state.blocks import SLICE_NS, BlockWriter, Place
from flowrt.state.classes import Unfit
from flowrt.state.codec import codec_for
from flowrt.state.handles import (
    AggregatingOfKey,
    CurrentKey,
    ListOfKey,
    MapOfKey,
    ReducingOfKey,
    ValueOfKey,
)
from flowrt.state.keys import encode_key
from flowrt.state.nested import ListTable, MapTable
from flowrt.state.sealer import Sealer
from flowrt.state.table import ValueTable

AnyTable: TypeAlias = ValueTable | MapTable | ListTable


class MemoryBackend:
    """See `flowrt.contract.snapshot.KeyedBackend`. `operator` is its id, for messages."""

    def __init__(self, operator: str) -> None:
        self._operator = operator
        self._tables: dict[str, AnyTable] = {}
        self._types: dict[str, Any] = {}
        self._specs: dict[str, StateSpec[Any]] = {}
        self._handles: dict[tuple[str, int], tuple[HasKey, Any]] = {}
        self._waiting: dict[str, list[Block]] = {}
        self._frozen: FrozenState | None = None

    def handle(self, spec: StateSpec[Any], scope: HasKey) -> Any:
        """See `KeyedBackend.handle`."""
        known = self._specs.get(spec.name)
        if known is None:
            handle = self._bind(spec, scope)
            self._specs[spec.name] = spec
        elif known is not spec and not _are_alike(known, spec):
            raise self._place(spec.name).error(
                f"it is declared twice: as {_text(known)} and as {_text(spec)}; "
                "give one of them another name"
            )
        else:
            _, handle = self._handles.get((spec.name, id(scope)), (None, None))
            handle = handle or self._bind(known, scope)
        # With the scope, so that its id is not given to another one.
        self._handles[spec.name, id(scope)] = (scope, handle)
        return handle

    def table(self, name: str, type: Any) -> ValueTable:
        """See `KeyedBackend.table`."""
        table = self._table(VALUE, name, type)
        assert isinstance(table, ValueTable)
        return table

    def freeze(self) -> FrozenState | None:
        """See `KeyedBackend.freeze`; `StateError` where the last is not encoded to its end."""
        if self._frozen is not None and not self._frozen.is_encoded:
            raise StateError(
                f"operator {self._operator!r}: its state is frozen for the next epoch while that "
                "of the epoch before is still being encoded; epochs must not overlap"
            )
        changed = [name for name, table in self._tables.items() if table.freeze()]
        self._frozen = FrozenState(self._tables, changed, self._waiting) if changed else None
        return self._frozen

    def load(self, blocks: Iterable[Block]) -> None:
        """See `KeyedBackend.load`; `StateError` for what does not fit a declared state."""
        for block in blocks:
            table = self._tables.get(block.state)
            if table is None:
                self._waiting.setdefault(block.state, []).append(block)
            else:
                self._load(table, block)

    def undeclared(self) -> list[str]:
        """See `KeyedBackend.undeclared`."""
        return sorted(self._waiting)

    def map_entries(self, name: str) -> Iterator[tuple[Any, Any, Any]]:
        """See `KeyedBackend.map_entries`."""
        table = self._tables.get(name)
        if not isinstance(table, MapTable):
            raise self._place(name).error("no map of that name is declared")
        entries = list(table.all_entries())
        entries.sort(key=lambda entry: (encode_key(entry[0])[0], encode_key(entry[1])[0]))
        return iter(entries)

    def size(self) -> int:
        """See `KeyedBackend.size`; restored states that nothing has declared count too."""
        waiting = sum(block.entries for blocks in self._waiting.values() for block in blocks)
        return waiting + sum(table.size() for table in self._tables.values())

    def _bind(self, spec: StateSpec[Any], scope: HasKey) -> Any:
        place = self._place(spec.name)
        key = CurrentKey(scope, place)
        match spec:
            case ValueState():
                return ValueOfKey(self.table(spec.name, spec.type), key, spec)
            case ReducingState():
                return ReducingOfKey(self.table(spec.name, spec.type), key, spec)
            case AggregatingState():
                return AggregatingOfKey(self.table(spec.name, spec.type), key, spec)
            case ListState():
                lists = self._table(LIST, spec.name, spec.type)
                assert isinstance(lists, ListTable)
                return ListOfKey(lists, key)
            case MapState():
                maps = self._table(MAP, spec.name, spec.type)
                assert isinstance(maps, MapTable)
                return MapOfKey(maps, key, place, spec)
        raise place.error(f"{_text(spec)} is no kind of state that this backend knows")

    def _table(self, kind: int, name: str, declared: Any) -> AnyTable:
        place = self._place(name)
        if not name:
            raise place.error("a state has no name: pass name=, or make it an attribute of a class")
        table = self._tables.get(name)
        if table is not None:
            if table.kind != kind or self._types[name] != declared:
                raise place.error(
                    f"it is declared twice: as a {KINDS[table.kind]} of type {self._types[name]!r} "
                    f"and as a {KINDS[kind]} of type {declared!r}; give one of them another name"
                )
            return table
        try:
            sealer = Sealer(place, codec_for(declared))
        except Unfit as error:
            raise place.error(error) from error
        table = _TABLES[kind](sealer)
        for block in self._waiting.get(name, ()):
            self._load(table, block)
        self._waiting.pop(name, None)
        self._tables[name] = table
        self._types[name] = declared
        return table

    def _load(self, table: AnyTable, block: Block) -> None:
        try:
            table.load(block)
        except Unfit as error:  # of a key: those of values are told by the table
            raise self._place(block.state).error(f"a stored key cannot be read: {error}") from error

    def _place(self, state: str) -> Place:
        return Place(self._operator, state)


class FrozenState:
    """See `flowrt.contract.snapshot.Frozen`."""

    def __init__(
        self,
        tables: Mapping[str, AnyTable],
        changed: Sequence[str],
        waiting: Mapping[str, Sequence[Block]],
    ) -> None:
        self._tables = tables
        self._changed = changed
        self._waiting = waiting
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
        yield blocks

    def _write(self, blocks: list[Block]) -> Iterator[int]:
        for name in self._changed:
            table = self._tables[name]
            writer = BlockWriter(name, table.kind)
            yield from table.write_frozen(writer)
            for block in writer.finish():
                blocks.append(block)
                yield len(block.data)


_TABLES: Final[dict[int, Callable[[Sealer], AnyTable]]] = {
    VALUE: ValueTable,
    MAP: MapTable,
    LIST: ListTable,
}


_FUNCTIONS: Final = frozenset({"reduce", "create", "add", "result"})


def _text(spec: StateSpec[Any]) -> str:
    what = {name: value for name, value in vars(spec).items() if value is not None}
    return (
        f"{type(spec).__name__}({', '.join(f'{name}={value!r}' for name, value in what.items())})"
    )


def _are_alike(one: StateSpec[Any], other: StateSpec[Any]) -> bool:
    """Say whether two declarations mean the same but for functions (a lambda is ever new)."""
    if type(one) is not type(other):
        return False
    left, right = vars(one), vars(other)
    return all(left[name] == right[name] for name in left.keys() - _FUNCTIONS)
