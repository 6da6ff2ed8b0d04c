"""Timers: by timestamp, then as they were set, and the same after a restore."""

from __future__ import annotations

import pytest

from flowrt.contract.errors import StateError
from flowrt.contract.undo import UndoLog
from flowrt.dataflow.chains.timers import TimerQueue
from flowrt.state.memory import MemoryBackend
from tests.state.kit import Scope, restored, snapshot


def queue(backend: MemoryBackend | None = None) -> tuple[TimerQueue, Scope]:
    scope = Scope()
    return TimerQueue(backend or MemoryBackend("orders"), scope, "event"), scope


def set_timers(timers: TimerQueue, scope: Scope, *wanted: tuple[int, str]) -> None:
    for timestamp, scope.key in wanted:
        timers.register(timestamp)


def test_timers_fire_by_timestamp_then_as_they_were_set() -> None:
    timers, scope = queue()
    set_timers(timers, scope, (5, "b"), (3, "z"), (5, "a"), (-1, "a"), (9, "a"))

    assert timers.earliest() == -1
    assert list(timers.due(5)) == [(-1, "a"), (3, "z"), (5, "b"), (5, "a")]
    assert timers.earliest() == 9
    assert len(timers) == 1
    assert list(timers.due(8)) == []


def test_a_timer_set_twice_fires_once_at_its_first_place() -> None:
    timers, scope = queue()
    set_timers(timers, scope, (5, "a"), (5, "b"), (5, "a"))

    assert list(timers.due(5)) == [(5, "a"), (5, "b")]
    assert timers.earliest() is None


def test_a_deleted_timer_does_not_fire() -> None:
    timers, scope = queue()
    set_timers(timers, scope, (5, "a"), (5, "b"), (6, "b"))

    timers.delete(5)
    timers.delete(6)
    timers.delete(7)

    assert list(timers.due(10)) == [(5, "a")]


def test_a_timer_set_by_a_timer_fires_in_the_same_call_when_due() -> None:
    timers, scope = queue()
    set_timers(timers, scope, (1, "a"))
    fired = []

    for timestamp, key in timers.due(3):
        assert scope.key == key
        fired.append(timestamp)
        timers.register(timestamp + 1)

    assert fired == [1, 2, 3]
    assert timers.earliest() == 4


def test_a_timer_deleted_by_a_timer_does_not_fire() -> None:
    timers, scope = queue()
    set_timers(timers, scope, (1, "a"), (1, "b"), (2, "a"))
    fired = []

    for timestamp, key in timers.due(3):
        fired.append((timestamp, key))
        scope.key = "b"
        timers.delete(1)

    assert fired == [(1, "a"), (2, "a")]


def test_a_call_left_half_way_keeps_the_rest() -> None:
    timers, scope = queue()
    set_timers(timers, scope, (1, "a"), (1, "b"))

    assert next(timers.due(3)) == (1, "a")

    assert list(timers.due(3)) == [(1, "b")]


def test_timers_come_back_in_order() -> None:
    backend = MemoryBackend("orders")
    timers, scope = queue(backend)
    set_timers(timers, scope, (5, "z"), (5, "a"), (2, "m"), (5, "k"))
    first = snapshot(backend)
    assert next(timers.due(2)) == (2, "m")
    scope.key = "a"
    timers.delete(5)
    set_timers(timers, scope, (5, "b"), (5, "a"))

    again, scope = queue(restored(first, snapshot(backend)))
    set_timers(again, scope, (5, "c"))

    expected = [(5, "z"), (5, "k"), (5, "b"), (5, "a")]
    assert list(timers.due(5)) == expected
    assert list(again.due(5)) == [*expected, (5, "c")]


def test_kinds_do_not_mix() -> None:
    backend, scope = MemoryBackend("orders"), Scope("a")
    event = TimerQueue(backend, scope, "event")
    processing = TimerQueue(backend, scope, "processing")

    event.register(1)

    assert processing.earliest() is None
    assert len(event) == 1


def test_a_timer_needs_a_key_and_whole_milliseconds() -> None:
    timers, scope = queue()

    with pytest.raises(
        StateError, match=r"operator 'orders', state 'timers.event': there is no curre"
    ):
        timers.register(1)
    scope.key = "a"
    with pytest.raises(StateError, match="float cannot be stored where int is declared"):
        timers.register(1.5)  # type: ignore[arg-type]
    assert timers.earliest() is None


def test_what_is_taken_back_fires_in_its_place_and_leaves_the_numbers_as_they_were() -> None:
    backend, undo, scope = MemoryBackend("orders"), UndoLog(), Scope()
    backend.undo = undo
    timers = TimerQueue(backend, scope, "event", undo)
    set_timers(timers, scope, (5, "a"), (5, "b"), (5, "c"))
    undo.begin()

    scope.key = "a"
    timers.delete(5)
    timers.register(5)
    timers.delete(5)
    set_timers(timers, scope, (5, "d"), (4, "a"))
    undo.take_back()
    set_timers(timers, scope, (6, "e"))

    numbers = {entry[0]: entry[2] for entry in backend.map_entries("timers.event")}
    assert numbers == {"a": 0, "b": 1, "c": 2, "e": 3}
    assert list(timers.due(5)) == [(5, "a"), (5, "b"), (5, "c")]
    assert timers.earliest() == 6
