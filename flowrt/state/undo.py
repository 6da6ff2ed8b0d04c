"""Tables that note how each change is taken back: for steps that go on after an error.

What is taken back leaves no trace: neither in what is live, nor in what the next snapshot will
hold, nor in the order of a map's names. Only the order in which a table of values writes its keys
may be another one.
"""

from __future__ import annotations

from typing import Any, Final

from flowrt.contract.undo import UndoLog
from flowrt.state.layers import dict_of
from flowrt.state.nested import ListChange, ListTable, MapChange, MapTable
from flowrt.state.sealer import Sealer
from flowrt.state.table import ValueTable

_ABSENT: Final = object()


class UndoableValues(ValueTable):
    """A `ValueTable` that tells an `UndoLog` of each change."""

    __slots__ = ("_undo",)

    def __init__(self, sealer: Sealer, undo: UndoLog) -> None:
        super().__init__(sealer)
        self._undo = undo

    def put(self, key: Any, value: Any) -> None:
        """See `Table.put`."""
        entries = dict_of(self._newest, key)
        before = entries.get(key, _ABSENT)
        super().put(key, value)
        if (written := dict_of(self._newest, key)) is not entries:
            # The newest layer was full: it was written to another one.
            entries, before = written, _ABSENT
        self._undo.add(_put_back, entries, key, before)

    def delete(self, key: Any) -> None:
        """See `Table.delete`."""
        entries = dict_of(self._newest, key)
        before = entries.get(key, _ABSENT)
        super().delete(key)
        self._undo.add(_put_back, entries, key, before)


class UndoableMaps(MapTable):
    """A `MapTable` that tells an `UndoLog` of each change."""

    __slots__ = ("_undo",)

    def __init__(self, sealer: Sealer, undo: UndoLog) -> None:
        super().__init__(sealer)
        self._undo = undo

    def put(self, key: Any, name: Any, value: Any) -> None:
        """See `MapTable.put`."""
        entries, change = self._live.get(key), self._changes.get(key)
        live = _ABSENT if entries is None else entries.get(name, _ABSENT)
        rewritten = _ABSENT if change is None else change.rewritten.get(name, _ABSENT)
        added = _ABSENT if change is None else change.added.get(name, _ABSENT)
        super().put(key, name, value)
        self._undo.add(self._take_back_put, key, name, live, rewritten, added, change is None)

    def remove(self, key: Any, name: Any) -> None:
        """See `MapTable.remove`; costs a copy of the key's map, so that its order can come back."""
        if not self._undo.is_on:
            super().remove(key, name)
            return
        entries, change = self._live.get(key), self._changes.get(key)
        if entries is None or name not in entries:
            return
        before = dict(entries), None if change is None else _copy(change)
        super().remove(key, name)
        self._undo.add(self._put_back_all, key, *before)

    def clear(self, key: Any) -> None:
        """See `MapTable.clear`."""
        # These leave the table as they are.
        before = self._live.get(key), self._changes.get(key)
        super().clear(key)
        self._undo.add(self._put_back_all, key, *before)

    def _take_back_put(
        self, key: Any, name: Any, live: Any, rewritten: Any, added: Any, is_first_change: bool
    ) -> None:
        _put_back(self._live[key], name, live)
        if not self._live[key]:
            del self._live[key]
        change = self._changes[key]
        _put_back(change.rewritten, name, rewritten)
        _put_back(change.added, name, added)
        if is_first_change:
            del self._changes[key]

    def _put_back_all(
        self, key: Any, entries: dict[Any, Any] | None, change: MapChange | None
    ) -> None:
        _put_back(self._live, key, _ABSENT if entries is None else entries)
        _put_back(self._changes, key, _ABSENT if change is None else change)


class UndoableLists(ListTable):
    """A `ListTable` that tells an `UndoLog` of each change."""

    __slots__ = ("_undo",)

    def __init__(self, sealer: Sealer, undo: UndoLog) -> None:
        super().__init__(sealer)
        self._undo = undo

    def clear(self, key: Any) -> None:
        """See `ListTable.clear`."""
        # These leave the table as they are.
        before = self._live.get(key), self._changes.get(key)
        super().clear(key)
        self._undo.add(self._put_back_all, key, *before)

    def _append(self, key: Any, stored: list[Any]) -> None:
        elements, change = self._live.get(key), self._changes.get(key)
        before = (
            None if elements is None else len(elements),
            None if change is None else len(change.appended),
        )
        super()._append(key, stored)
        if stored:
            self._undo.add(self._cut_back, key, *before)

    def _cut_back(self, key: Any, elements: int | None, appended: int | None) -> None:
        if elements is None:
            del self._live[key]
        else:
            del self._live[key][elements:]
        if appended is None:
            del self._changes[key]
        else:
            del self._changes[key].appended[appended:]

    def _put_back_all(
        self, key: Any, elements: list[Any] | None, change: ListChange | None
    ) -> None:
        _put_back(self._live, key, _ABSENT if elements is None else elements)
        _put_back(self._changes, key, _ABSENT if change is None else change)


def _put_back(entries: dict[Any, Any], key: Any, before: Any) -> None:
    if before is _ABSENT:
        entries.pop(key, None)
    else:
        entries[key] = before


def _copy(change: MapChange) -> MapChange:
    copy = MapChange()
    copy.cleared = change.cleared
    copy.dropped = dict(change.dropped)
    copy.rewritten = dict(change.rewritten)
    copy.added = dict(change.added)
    return copy
