"""The handles that operators hold: the current key's part of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flowrt.contract.snapshot import MISSING, HasKey
from flowrt.contract.state import AggregatingState, MapState, ReducingState, ValueState
from flowrt.state.blocks import Place
from flowrt.state.classes import class_name
from flowrt.state.nested import ListTable, MapTable
from flowrt.state.sealed import FAST
from flowrt.state.table import ValueTable


class CurrentKey:
    """Where a handle finds its key; `StateError` where there is none."""

    __slots__ = ("_place", "_scope")

    def __init__(self, scope: HasKey, place: Place) -> None:
        self._scope = scope
        self._place = place

    def __call__(self) -> Any:
        key = self._scope.key
        if key is MISSING:
            raise self._place.error(
                "there is no current key: put key_by before the operator, and use state only while "
                "a record or a timer is processed"
            )
        return key


class ValueOfKey:
    """See `ValueHandle`."""

    __slots__ = ("_default", "_key", "_none_clears", "_table")

    def __init__(self, table: ValueTable, key: CurrentKey, spec: ValueState[Any]) -> None:
        self._table = table
        self._key = key
        # Where None only says that there is no value, storing it is the same as clearing.
        self._none_clears = spec.default is None and spec.type is not None
        self._default = None if spec.default is None else table.seal(MISSING, spec.default)

    def get(self) -> Any:
        """See `ValueHandle.get`."""
        value = self._table.get(self._key())
        return self._table.unseal(self._default) if value is MISSING else value

    def set(self, value: Any) -> None:
        """See `ValueHandle.set`; None in a declared state without a default clears it."""
        if value is None and self._none_clears:
            self.clear()
        else:
            self._table.put(self._key(), value)

    def clear(self) -> None:
        """See `ValueHandle.clear`."""
        self._table.delete(self._key())


class ReducingOfKey:
    """See `ReducingHandle`."""

    __slots__ = ("_key", "_reduce", "_table")

    def __init__(self, table: ValueTable, key: CurrentKey, spec: ReducingState[Any]) -> None:
        self._table = table
        self._key = key
        self._reduce: Callable[[Any, Any], Any] = spec.reduce

    def add(self, value: Any) -> None:
        """See `ReducingHandle.add`."""
        key = self._key()
        stored = self._table.get(key)
        self._table.put(key, value if stored is MISSING else self._reduce(stored, value))

    def get(self) -> Any:
        """See `ReducingHandle.get`."""
        value = self._table.get(self._key())
        return None if value is MISSING else value

    def clear(self) -> None:
        """See `ReducingHandle.clear`."""
        self._table.delete(self._key())


class AggregatingOfKey:
    """See `AggregatingHandle`."""

    __slots__ = ("_key", "_spec", "_table")

    def __init__(
        self, table: ValueTable, key: CurrentKey, spec: AggregatingState[Any, Any, Any]
    ) -> None:
        self._table = table
        self._key = key
        self._spec = spec

    def add(self, value: Any) -> None:
        """See `AggregatingHandle.add`."""
        key = self._key()
        accumulator = self._table.get(key)
        if accumulator is MISSING:
            accumulator = self._spec.create()
        self._table.put(key, self._spec.add(accumulator, value))

    def get(self) -> Any:
        """See `AggregatingHandle.get`."""
        accumulator = self._table.get(self._key())
        return None if accumulator is MISSING else self._spec.result(accumulator)

    def clear(self) -> None:
        """See `AggregatingHandle.clear`."""
        self._table.delete(self._key())


class ListOfKey:
    """See `ListHandle`."""

    __slots__ = ("_key", "_table")

    def __init__(self, table: ListTable, key: CurrentKey) -> None:
        self._table = table
        self._key = key

    def add(self, value: Any) -> None:
        """See `ListHandle.add`."""
        self._table.extend(self._key(), (value,))

    def extend(self, values: Iterable[Any]) -> None:
        """See `ListHandle.extend`; where one value cannot be stored, none is."""
        self._table.extend(self._key(), values)

    def get(self) -> list[Any]:
        """See `ListHandle.get`."""
        return list(self)

    def set(self, values: Iterable[Any]) -> None:
        """See `ListHandle.set`; where one value cannot be stored, the list stays as it was."""
        self._table.replace(self._key(), values)

    def clear(self) -> None:
        """See `ListHandle.clear`."""
        self._table.clear(self._key())

    def __len__(self) -> int:
        return len(self._table.elements(self._key()))

    def __iter__(self) -> Iterator[Any]:
        return map(self._table.sealer.unseal, list(self._table.elements(self._key())))


class MapOfKey:
    """See `MapHandle`."""

    __slots__ = ("_key", "_name_type", "_place", "_table")

    def __init__(
        self, table: MapTable, key: CurrentKey, place: Place, spec: MapState[Any, Any]
    ) -> None:
        self._table = table
        self._key = key
        self._place = place
        # Names are stored so that they describe themselves; a declared builtin is held to.
        self._name_type: type | None = spec.key_type if spec.key_type in FAST else None

    def get(self, name: Any, default: Any = None) -> Any:
        """See `MapHandle.get`."""
        stored = self._table.entries(self._key()).get(name, MISSING)
        return default if stored is MISSING else self._table.sealer.unseal(stored)

    def put(self, name: Any, value: Any) -> None:
        """See `MapHandle.put`."""
        key = self._key()
        if self._name_type is not None and type(name) is not self._name_type:
            raise self._place.error(
                f"a name of type {class_name(type(name))} cannot be stored where "
                f"{self._name_type.__name__} is declared",
                key,
            )
        self._table.put(key, name, value)

    def remove(self, name: Any) -> None:
        """See `MapHandle.remove`."""
        self._table.remove(self._key(), name)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """See `MapHandle.items`."""
        unseal = self._table.sealer.unseal
        entries = list(self._table.entries(self._key()).items())
        return ((name, unseal(stored)) for name, stored in entries)

    def keys(self) -> Iterator[Any]:
        """See `MapHandle.keys`."""
        return iter(list(self._table.entries(self._key())))

    def values(self) -> Iterator[Any]:
        """See `MapHandle.values`."""
        stored = list(self._table.entries(self._key()).values())
        return map(self._table.sealer.unseal, stored)

    def clear(self) -> None:
        """See `MapHandle.clear`."""
        self._table.clear(self._key())

    def __contains__(self, name: object) -> bool:
        return name in self._table.entries(self._key())

    def __len__(self) -> int:
        return len(self._table.entries(self._key()))
