"""Handles speak of the current key, and values are the caller's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowrt.contract.errors import StateError
from flowrt.contract.merging import merge_blocks
from flowrt.contract.state import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    ValueState,
)
from flowrt.state.memory import MemoryBackend
from tests.state.classes import Basket
from tests.state.kit import Scope, bound, restored, snapshot


def test_a_handle_follows_the_current_key() -> None:
    scope = Scope("a")
    count = MemoryBackend("orders").handle(ValueState(int, name="count", default=0), scope)

    count.set(1)
    scope.key = "b"
    count.set(count.get() + 5)
    scope.key = "a"

    assert count.get() == 1
    count.clear()
    assert count.get() == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda backend, scope: backend.handle(ValueState(name="s"), scope).get(),
        lambda backend, scope: backend.handle(ValueState(name="s"), scope).set(1),
        lambda backend, scope: backend.handle(ListState(name="s"), scope).add(1),
        lambda backend, scope: backend.handle(MapState(name="s"), scope).put(1, 1),
        lambda backend, scope: backend.handle(ReducingState(max, name="s"), scope).add(1),
        lambda backend, scope: len(backend.handle(MapState(name="s"), scope)),
    ],
)
def test_without_a_current_key_the_state_is_named(use: Callable[..., Any]) -> None:
    with pytest.raises(StateError, match="operator 'orders', state 's': there is no current key"):
        use(MemoryBackend("orders"), Scope())


def test_a_value_changed_in_place_changes_nothing() -> None:
    basket = bound(ValueState(Basket, name="basket"))
    mine = Basket(["a"])
    basket.set(mine)

    mine.items.append("b")
    basket.get().items.append("c")

    assert basket.get() == Basket(["a"])


def test_a_default_changed_in_place_changes_nothing() -> None:
    seen = bound(ValueState(list, name="seen", default=[]))

    seen.get().append(1)

    assert seen.get() == []


def test_none_where_a_type_is_declared_clears() -> None:
    last = bound(ValueState(int, name="last"))
    last.set(3)

    last.set(None)

    assert last.get() is None


def test_elements_and_entries_changed_in_place_change_nothing() -> None:
    log, index = bound(ListState(name="log")), bound(MapState(name="index"))
    log.add([1])
    index.put("a", [1])

    log.get()[0].append(2)
    next(iter(log)).append(2)
    index.get("a").append(2)
    for value in index.values():
        value.append(2)

    assert log.get() == [[1]]
    assert list(index.values()) == [[1]]


def test_iterating_sees_a_state_as_it_was() -> None:
    log, index = bound(ListState(name="log")), bound(MapState(name="index"))
    log.set([1, 2])
    index.put("a", 1)

    elements, names, items, values = iter(log), index.keys(), index.items(), index.values()
    log.add(3)
    index.put("b", 2)

    assert list(elements) == [1, 2]
    assert (list(names), list(items), list(values)) == (["a"], [("a", 1)], [1])


def test_a_list_takes_all_values_or_none() -> None:
    log = bound(ListState(int, name="log"))
    log.extend([1, 2])

    with pytest.raises(
        StateError, match=r"operator 'orders', state 'log', key 'k': .*builtins:str"
    ):
        log.extend([3, "x"])
    with pytest.raises(StateError):
        log.set([3, "x"])

    assert log.get() == [1, 2]


def test_a_reducing_state_folds() -> None:
    largest = bound(ReducingState(max, int, name="largest"))

    assert largest.get() is None
    for value in (2, 5, 3):
        largest.add(value)
    assert largest.get() == 5
    largest.clear()
    assert largest.get() is None


def test_an_aggregating_state_keeps_its_accumulator() -> None:
    mean = bound(
        AggregatingState(
            lambda: [0, 0],
            lambda total, value: [total[0] + value, total[1] + 1],
            lambda total: total[0] / total[1],
            name="mean",
        )
    )

    assert mean.get() is None
    for value in (1, 2, 6):
        mean.add(value)
    assert mean.get() == 3.0
    mean.clear()
    assert mean.get() is None


def test_a_map_is_held_to_its_declared_names() -> None:
    index = bound(MapState(str, int, name="index"))

    with pytest.raises(StateError, match="name of type builtins:int cannot be stored where str"):
        index.put(1, 1)
    assert index.get("a") is None
    assert index.get("a", 7) == 7


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda: bound(ValueState(name="s")).set(object()), "builtins:object cannot be stored"),
        (lambda: bound(ValueState(dict[str, int], name="s")).set({"a": "b"}), "Expected `int`"),
        (lambda: bound(ListState(name="s")).add(object()), "builtins:object cannot be stored"),
        (lambda: bound(MapState(name="s")).put("a", object()), "builtins:object cannot be stored"),
        (lambda: bound(MapState(name="s")).put(object(), 1), "builtins:object is not supported"),
    ],
)
def test_what_cannot_be_stored_fails_when_written(write: Callable[[], Any], reason: str) -> None:
    with pytest.raises(StateError) as raised:
        write()

    assert str(raised.value).startswith("operator 'orders', state 's', key 'k': ")
    assert reason in str(raised.value)


@pytest.mark.parametrize(("first", "later"), [(0, False), (False, 0), (True, 1.0), (False, 0.0)])
def test_a_name_comes_back_in_the_form_that_was_put_first(first: Any, later: Any) -> None:
    """As in a dict; also where the snapshots of both were merged."""
    backend, snapshots = MemoryBackend("orders"), []
    names = bound(MapState(name="s"), backend=backend)
    for form, value in ((first, "old"), (later, "new")):
        names.put(form, value)
        snapshots += snapshot(backend)

    for blocks in (snapshots, [merge_blocks(snapshots, drop_deleted=True)]):
        entries = list(bound(MapState(name="s"), backend=restored(blocks)).items())
        assert repr(entries) == repr([(first, "new")])


@pytest.mark.parametrize(
    "write",
    [
        lambda key: bound(ValueState(name="s"), key).set(1),
        lambda key: bound(ListState(name="s"), key).add(1),
        lambda key: bound(MapState(name="s"), key).put(1, 1),
    ],
)
def test_a_key_that_cannot_be_stored_fails_when_written(write: Callable[[Any], Any]) -> None:
    with pytest.raises(
        StateError, match=r"operator 'orders', state 's': the key .* has no key grou"
    ):
        write(object())
