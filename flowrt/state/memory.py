"""Keyed state in memory, with snapshots of what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from flowrt.contract.entries import KINDS, LIST, MAP, VALUE, kind_of
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
from flowrt.contract.undo import UndoLog
from flowrt.state.ageing import AgeingTable, ageing, forget_expired
from flowrt.state.ages import Ages, HasTime, TimedCodec, ages_of
from flowrt.state.blocks import Place
from flowrt.state.classes import Unfit
from flowrt.state.codec import codec_for
from flowrt.state.frozen import AnyTable, FrozenState
from flowrt.state.handles import (
    AggregatingOfKey,
    CurrentKey,
    ListOfKey,
    MapOfKey,
    ReducingOfKey,
    ValueOfKey,
)
from flowrt.state.keys import encode_key
from flowrt.state.migration import Migrate, Migration, migration
from flowrt.state.nested import ListTable, MapTable
from flowrt.state.sealer import Sealer
from flowrt.state.shapes import shape_of
from flowrt.state.table import ValueTable
from flowrt.state.undo import UndoableLists, UndoableMaps, UndoableValues
from flowrt.state.views import StateView


class MemoryBackend:
    """See `flowrt.contract.snapshot.KeyedBackend`. `operator` is its id, for messages."""

    def __init__(self, operator: str) -> None:
        self.undo: UndoLog | None = None
        self._operator = operator
        self._tables: dict[str, AnyTable] = {}
        self._types: dict[str, Any] = {}
        self._specs: dict[str, StateSpec[Any]] = {}
        self._handles: dict[tuple[str, int], tuple[HasKey, Any]] = {}
        self._waiting: dict[str, list[Block]] = {}
        self._frozen: FrozenState | None = None
        self._shapes: dict[str, Any] = {}
        self._written_as: list[tuple[range, Mapping[str, Any]]] = []
        self._migrations: dict[str, Migrate] = {}
        self._is_anew = False
        """Whether the next snapshot is written from nothing, for the files are of another form."""
        self._ageing: dict[str, AgeingTable] = {}
        """What looks after the entries of states with a time to live."""

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

    def table(self, name: str, type: Any, migrate: Migrate | None = None) -> ValueTable:
        """See `KeyedBackend.table`."""
        if migrate is not None:
            self._migrations.setdefault(name, migrate)
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
        if not changed and not self._is_anew:
            self._frozen = None
            return None
        self._frozen = FrozenState(self._tables, changed, self._waiting, is_anew=self._is_anew)
        self._is_anew = False
        return self._frozen

    def load(self, blocks: Iterable[Block]) -> None:
        """See `KeyedBackend.load`; `StateError` for what does not fit a declared state."""
        for block in blocks:
            table = self._tables.get(block.state)
            if table is None:
                self._waiting.setdefault(block.state, []).append(block)
            else:
                self._load(table, block)

    def written_as(self, groups: range, shapes: Mapping[str, Any]) -> None:
        """See `KeyedBackend.written_as`."""
        self._written_as.append((groups, shapes))

    def shapes(self) -> dict[str, Any]:
        """See `KeyedBackend.shapes`."""
        waiting = {}
        for name in self._waiting:
            before = [shapes[name] for _, shapes in self._written_as if name in shapes]
            waiting.update({name: before[0]} if before else {})
        return {**waiting, **self._shapes}

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

    def view(self, spec: StateSpec[Any]) -> StateView | None:
        """Return what reads a state for any key; None where nothing has declared it yet."""
        table = self._ageing.get(spec.name) or self._tables.get(spec.name)
        return None if table is None else StateView(table, spec)

    def declare(self, spec: StateSpec[Any], now_ms: int) -> StateView:
        """Declare a state without a handle, to read what is loaded; what expired is not seen."""
        if spec.ttl is None:
            return StateView(self._table_of(spec, None), spec)
        ages = Ages(spec.ttl, self._place(spec.name), lambda: now_ms)
        return StateView(ageing(self._table_of(spec, ages), ages, refreshes=False), spec)

    def next_expiry(self) -> int | None:
        """See `KeyedBackend.next_expiry`."""
        times = [table.ages.next_ms() for table in self._ageing.values()]
        return min((time for time in times if time is not None), default=None)

    def forget_expired(self) -> Iterator[None]:
        """See `KeyedBackend.forget_expired`."""
        for table in list(self._ageing.values()):
            yield from forget_expired(table)

    def declared(self) -> dict[str, StateSpec[Any]]:
        """Return the states that have handles, by name."""
        return dict(self._specs)

    def waiting(self, name: str) -> list[Block]:
        """Return what was restored of a state that nothing has declared yet, oldest first."""
        return list(self._waiting.get(name, ()))

    def size(self) -> int:
        """See `KeyedBackend.size`; restored states that nothing has declared count too."""
        waiting = sum(block.entries for blocks in self._waiting.values() for block in blocks)
        return waiting + sum(table.size() for table in self._tables.values())

    def _bind(self, spec: StateSpec[Any], scope: HasKey) -> Any:
        place = self._place(spec.name)
        key = CurrentKey(scope, place)
        ages = None
        if spec.ttl is not None:
            # Every operator's context has the time.
            ages = ages_of(spec.ttl, place, cast(HasTime, scope))
        table: Any = self._table_of(spec, ages)
        if spec.name in self._ageing:
            ages = self._ageing[spec.name].ages
            table = ageing(table, ages, refreshes=ages.refreshes)
        match spec:
            case ListState():
                return ListOfKey(table, key)
            case MapState():
                return MapOfKey(table, key, place, spec)
        return _VALUE_HANDLES[type(spec)](table, key, spec)

    def _table_of(self, spec: StateSpec[Any], ages: Ages | None) -> AnyTable:
        for kind, specs in _KINDS.items():
            if isinstance(spec, specs):
                if spec.migrate is not None:
                    self._migrations.setdefault(spec.name, spec.migrate)
                return self._table(kind, spec.name, spec.type, ages)
        raise self._place(spec.name).error(
            f"{_text(spec)} is no kind of state that this backend knows"
        )

    def _table(self, kind: int, name: str, declared: Any, ages: Ages | None = None) -> AnyTable:
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
            codec = codec_for(declared)
        except Unfit as error:
            raise place.error(error) from error
        sealer = Sealer(place, codec if ages is None else TimedCodec(codec, ages))
        undo = self.undo
        table = _TABLES[kind](sealer) if undo is None else _UNDOABLE[kind](sealer, undo)
        self._shapes[name] = shape_of(declared)
        for block in self._waiting.get(name, ()):
            self._load(table, block)
        self._waiting.pop(name, None)
        self._tables[name] = table
        self._types[name] = declared
        if self._is_anew:
            table.rewrite()
        if ages is not None:
            self._ageing[name] = ageing(table, ages, refreshes=False)
            self._ageing[name].note_all()
        return table

    def _load(self, table: AnyTable, block: Block) -> None:
        try:
            into_today = self._migration(table, block)
            if into_today is not None and kind_of(block) == table.kind:
                block = into_today.block(block)
                if into_today.is_needed and not self._is_anew:
                    self._write_anew()
            table.load(block)
        except Unfit as error:  # of a key: those of values are told by the table
            raise self._place(block.state).error(f"a stored key cannot be read: {error}") from error

    def _migration(self, table: AnyTable, block: Block) -> Migration | None:
        codec = table.sealer.codec
        return migration(
            self._place(block.state),
            codec.inner if isinstance(codec, TimedCodec) else codec,
            self._written_with(block),
            self._shapes[block.state],
            self._migrations.get(block.state),
        )

    def _written_with(self, block: Block) -> Any:
        for groups, shapes in self._written_as:
            if block.group in groups:
                return shapes.get(block.state)
        return None

    def _write_anew(self) -> None:
        # All of it: what was written before is of another form, and must not be needed again.
        self._is_anew = True
        for table in self._tables.values():
            table.rewrite()

    def _place(self, state: str) -> Place:
        return Place(self._operator, state)


_TABLES: Final[dict[int, Callable[[Sealer], AnyTable]]] = {
    VALUE: ValueTable,
    MAP: MapTable,
    LIST: ListTable,
}

_UNDOABLE: Final[dict[int, Callable[[Sealer, UndoLog], AnyTable]]] = {
    VALUE: UndoableValues,
    MAP: UndoableMaps,
    LIST: UndoableLists,
}


_KINDS: Final[dict[int, tuple[type[Any], ...]]] = {
    VALUE: (ValueState, ReducingState, AggregatingState),
    MAP: (MapState,),
    LIST: (ListState,),
}

_VALUE_HANDLES: Final[dict[type[StateSpec[Any]], Callable[..., Any]]] = {
    ValueState: ValueOfKey,
    ReducingState: ReducingOfKey,
    AggregatingState: AggregatingOfKey,
}

_FUNCTIONS: Final = frozenset({"reduce", "create", "add", "result", "migrate"})


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
