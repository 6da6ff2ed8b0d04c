"""State handles against plain dicts: writes amid freezes, half encodings, restores and merges."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.merging import merge_blocks
from flowrt.contract.snapshot import MISSING, Block, Table
from flowrt.contract.state import ListState, MapState, StateSpec, ValueState
from flowrt.state import frozen, layers, table
from flowrt.state.memory import MemoryBackend
from tests.state.kit import Scope, restored

KEYS = [True, 1, 1.0, ("a", 2.0), "a", "half \ud800", 2**64, 7]
NAMES = ["x", 0, False, 0.0, 1, True, 1.0, Decimal(1), (0, "y"), (False, "y")]
PLAIN = st.one_of(
    st.integers(), st.text(max_size=3), st.booleans(), st.none(), st.floats(allow_nan=False)
)
VALUES = st.one_of(PLAIN, st.lists(st.integers(), max_size=2))
WRITES = st.tuples(
    st.sampled_from(["write", "write", "drop", "clear"]),
    st.sampled_from(KEYS),
    st.sampled_from(NAMES),
    VALUES,
)
CUTS = st.sampled_from(
    ["freeze", "slice", "cut", "cut", "cut", "cut", "restore", "merge", "merge newest"]
)
# Long ones from the start: what goes wrong needs several snapshots of one key.
HISTORIES = st.lists(
    st.one_of(WRITES, WRITES, CUTS.map(lambda name: (name,))), min_size=25, max_size=50
)


class ValueTwin:
    spec: StateSpec[Any] = ValueState(name="s")

    def bind(self, backend: MemoryBackend, scope: Scope) -> Any:
        return backend.handle(type(self).spec, scope)

    def write(self, model: dict[Any, Any], handle: Any, key: Any, name: Any, value: Any) -> None:
        handle.set(value)
        model[key] = value

    def drop(self, model: dict[Any, Any], handle: Any, key: Any, name: Any) -> None:
        self.clear(model, handle, key)

    def clear(self, model: dict[Any, Any], handle: Any, key: Any) -> None:
        handle.clear()
        model.pop(key, None)

    def check(self, model: dict[Any, Any], handle: Any, key: Any) -> None:
        assert handle.get() == model.get(key)
        assert type(handle.get()) is type(model.get(key))


class FusedTwin(ValueTwin):
    """Reads and writes as fused code does."""

    def bind(self, backend: MemoryBackend, scope: Scope) -> Any:
        return FusedHandle(backend.table("s", None), scope)


class FusedHandle:
    def __init__(self, table: Table, scope: Scope) -> None:
        self.table = table
        self.scope = scope

    def get(self) -> Any:
        entries, key = self.entries(), self.scope.key
        stored = entries[key] if key in entries else self.table.cold(key)
        return None if stored is MISSING else self.table.unseal(stored)

    def set(self, value: Any) -> None:
        self.get()
        self.entries()[self.scope.key] = self.table.seal(self.scope.key, value)

    def clear(self) -> None:
        self.table.delete(self.scope.key)

    def entries(self) -> dict[Any, Any]:
        layer = self.table.writable()
        return layer[hash(self.scope.key) % len(layer)]


class ListTwin(ValueTwin):
    spec = ListState(name="s")

    def write(self, model: dict[Any, Any], handle: Any, key: Any, name: Any, value: Any) -> None:
        handle.add(value)
        model.setdefault(key, []).append(value)

    def drop(self, model: dict[Any, Any], handle: Any, key: Any, name: Any) -> None:
        handle.set([name, name])
        model[key] = [name, name]

    def check(self, model: dict[Any, Any], handle: Any, key: Any) -> None:
        assert handle.get() == list(handle) == model.get(key, [])
        assert len(handle) == len(model.get(key, []))


class MapTwin(ValueTwin):
    spec = MapState(name="s")

    def write(self, model: dict[Any, Any], handle: Any, key: Any, name: Any, value: Any) -> None:
        handle.put(name, value)
        model.setdefault(key, {})[name] = value

    def drop(self, model: dict[Any, Any], handle: Any, key: Any, name: Any) -> None:
        handle.remove(name)
        model.get(key, {}).pop(name, None)

    def check(self, model: dict[Any, Any], handle: Any, key: Any) -> None:
        entries = model.get(key, {})
        assert list(handle.items()) == list(entries.items())
        assert list(map(repr, handle.keys())) == list(map(repr, entries)), "in the form put first"
        assert list(handle.values()) == list(entries.values())
        assert len(handle) == len(entries)
        for name in NAMES:
            assert (name in handle) == (name in entries)
            assert handle.get(name, "none") == entries.get(name, "none")


class Run:
    """A backend and its files beside a plain dict, and the dict as of the last whole snapshot."""

    def __init__(self, twin: ValueTwin) -> None:
        self.twin = twin
        self.files: list[list[Block]] = []
        self.durable: dict[Any, Any] = {}
        self.restore()

    def act(self, what: str, *of: Any) -> None:
        if of:
            key, name, value = of
            self.scope.key = key
            arguments = {"write": (name, value), "drop": (name,), "clear": ()}[what]
            getattr(self.twin, what)(self.model, self.handle, key, *arguments)
        else:
            getattr(self, what.replace(" ", "_"))()

    def check(self) -> None:
        for key in KEYS:
            self.scope.key = key
            self.twin.check(self.model, self.handle, key)

    def cut(self) -> None:
        self.freeze()
        self.finish()

    def freeze(self) -> None:
        self.finish()
        frozen = self.backend.freeze()
        self.encoding = iter(()) if frozen is None else frozen.encode()
        self.frozen = deepcopy(self.model)

    def slice(self) -> bool:
        blocks = next(self.encoding, None)
        if blocks:
            self.files.append(blocks)
            self.durable = self.frozen
            self.check_files()
        return blocks is not None

    def check_files(self) -> None:
        scope = Scope()
        handle = self.twin.bind(restored(*self.files), scope)
        for scope.key in KEYS:
            self.twin.check(self.durable, handle, scope.key)

    def finish(self) -> None:
        while self.slice():
            pass

    def restore(self) -> None:
        self.scope = Scope()
        self.backend: MemoryBackend = restored(*self.files)
        self.handle = self.twin.bind(self.backend, self.scope)
        self.model = deepcopy(self.durable)
        self.encoding = iter(())

    def merge(self) -> None:
        self.files = [merged(self.files, drop_deleted=True)]
        self.check_files()

    def merge_newest(self) -> None:
        self.files[-2:] = [merged(self.files[-2:], drop_deleted=len(self.files) <= 2)]
        self.check_files()


def merged(files: list[list[Block]], drop_deleted: bool) -> list[Block]:
    blocks = sorted((block for file in files for block in file), key=lambda block: block.group)
    groups = groupby(blocks, key=lambda block: block.group)
    return [merge_blocks(list(same), drop_deleted) for _, same in groups]


@pytest.fixture(autouse=True)
def _slices_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "SLICE_NS", 1)


@pytest.mark.parametrize("twin", [ValueTwin(), ListTwin(), MapTwin()], ids=["value", "list", "map"])
@given(history=HISTORIES)
def test_a_state_is_a_dict_at_any_cut(twin: ValueTwin, history: list[Any]) -> None:
    follow(twin, history)


@pytest.mark.parametrize(("large", "sorted_", "some"), [(0, 1, 1), (2, 2, 2), (1, 100, 100)])
@pytest.mark.parametrize("twin", [ValueTwin(), FusedTwin()], ids=["value", "fused"])
@given(history=HISTORIES)
def test_a_value_state_is_a_dict_in_layers_of_any_size(
    twin: ValueTwin, large: int, sorted_: int, some: int, history: list[Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "LARGE", large)
        patch.setattr(table, "ROUND", sorted_)
        patch.setattr(table, "SOME", some)
        follow(twin, history)


def follow(twin: ValueTwin, history: list[Any]) -> None:
    run = Run(twin)

    for step in history:
        run.act(*step)
        run.check()
    run.cut()
