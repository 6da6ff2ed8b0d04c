"""Tables whose entries expire: what lies between a handle and the table of a state with a ttl.

Each is to a handle what its table is, and hides what has expired. Nothing of this is there for a
state without a ttl.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from flowrt.contract.entries import LIST, MAP, VALUE
from flowrt.contract.snapshot import MISSING
from flowrt.state.ages import AT_ONCE, Ages, Timed, TimedCodec
from flowrt.state.nested import ListTable, MapTable
from flowrt.state.sealer import Sealer
from flowrt.state.table import ValueTable


class AgeingValues:
    """A `ValueTable` whose values expire."""

    kind = VALUE

    def __init__(self, table: ValueTable, ages: Ages, *, refreshes: bool) -> None:
        self.ages = ages
        self._table = table
        self._refreshes = refreshes
        self.sealer = _inner(table.sealer)
        self.seal = self.sealer.seal
        self.unseal = self.sealer.unseal
        self.key_lists = table.key_lists

    def get(self, key: Any) -> Any:
        """See `Table.get`."""
        timed = self._live(key)
        if timed is None:
            return MISSING
        if self._refreshes:
            self._table.put(key, Timed(max(timed.at, self.ages.written()), timed.stored))
        return self.unseal(timed.stored)

    def put(self, key: Any, value: Any) -> None:
        """See `Table.put`."""
        at = self.ages.written()
        before = self._table.get(key)
        if before is not MISSING and self.ages.is_live(before):
            at = max(at, before.at)
        self._table.put(key, Timed(at, value))
        if before is MISSING:
            self.ages.note(at, key)

    def delete(self, key: Any) -> None:
        """See `Table.delete`."""
        self._table.delete(key)

    def _live(self, key: Any) -> Timed | None:
        timed = self._table.get(key)
        return None if timed is MISSING or not self.ages.is_live(timed) else timed

    def note_all(self) -> None:
        """Note all entries, which were restored."""
        for key, timed in self._table.items():
            self.ages.note(timed.at, key)

    def look_at(self, key: Any) -> None:
        """Let a value go if it has expired."""
        timed = self._table.get(key)
        if timed is MISSING:
            return
        if self.ages.is_live(timed):
            self.ages.note(timed.at, key)
        else:
            self._table.delete(key)


class AgeingMaps:
    """A `MapTable` whose entries expire, each at a time of its own."""

    kind = MAP

    def __init__(self, table: MapTable, ages: Ages, *, refreshes: bool) -> None:
        self.ages = ages
        self.table = table
        self.refreshes = refreshes
        self.sealer = _inner(table.sealer)
        self.clear = table.clear
        self.remove = table.remove
        self.key_lists = table.key_lists

    def entries(self, key: Any) -> Mapping[Any, Any]:
        """See `MapTable.entries`."""
        return LiveEntries(self, key)

    def put(self, key: Any, name: Any, value: Any) -> None:
        """See `MapTable.put`; what takes the place of an expired entry stands behind the others."""
        at = self.ages.written()
        before = self.table.entries(key).get(name)
        if before is not None and self.ages.is_live(before):
            at = max(at, before.at)
        timed = self.table.sealer.seal(key, Timed(at, value))
        if before is not None and not self.ages.is_live(before):
            self.table.remove(key, name)
        self.table.put(key, name, timed)
        if before is None:
            self.ages.note(at, (key, name))

    def note_all(self) -> None:
        """Note all entries, which were restored."""
        for key, name, timed in self.table.all_entries():
            self.ages.note(timed.at, (key, name))

    def look_at(self, what: Any) -> None:
        """Let an entry go if it has expired."""
        key, name = what
        timed = self.table.entries(key).get(name)
        if timed is None:
            return
        if self.ages.is_live(timed):
            self.ages.note(timed.at, what)
        else:
            self.table.remove(key, name)


class LiveEntries(Mapping[Any, Any]):
    """The entries of one key that have not expired: names and stored values."""

    def __init__(self, maps: AgeingMaps, key: Any) -> None:
        self._maps = maps
        self._key = key
        self._entries = maps.table.entries(key)

    def __getitem__(self, name: Any) -> Any:
        timed = self._entries[name]
        if not self._maps.ages.is_live(timed):
            raise KeyError(name)
        if self._maps.refreshes:
            at = max(timed.at, self._maps.ages.written())
            self._maps.table.put(self._key, name, Timed(at, timed.stored))
        return timed.stored

    def __contains__(self, name: object) -> bool:
        return name in self._entries and self._maps.ages.is_live(self._entries[name])

    def __iter__(self) -> Iterator[Any]:
        is_live = self._maps.ages.is_live
        return iter([name for name, timed in self._entries.items() if is_live(timed)])

    def __len__(self) -> int:
        return sum(map(self._maps.ages.is_live, self._entries.values()))


class AgeingLists:
    """A `ListTable` whose elements expire, each at a time of its own."""

    kind = LIST

    def __init__(self, table: ListTable, ages: Ages, *, refreshes: bool) -> None:
        self.ages = ages
        self._table = table
        self._refreshes = refreshes
        self.sealer = _inner(table.sealer)
        self.clear = table.clear
        self.key_lists = table.key_lists

    def elements(self, key: Any) -> list[Any]:
        """See `ListTable.elements`."""
        live = [timed for timed in self._table.elements(key) if self.ages.is_live(timed)]
        if self._refreshes and live:
            at = self.ages.written()
            self._table.replace(key, [Timed(max(at, one.at), one.stored) for one in live])
        return [timed.stored for timed in live]

    def extend(self, key: Any, values: Iterable[Any]) -> None:
        """See `ListTable.extend`."""
        at, is_new = self.ages.written(), not self._table.elements(key)
        self._table.extend(key, [Timed(at, value) for value in values])
        if is_new and self._table.elements(key):
            self.ages.note(at, key)

    def replace(self, key: Any, values: Iterable[Any]) -> None:
        """See `ListTable.replace`."""
        at, is_new = self.ages.written(), not self._table.elements(key)
        self._table.replace(key, [Timed(at, value) for value in values])
        if is_new and self._table.elements(key):
            self.ages.note(at, key)

    def note_all(self) -> None:
        """Note all lists, which were restored."""
        for keys in self._table.key_lists():
            for key in keys:
                self.ages.note(min(timed.at for timed in self._table.elements(key)), key)

    def look_at(self, key: Any) -> None:
        """Let elements go that have expired, once they are half of the list: it is written anew."""
        elements = self._table.elements(key)
        live = [timed for timed in elements if self.ages.is_live(timed)]
        if not live:
            self._table.clear(key)
            return
        if 2 * len(live) <= len(elements):
            self._table.replace(key, live)
        times = sorted(timed.at for timed in self._table.elements(key))
        self.ages.note(times[(len(times) - 1) // 2], key)


AgeingTable: TypeAlias = AgeingValues | AgeingMaps | AgeingLists

_AGEING: Final = {VALUE: AgeingValues, MAP: AgeingMaps, LIST: AgeingLists}


def ageing(table: ValueTable | MapTable | ListTable, ages: Ages, *, refreshes: bool) -> AgeingTable:
    """Return what hides the expired entries of a table."""
    adapter: AgeingTable = _AGEING[table.kind](table, ages, refreshes=refreshes)
    return adapter


def forget_expired(table: AgeingTable) -> Iterator[None]:
    """Let go of what expired, some at a time."""
    for number, what in enumerate(table.ages.due(), 1):
        table.look_at(what)
        if number % AT_ONCE == 0:
            yield


def _inner(sealer: Sealer) -> Sealer:
    assert isinstance(sealer.codec, TimedCodec)
    return Sealer(sealer.place, sealer.codec.inner)
