"""Tables that note how their changes are taken back; the properties are in tests/properties."""

from __future__ import annotations

import pytest

from flowrt.contract.errors import StateError
from flowrt.contract.state import BroadcastState, ListState, MapState, ValueState
from flowrt.contract.undo import UndoLog
from flowrt.state import layers
from flowrt.state.broadcast import BroadcastStates
from flowrt.state.memory import MemoryBackend
from tests.state.kit import Scope


def undoable() -> tuple[MemoryBackend, UndoLog, Scope]:
    backend, undo, scope = MemoryBackend("op"), UndoLog(), Scope()
    backend.undo = undo
    undo.begin()
    return backend, undo, scope


def test_a_value_is_taken_back_also_where_it_went_to_a_new_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "LARGE", 2)
    backend, undo, scope = undoable()
    value = backend.handle(ValueState(int, default=0, name="v"), scope)
    for scope.key in range(3):
        value.set(1)
    undo.begin()
    for scope.key in range(6):
        value.set(2)

    undo.take_back()

    found = []
    for scope.key in range(6):
        found.append(value.get())
    assert found == [1, 1, 1, 0, 0, 0]


def test_the_names_of_a_map_get_their_places_back() -> None:
    backend, undo, scope = undoable()
    scope.key = "k"
    named = backend.handle(MapState(int, int, name="m"), scope)
    for name in (1, 2, 3):
        named.put(name, name)
    undo.begin()
    named.remove(2)
    named.put(4, 4)
    named.put(2, 0)
    named.remove(1)

    undo.take_back()

    assert list(named.items()) == [(1, 1), (2, 2), (3, 3)]


def test_what_belongs_to_no_record_is_not_noted() -> None:
    backend, undo, scope = undoable()
    scope.key = "k"
    named = backend.handle(MapState(int, int, name="m"), scope)
    seen = backend.handle(ListState(int, name="l"), scope)
    named.put(1, 1)
    undo.rest()
    named.remove(1)
    seen.add(1)

    undo.take_back()

    assert len(named) == 0
    assert seen.get() == [1]


def test_what_could_not_be_written_is_not_taken_back() -> None:
    backend, undo, scope = undoable()
    scope.key = "k"
    value = backend.handle(ValueState(int, default=0, name="v"), scope)
    value.set(1)
    undo.begin()
    with pytest.raises(StateError):
        value.set(object())

    undo.take_back()

    assert value.get() == 1


def test_broadcast_state_is_copied_once_for_a_record() -> None:
    broadcast, undo = BroadcastStates("op"), UndoLog()
    broadcast.undo, broadcast.writable = undo, True
    rules = broadcast.handle(BroadcastState(int, int, name="rules"))
    rules.put(1, 1)
    before = broadcast.snapshot()
    undo.begin()
    for name in range(5):
        rules.put(name, 9)
    rules.replace({7: 7})

    assert len(undo._changes) == 1
    undo.take_back()

    assert list(rules.items()) == [(1, 1)]
    assert broadcast.snapshot() == before
