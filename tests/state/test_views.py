"""Reading a state from outside: values of one's own, and keys while entries move."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.snapshot import MISSING
from flowrt.contract.state import AggregatingState, ListState, MapState, ValueState
from flowrt.state import frozen, layers, table
from flowrt.state.keys import encode_key
from flowrt.state.memory import MemoryBackend
from flowrt.state.views import in_pieces, of_key
from tests.state.kit import Scope, bound, restored, snapshot

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "clear"]), st.integers(0, 30)),
        st.tuples(st.sampled_from(["freeze", "slice", "slice", "slice", "keys"]), st.just(0)),
    ),
    max_size=80,
)


@given(before=ACTIONS, during=ACTIONS)
def test_a_key_that_is_there_all_the_time_comes_exactly_once(
    before: list[Any], during: list[Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "LARGE", 4)
        patch.setattr(table, "SOME", 3)
        patch.setattr(frozen, "SLICE_NS", 1)
        run = Run()
        for what, key in before:
            getattr(run, what)(key)
        run.begin()
        for what, key in during:
            getattr(run, what)(key)
        run.finish()


class Run:
    """A state that changes while its keys are listed."""

    def __init__(self) -> None:
        self.backend = MemoryBackend("orders")
        self.scope = Scope()
        self.handle = self.backend.handle(ValueState(name="s"), self.scope)
        self.view = self.backend.view(ValueState(name="s"))
        self.encoding: Any = iter(())
        self.lists: Any = iter(())
        self.given: list[int] = []
        self.model: set[int] = set()
        self.kept: set[int] = set()

    def write(self, key: int) -> None:
        self.scope.key = key
        # A batch holds the one, and not the other: both ways to the base are gone.
        self.handle.set(key if key % 2 else [key])
        self.model.add(key)

    def clear(self, key: int) -> None:
        self.scope.key = key
        self.handle.clear()
        self.model.discard(key)
        self.kept.discard(key)

    def freeze(self, _: int) -> None:
        for _slice in self.encoding:
            pass
        frozen = self.backend.freeze()
        self.encoding = iter(()) if frozen is None else frozen.encode()

    def slice(self, _: int) -> None:
        next(self.encoding, None)

    def begin(self) -> None:
        assert self.view is not None
        self.kept = set(self.model)
        self.lists = self.view.key_lists()

    def keys(self, _: int) -> None:
        assert self.view is not None
        for key in next(self.lists, []):
            self.given.append(key)
            assert (self.view.get(key) is not MISSING) == (key in self.model)

    def finish(self) -> None:
        for keys in self.lists:
            self.given += keys
        assert len(self.given) == len(set(self.given))
        assert self.kept <= set(self.given)


SPECS = [
    ValueState(name="s"),
    ListState(name="s"),
    MapState(name="s"),
    AggregatingState(list, lambda acc, value: [*acc, value], len, name="s"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_one_key_out_of_blocks_is_as_out_of_all(spec: Any) -> None:
    keys = [*range(1_500), *map(str, range(1_500)), 0.5, ("a", 1)]
    backend = MemoryBackend("orders")
    for key in keys:
        handle = bound(spec, key, backend)
        if isinstance(spec, ValueState):
            handle.set(key)
        elif isinstance(spec, MapState):
            handle.put("name", key)
        else:
            handle.add(key)
    first = snapshot(backend)
    bound(spec, 7, backend).clear()
    blocks = [*first, *snapshot(backend)]
    whole = restored(blocks).declare(spec, 0)
    for key in [7, 7.0, 8, True, "8", 0.5, ("a", 1.0), "nobody"]:
        found = []
        for block in blocks:
            *pauses, taken = of_key(block, key)
            assert set(pauses) <= {None}
            assert taken is not None
            found.append(taken)
        assert restored(found).declare(spec, 0).get(key) == whole.get(key)
    pieces = [piece for block in blocks for piece in in_pieces(block)]
    assert max(piece.entries for piece in pieces) <= 2 * table.SOME
    cut = restored(pieces).declare(spec, 0)
    assert all(cut.get(key) == whole.get(key) for key in keys)
    assert encode_key(7.0)[0] == encode_key(7)[0]
