"""Snapshots of keyed state: only what changed, in small slices, and back into what is declared."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest

from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import MISSING, Block, KeyedBackend, Table
from flowrt.contract.state import (
    ListState,
    MapState,
    ReducingState,
    StateSpec,
    ValueState,
)
from flowrt.state.key_groups import key_group
from flowrt.state.memory import MemoryBackend
from tests.state.classes import Basket, Carrier, Place, Point, Stats
from tests.state.kit import Scope, bound, encoded, restored, snapshot


def test_nothing_changed_is_nothing_frozen() -> None:
    backend = MemoryBackend("orders")
    count = bound(ValueState(int, name="count", default=0), "a", backend)

    assert backend.freeze() is None
    count.set(1)
    assert snapshot(backend) != []
    assert backend.freeze() is None


def test_a_snapshot_holds_only_what_changed() -> None:
    backend, scope = MemoryBackend("orders"), Scope()
    count = backend.handle(ValueState(int, name="count"), scope)
    index = backend.handle(MapState(name="index"), scope)
    for scope.key in range(100):
        count.set(1)
        index.put("x", 1)
    snapshot(backend)

    scope.key = 7
    count.set(2)
    index.put("y", 1)
    blocks = snapshot(backend)

    group = key_group(7)
    assert [(block.state, block.group, block.entries) for block in blocks] == [
        ("count", group, 1),
        ("index", group, 1),
    ]


def test_what_came_and_went_is_never_written() -> None:
    backend = MemoryBackend("orders")
    value = bound(ValueState(name="value"), "k", backend)
    index = bound(MapState(name="index"), "k", backend)
    log = bound(ListState(name="log"), "k", backend)

    value.set(1)
    value.clear()
    index.put("a", 1)
    index.remove("a")
    index.put("b", 1)
    index.clear()
    log.add(1)
    log.clear()

    assert snapshot(backend) == []
    assert backend.size() == 0


def test_an_entry_rewritten_and_then_removed_stays_removed() -> None:
    backend = MemoryBackend("orders")
    index = bound(MapState(name="index"), "k", backend)
    index.put("a", 1)
    index.put("b", 1)
    first = snapshot(backend)

    index.put("a", 2)
    index.remove("a")

    again = bound(MapState(name="index"), "k", restored(first, snapshot(backend)))
    assert list(again.items()) == [("b", 1)]


def test_keys_and_names_come_back_in_their_own_form() -> None:
    backend, scope = MemoryBackend("orders"), Scope()
    index = backend.handle(MapState(name="index"), scope)
    forms = [True, 2.0, Carrier.UNITED, ("a", Decimal(3)), Point(1, 2), None]
    for scope.key in forms:
        index.put(scope.key, [1])
    again = restored(snapshot(backend))
    again.handle(MapState(name="index"), Scope())

    entries = list(again.map_entries("index"))

    assert {repr(key) for key, _, _ in entries} == {repr(form) for form in forms}
    assert {repr(name) for _, name, _ in entries} == {repr(form) for form in forms}


def test_a_freeze_sees_no_later_write() -> None:
    backend = MemoryBackend("orders")
    basket = bound(ValueState(Basket, name="basket"), "a", backend)
    basket.set(Basket(["before"]))

    frozen = backend.freeze()
    basket.set(Basket(["after"]))

    again = restored(encoded(frozen))
    assert bound(ValueState(Basket, name="basket"), "a", again).get() == Basket(["before"])


def test_encoding_goes_in_slices_and_leaves_the_state_whole() -> None:
    backend = MemoryBackend("orders")
    table = backend.table("count", int)
    for key in range(10_000):
        table.put(key, key)

    frozen = backend.freeze()
    assert frozen is not None
    slices = list(map(len, frozen.encode()))

    assert len(slices) > 10_000 / 1_024
    assert slices[:-1] == [0] * (len(slices) - 1)
    assert slices[-1] == 128
    assert dict(table.items()) == {key: key for key in range(10_000)}


def test_values_that_are_written_one_by_one_end_a_slice_sooner() -> None:
    backend = MemoryBackend("orders")
    table = backend.table("price", Decimal)
    for key in range(10_000):
        table.put(key, Decimal(key))

    frozen = backend.freeze()
    assert frozen is not None

    assert len(list(frozen.encode())) > 10_000 / 150


def test_a_large_value_ends_its_slice() -> None:
    backend = MemoryBackend("orders")
    table = backend.table("text", str)
    for key in range(10):
        table.put(key, "x" * 200_000)

    frozen = backend.freeze()
    assert frozen is not None

    assert len(list(frozen.encode())) >= 10


def test_a_large_map_and_list_of_one_key_are_written_in_slices() -> None:
    backend = MemoryBackend("orders")
    index, log = bound(MapState(name="i"), "k", backend), bound(ListState(name="l"), "k", backend)
    for number in range(2_000):
        index.put(number, number)
    log.extend(range(2_000))

    frozen = backend.freeze()
    assert frozen is not None
    slices = list(frozen.encode())

    assert len(slices) > 4_000 / 150
    again = restored(slices[-1])
    assert list(bound(MapState(name="i"), "k", again).keys()) == list(range(2_000))
    assert bound(ListState(name="l"), "k", again).get() == list(range(2_000))


def test_epochs_must_not_overlap() -> None:
    backend = MemoryBackend("orders")
    table = backend.table("count", int)
    table.put("a", 1)
    frozen = backend.freeze()
    assert frozen is not None
    table.put("b", 1)

    with pytest.raises(StateError, match=r"operator 'orders'.*epochs must not overlap"):
        backend.freeze()
    encoded(frozen)
    assert backend.freeze() is not None
    with pytest.raises(StateError, match="only once"):
        frozen.encode()


def test_fused_code_sees_deleted_keys_as_missing() -> None:
    backend = MemoryBackend("orders")
    table: Table = backend.table("count", int)
    table.put("a", 1)
    snapshot(backend)
    table.delete("a")

    (newest,) = table.writable()
    assert newest["a"] is MISSING
    assert table.get("a") is MISSING
    assert list(table.items()) == []


def test_fused_code_may_write_to_the_newest_layer() -> None:
    backend = MemoryBackend("orders")
    table: Table = backend.table("count", int)

    assert table.scalar is int
    (newest,) = table.writable()
    newest["a"] = table.seal("a", 5)

    again = restored(snapshot(backend))
    assert again.table("count", int).get("a") == 5


def test_restored_state_waits_until_it_is_declared() -> None:
    backend = MemoryBackend("orders")
    bound(ValueState(Stats, name="stats"), "a", backend).set(Stats(1, 2.0))
    bound(ListState(name="log"), "a", backend).add("x")

    again = restored(snapshot(backend))

    assert again.undeclared() == ["log", "stats"]
    assert again.size() == 2
    assert bound(ValueState(Stats, name="stats"), "a", again).get() == Stats(1, 2.0)
    assert again.undeclared() == ["log"]
    assert again.freeze() is None


def test_state_declared_before_it_is_restored_is_there_too() -> None:
    backend, again = MemoryBackend("orders"), MemoryBackend("orders")
    bound(ListState(name="log"), "a", backend).add("x")
    log = bound(ListState(name="log"), "a", again)

    again.load(snapshot(backend))

    assert log.get() == ["x"]
    assert again.undeclared() == []


def test_a_field_added_with_a_default_still_loads() -> None:
    old = msgspec.defstruct("Total", [("count", int)])
    new = msgspec.defstruct("Total", [("count", int), ("unit", str, "EUR")])
    backend = MemoryBackend("orders")
    bound(ValueState(old, name="total"), "a", backend).set(old(3))

    again = restored(snapshot(backend))

    assert bound(ValueState(new, name="total"), "a", again).get() == new(3, "EUR")


KINDS: dict[str, StateSpec[Any]] = {
    "value": ValueState(name="s"),
    "list": ListState(name="s"),
    "map": MapState(name="s"),
}


@pytest.mark.parametrize("declared", KINDS)
@pytest.mark.parametrize("written", KINDS)
def test_state_of_another_kind_is_refused(written: str, declared: str) -> None:
    if written == declared:
        return
    backend = MemoryBackend("orders")
    handle = bound(KINDS[written], "a", backend)
    handle.put("x", 1) if written == "map" else handle.set([1])
    again = restored(snapshot(backend))

    with pytest.raises(StateError) as raised:
        bound(KINDS[declared], "a", again)

    assert str(raised.value) == (
        f"operator 'orders', state 's': the checkpoint holds a {written} state of that name, and a "
        f"{declared} state is declared now: declare it as before, or under another name"
    )


@pytest.mark.parametrize(
    ("before", "after", "write"),
    [
        (ValueState(str, name="s"), ValueState(int, name="s"), lambda handle: handle.set("x")),
        (ListState(str, name="s"), ListState(int, name="s"), lambda handle: handle.add("x")),
        (MapState(str, str, name="s"), MapState(str, int, name="s"), lambda h: h.put("x", "y")),
        (ValueState(name="s"), ValueState(Stats, name="s"), lambda h: h.set({"count": "many"})),
    ],
)
def test_state_of_another_type_is_refused(before: Any, after: Any, write: Any) -> None:
    backend = MemoryBackend("orders")
    write(bound(before, "a", backend))
    again = restored(snapshot(backend))

    with pytest.raises(StateError) as raised:
        bound(after, "a", again)

    message = str(raised.value)
    assert message.startswith(
        "operator 'orders', state 's', key 'a': what the checkpoint holds can"
    )
    assert "Declare the state with the type it was written with" in message
    assert again.undeclared() == ["s"]


def test_a_key_whose_class_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend("orders")
    bound(ValueState(name="s"), Place("JFK"), backend).set(1)
    blocks = snapshot(backend)
    monkeypatch.delattr("tests.state.classes.Place")

    with pytest.raises(
        StateError, match=r"state 's': a stored key cannot be read: class tests.state"
    ):
        bound(ValueState(name="s"), "a", restored(blocks))


def test_a_damaged_block_is_told() -> None:
    backend = MemoryBackend("orders")
    bound(ValueState(name="s"), True, backend).set(1)
    (block,) = snapshot(backend)
    data = bytearray(block.data)
    data[-3:] = b"\xc1\xc1\xc1"

    with pytest.raises(StateError, match="damaged"):
        bound(ValueState(name="s"), 1, restored([Block("s", block.group, 1, bytes(data))]))


def test_the_same_declaration_gives_the_same_handle() -> None:
    backend, scope, other = MemoryBackend("orders"), Scope("a"), Scope("b")
    spec = ReducingState(lambda one, two: one + two, int, name="sum")
    again = ReducingState(lambda one, two: one + two, int, name="sum")
    total = backend.handle(spec, scope)

    assert backend.handle(spec, scope) is total
    assert backend.handle(again, scope) is total
    assert backend.handle(spec, other) is not total
    total.add(1)
    assert backend.handle(spec, other).get() is None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (ValueState(int, name="s"), ValueState(str, name="s")),
        (ValueState(int, name="s"), ValueState(int, name="s", default=1)),
        (ValueState(int, name="s"), ReducingState(max, int, name="s")),
        (ValueState(name="s"), MapState(name="s")),
        (MapState(int, name="s"), MapState(str, name="s")),
    ],
)
def test_a_state_declared_twice_in_different_ways_is_refused(one: Any, two: Any) -> None:
    backend = MemoryBackend("orders")
    bound(one, "a", backend)

    with pytest.raises(StateError, match="operator 'orders', state 's': it is declared twice: as"):
        bound(two, "a", backend)


def test_a_table_and_a_state_of_another_type_are_refused() -> None:
    backend = MemoryBackend("orders")
    backend.table("s", int)

    with pytest.raises(StateError, match=r"it is declared twice: as a value of type <class 'int'>"):
        backend.table("s", str)


def test_a_state_without_a_name_is_refused() -> None:
    with pytest.raises(StateError, match="has no name: pass name="):
        bound(ValueState(int))


def test_a_declaration_that_is_wrong_is_told() -> None:
    with pytest.raises(
        StateError, match="operator 'orders', state 's': the declared type 5 cannot"
    ):
        bound(ValueState(cast("Any", 5), name="s"))
    with pytest.raises(
        StateError, match="state 's': a value of type builtins:str cannot be stored"
    ):
        bound(ValueState(cast("Any", int), name="s", default="x"))
    with pytest.raises(StateError, match="is no kind of state that this backend knows"):
        bound(StateSpec("s"))


def test_a_value_that_does_not_fit_fails_the_snapshot_by_name() -> None:
    backend = MemoryBackend("orders")
    table = backend.table("count", int)
    (newest,) = table.writable()
    newest["a"] = object()  # past `seal`, as only broken code does

    with pytest.raises(
        StateError, match="operator 'orders', state 'count', key 'a': a value of ty"
    ):
        encoded(backend.freeze())


def test_entries_of_a_map_come_in_the_same_order_after_a_restore() -> None:
    backend, scope = MemoryBackend("orders"), Scope()
    index = backend.handle(MapState(name="i"), scope)
    for scope.key in ("b", 3, ("a", 1), "a"):
        index.put(2, [scope.key])
        index.put(1, "x")
    again = restored(snapshot(backend))
    again.handle(MapState(name="i"), Scope())

    assert list(again.map_entries("i")) == list(backend.map_entries("i"))
    assert len(list(backend.map_entries("i"))) == 8
    with pytest.raises(StateError, match="state 'nothing': no map of that name is declared"):
        backend.map_entries("nothing")


def test_it_keeps_the_contract() -> None:
    backend: KeyedBackend = MemoryBackend("orders")

    assert backend.size() == 0
