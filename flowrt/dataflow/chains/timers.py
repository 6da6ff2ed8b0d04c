"""Timers of one kind (event time or processing time): what is due, and in which order.

A timer is an entry of a map state, its name the timestamp, so it is part of snapshots like any
state; the queue here is an index beside it, built anew at a restore. The entry's value is the
number of the registration, so that timers fire in the same order with and without a restore: by
timestamp, then as they were registered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from sortedcontainers import SortedDict

from flowrt.contract.snapshot import HasKey, KeyedBackend
from flowrt.contract.state import MapHandle, MapState
from flowrt.contract.undo import UndoLog


class TimerQueue:
    """The timers of one operator subtask, of one kind ("event" or "processing").

    `scope.key` is the key whose timers are registered and deleted. No clock inside: `due` is told
    the time. `undo` is told how to take back a change of the index; the map tells it itself.
    """

    __slots__ = ("_keys_at", "_next", "_scope", "_timers", "_undo")

    def __init__(
        self, backend: KeyedBackend, scope: HasKey, kind: str, undo: UndoLog | None = None
    ) -> None:
        state = MapState(int, int, name=f"timers.{kind}")
        self._scope = scope
        self._timers: MapHandle[int, int] = backend.handle(state, scope)
        # Windows end together: few timestamps with many keys each, in order of registration.
        # Each key has the number of its registration beside it.
        self._keys_at: SortedDict[int, OrderedDict[Any, int]] = SortedDict()
        self._undo = undo
        self._next = 0
        # Subtasks that became one may have used the same numbers: then the backend's order decides.
        restored = sorted(backend.map_entries(state.name), key=lambda timer: timer[2])
        for key, timestamp, number in restored:
            self._add(timestamp, key, number)
            self._next = number + 1

    def register(self, timestamp: int) -> None:
        """Set a timer of the current key (ms); no effect where it is set already.

        `StateError` without a current key, or for a timestamp that is no int.
        """
        if timestamp not in self._timers:
            self._timers.put(timestamp, self._next)
            self._add(timestamp, self._scope.key, self._next)
            self._next += 1
            if self._undo is not None:
                self._undo.add(self._take_back, timestamp, self._scope.key)

    def delete(self, timestamp: int) -> None:
        """Forget a timer of the current key (ms); no error where there is none.

        `StateError` without a current key.
        """
        if timestamp in self._timers:
            self._timers.remove(timestamp)
            number = self._forget(timestamp, self._scope.key)
            if self._undo is not None:
                self._undo.add(self._put_back, timestamp, self._scope.key, number)

    def earliest(self) -> int | None:
        """Return the smallest timestamp of all timers (ms), or None."""
        return self._keys_at.peekitem(0)[0] if self._keys_at else None

    def due(self, until: int) -> Iterator[tuple[int, Any]]:
        """Take the timers at or before `until` (ms), one at a time, as (timestamp, key).

        Each is forgotten just before it is given, and its key is the scope's key from then on. One
        that is set meanwhile, and is due too, comes in the same call: a timer that sets itself
        again at the same time would go on for ever.
        """
        while self._keys_at:
            timestamp, keys = self._keys_at.peekitem(0)
            if timestamp > until:
                return
            key = next(iter(keys))
            self._forget(timestamp, key)
            self._scope.key = key
            self._timers.remove(timestamp)
            yield timestamp, key

    def __len__(self) -> int:
        return sum(map(len, self._keys_at.values()))

    def _add(self, timestamp: int, key: Any, number: int) -> None:
        keys = self._keys_at.get(timestamp)
        if keys is None:
            keys = self._keys_at[timestamp] = OrderedDict()
        keys[key] = number

    def _forget(self, timestamp: int, key: Any) -> int:
        keys = self._keys_at[timestamp]
        number = keys.pop(key)
        if not keys:
            del self._keys_at[timestamp]
        return number

    def _take_back(self, timestamp: int, key: Any) -> None:
        self._next = self._forget(timestamp, key)

    def _put_back(self, timestamp: int, key: Any, number: int) -> None:
        self._add(timestamp, key, number)
        keys = self._keys_at[timestamp]
        for later in [other for other, set_as in keys.items() if set_as > number]:
            keys.move_to_end(later)
