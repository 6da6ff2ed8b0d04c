"""States whose type has changed: read, migrated or refused, and written anew in whole."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import Any

import msgspec
import pytest

from flowrt.contract.errors import ConfigError, StateError
from flowrt.contract.snapshot import Block
from flowrt.contract.state import ListState, MapState, StateSpec, Ttl, ValueState
from flowrt.state.memory import MemoryBackend
from flowrt.testing.world import manual_world
from tests.state.kit import Scope, encoded

KEYS = ["a", 1, ("b", 2.0), True]


class Old(msgspec.Struct, frozen=True):
    cents: int
    note: str


class New(msgspec.Struct, frozen=True):
    euros: float


class More(msgspec.Struct, frozen=True):
    cents: int
    note: str
    paid: bool = False


def to_new(plain: dict[str, Any]) -> New:
    return New(plain["cents"] / 100)


class Stored:
    """What one life of a state left: its blocks and shapes."""

    def __init__(self, backend: MemoryBackend, former: Stored | None = None) -> None:
        frozen = backend.freeze()
        blocks = encoded(frozen)
        is_whole = former is None or (frozen is not None and frozen.is_whole)
        self.files: list[list[Block]] = [blocks] if is_whole else [*former.files, blocks]  # type: ignore[union-attr]
        self.shapes = backend.shapes()

    def backend(self) -> MemoryBackend:
        backend = MemoryBackend("orders")
        backend.written_as(range(128), self.shapes)
        for blocks in self.files:
            backend.load(blocks)
        return backend


class Timed(Scope):
    """A scope with a clock, for states with a time to live."""

    def __init__(self, key: Any) -> None:
        super().__init__(key)
        self.world = manual_world()
        self.timestamp = None
        self.watermark = 0


def write(backend: MemoryBackend, spec: StateSpec[Any], value: Any) -> None:
    for number, key in enumerate(KEYS):
        handle = backend.handle(spec, Timed(key))
        for _ in range(number + 1):
            if isinstance(spec, ValueState):
                handle.set(value)
            elif isinstance(spec, ListState):
                handle.add(value)
            else:
                handle.put(f"name {number}", value)


def read(backend: MemoryBackend, spec: StateSpec[Any]) -> dict[Any, Any]:
    found = {}
    for key in KEYS:
        handle = backend.handle(spec, Timed(key))
        value = list(handle.items()) if isinstance(spec, MapState) else handle.get()
        found[key] = value
    return found


def as_kept(spec: StateSpec[Any], value: Any) -> dict[Any, Any]:
    """What `read` gives after `write` of a value."""
    backend = MemoryBackend("orders")
    write(backend, spec, value)
    return read(backend, spec)


KINDS: dict[str, Any] = {
    "value": ValueState,
    "list": ListState,
    "map": lambda type, **options: MapState(str, type, **options),
    "with ttl": lambda type, **options: ValueState(type, ttl=Ttl("1h"), **options),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


def test_a_field_added_with_a_default_loads_and_is_written_from_then_on(kind: Any) -> None:
    before, now = kind(Old, name="s"), kind(More, name="s")
    backend = MemoryBackend("orders")
    write(backend, before, Old(150, "x"))
    stored = Stored(backend)

    backend = stored.backend()
    assert read(backend, now) == as_kept(now, More(150, "x"))
    again = Stored(backend, stored)
    assert len(again.files) == 1, "what was written before is not needed"
    assert read(again.backend(), now) == as_kept(now, More(150, "x"))
    assert again.backend().freeze() is None


def test_what_does_not_fit_is_refused_naming_all(kind: Any) -> None:
    backend = MemoryBackend("orders")
    write(backend, kind(Old, name="s"), Old(150, "x"))

    with pytest.raises(StateError) as raised:
        read(Stored(backend).backend(), kind(New, name="s"))

    message = str(raised.value)
    assert message.startswith("operator 'orders', state 's': the snapshot holds values of another")
    assert "class tests.state.test_migration:Old is tests.state.test_migration:New now" in message
    assert "field 'cents' (int) is gone" in message
    assert "field 'euros' (float) is new and has no default" in message
    assert "migrate=" in message


def test_migrate_makes_each_value_anew_once(kind: Any) -> None:
    backend, other = MemoryBackend("orders"), ValueState(int, name="other")
    write(backend, kind(Old, name="s"), Old(150, "x"))
    write(backend, other, 7)
    stored, calls = Stored(backend), 0

    def migrate(plain: Any) -> New:
        nonlocal calls
        calls += 1
        return to_new(plain)

    now = kind(New, name="s", migrate=migrate)
    backend = stored.backend()
    assert read(backend, now) == as_kept(now, New(1.5))
    made = calls
    for key in KEYS[1:]:
        backend.handle(now, Timed(key)).clear()
    again = Stored(backend, stored)
    assert len(again.files) == 1
    backend = again.backend()
    left = read(backend, now)
    assert [key for key in KEYS if left[key]] == ["a"], "what was cleared stays so"
    assert read(backend, other) == dict.fromkeys(KEYS, 7), "what was not declared yet is kept"
    assert calls == made > 0


def test_what_migrate_raises_or_returns_is_told() -> None:
    backend = MemoryBackend("orders")
    write(backend, ValueState(Old, name="s"), Old(150, "x"))
    stored = Stored(backend)

    def fail(plain: Any) -> Any:
        return plain["euros"]

    with pytest.raises(StateError, match=r"state 's', key .*: migrate failed: KeyError: 'euros'"):
        read(stored.backend(), ValueState(New, name="s", migrate=fail))
    with pytest.raises(StateError, match="what migrate returned cannot be stored"):
        read(stored.backend(), ValueState(New, name="s", migrate=lambda plain: object()))


async def into_new(plain: Any) -> New:
    return New(0)


class IntoNew:
    async def __call__(self, plain: Any) -> New:
        return New(0)


@pytest.mark.parametrize("migrate", [into_new, partial(into_new), IntoNew()])
def test_a_migrate_that_is_a_coroutine_function_is_refused_where_it_is_declared(
    migrate: Any,
) -> None:
    with pytest.raises(ConfigError, match=r"is a coroutine function.*pass a plain function"):
        ValueState(New, name="s", migrate=migrate)


def test_a_migrate_that_returns_a_coroutine_is_told_and_leaves_no_warning() -> None:
    backend = MemoryBackend("orders")
    write(backend, ValueState(Old, name="s"), Old(150, "x"))
    now: Any = ValueState(New, name="s", migrate=lambda plain: into_new(plain or {}))
    with pytest.raises(StateError, match="a coroutine, and migrate must be a plain function"):
        read(Stored(backend).backend(), now)


def test_plain_values_in_batches_are_migrated_too() -> None:
    backend = MemoryBackend("orders")
    write(backend, ValueState(int, name="s"), 7)
    now = ValueState(str, name="s", migrate=str)

    assert read(Stored(backend).backend(), now) == dict.fromkeys(KEYS, "7")
    with pytest.raises(StateError, match="its type was int and is str now"):
        read(restored_ints(), ValueState(str, name="s"))


def restored_ints() -> MemoryBackend:
    backend = MemoryBackend("orders")
    write(backend, ValueState(int, name="s"), 7)
    return Stored(backend).backend()


def test_an_int_may_become_a_float() -> None:
    now = ValueState(float, name="s")

    assert read(restored_ints(), now) == dict.fromkeys(KEYS, 7.0)


def test_a_snapshot_without_shapes_is_read_as_it_is() -> None:
    backend = MemoryBackend("orders")
    write(backend, ValueState(Old, name="s"), Old(150, "x"))
    stored = Stored(backend)
    stored.shapes = {}

    assert read(stored.backend(), ValueState(More, name="s"))["a"] == More(150, "x")
    with pytest.raises(StateError, match="does not fit"):
        read(stored.backend(), ValueState(New, name="s"))


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)
    define(module, "Item", x=int, y=int)
    return module


def define(module: ModuleType, name: str, **fields: type) -> Any:
    cls = msgspec.defstruct(name, list(fields.items()), module="shop")
    vars(module)[name] = cls
    return cls


def test_undeclared_values_are_migrated_where_their_class_has_changed_or_moved(
    shop: ModuleType,
) -> None:
    spec = ValueState(name="s")
    backend = MemoryBackend("orders")
    write(backend, spec, shop.Item(1, 2))
    stored = Stored(backend)
    assert Stored(stored.backend(), stored).files[0] == stored.files[0]

    thing = define(shop, "Item", x=int)
    with pytest.raises(StateError, match="has a field 'y', and the class has none"):
        read(stored.backend(), spec)
    now: Any = ValueState(name="s", migrate=lambda plain: thing(plain["x"] + plain["y"]))
    assert read(stored.backend(), now) == dict.fromkeys(KEYS, thing(3))

    del shop.Item
    with pytest.raises(StateError, match="renamed or moved"):
        read(stored.backend(), spec)
    renamed = define(shop, "Thing", x=int)
    now = ValueState(name="s", migrate=lambda plain: renamed(plain["x"]))
    backend = stored.backend()
    assert read(backend, now) == dict.fromkeys(KEYS, renamed(1))
    again = Stored(backend, stored)
    assert len(again.files) == 1
    assert read(again.backend(), spec) == dict.fromkeys(KEYS, renamed(1))
