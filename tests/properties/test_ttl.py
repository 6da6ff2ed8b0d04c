"""States with a time to live against plain dicts with a clock: writes, reads, cuts, restores."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.merging import merge_blocks
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    StateSpec,
    Ttl,
    ValueState,
)
from flowrt.state.memory import MemoryBackend
from flowrt.testing.world import manual_world
from tests.state.kit import encoded

TTL_MS = 100
KEYS = ["a", 1, ("b", 2)]
NAMES = ["x", "y", "z"]
STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["write", "write", "write", "read", "clear", "drop"]),
        st.sampled_from(KEYS),
        st.sampled_from(NAMES),
        st.integers(0, 9),
    ),
    st.tuples(st.just("time"), st.sampled_from([1, 7, 30, 60, 99, 100, 101, 250])),
    st.tuples(st.sampled_from(["sweep", "cut", "cut", "restore", "merge"])),
)
HISTORIES = st.lists(STEPS, min_size=10, max_size=60)


class Scope:
    """The key and the time; in event time a record is up to 20 ms ahead of the watermark."""

    def __init__(self, is_event: bool) -> None:
        self.key: Any = MISSING
        self.world = manual_world(1_000)
        self.watermark = 1_000
        self.timestamp: int | None = None
        self.is_event = is_event

    def advance(self, ms: int) -> None:
        self.watermark += ms if self.is_event else 0
        self.world.clock.advance(0 if self.is_event else ms)  # type: ignore[attr-defined]

    @property
    def now(self) -> int:
        return self.watermark if self.is_event else self.world.clock.now_ms()

    @property
    def written(self) -> int:
        return max(self.now, self.timestamp or 0) if self.is_event else self.now


class Model:
    """For each key a list of [name, value, time]; what has expired is not there."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.entries: dict[Any, list[list[Any]]] = defaultdict(list)

    def live(self, key: Any) -> list[list[Any]]:
        now = self.scope.now
        self.entries[key] = [one for one in self.entries[key] if one[2] + TTL_MS > now]
        return self.entries[key]


SPECS: dict[str, Any] = {
    "value": lambda ttl: ValueState(name="s", ttl=ttl),
    "reducing": lambda ttl: ReducingState(lambda a, b: a + b, name="s", ttl=ttl),
    "aggregating": lambda ttl: AggregatingState(
        list, lambda acc, v: [*acc, v], list, name="s", ttl=ttl
    ),
    "list": lambda ttl: ListState(name="s", ttl=ttl),
    "map": lambda ttl: MapState(name="s", ttl=ttl),
}


class Run:
    def __init__(self, kind: str, ttl: Ttl) -> None:
        self.kind = kind
        self.refreshes = ttl.refresh == "read"
        self.spec: StateSpec[Any] = SPECS[kind](ttl)
        self.scope = Scope(ttl.time == "event")
        self.model = Model(self.scope)
        self.files: list[list[Block]] = []
        self.durable: Any = {}
        self.open()

    def open(self) -> None:
        self.backend = MemoryBackend("orders")
        for blocks in self.files:
            self.backend.load(blocks)
        self.handle = self.backend.handle(self.spec, self.scope)

    # -------------------------------------------------------------- what happens

    def write(self, key: Any, name: str, value: int) -> None:
        self.scope.key, self.scope.timestamp = key, self.scope.now + value * 2
        at, live = self.scope.written, self.model.live(key)
        if self.kind == "value":
            self.handle.set([value])
            self.model.entries[key] = [["", [value], max([at, *[one[2] for one in live]])]]
        elif self.kind == "map":
            self.handle.put(name, value)
            for one in live:
                if one[0] == name:
                    one[1:] = [value, max(at, one[2])]
                    return
            live.append([name, value, at])
        elif self.kind == "list":
            self.handle.add(value)
            live.append(["", value, at])
        else:
            self.handle.add(value)
            if live:
                before = live[0][1]
                folded = before + value if self.kind == "reducing" else [*before, value]
                live[0][1:] = [folded, max(at, live[0][2])]
            else:
                live.append(["", value if self.kind == "reducing" else [value], at])

    def read(self, key: Any, name: str, value: int) -> None:
        self.scope.key, self.scope.timestamp = key, self.scope.now + value * 2
        live = self.model.live(key)
        if self.kind == "map":
            assert self.handle.get(name) == {one[0]: one[1] for one in live}.get(name)
            refreshed = [one for one in live if one[0] == name]
        else:
            self.check_key(key)
            return  # that has read it
        self.refresh(refreshed)

    def refresh(self, entries: list[list[Any]]) -> None:
        if self.refreshes:
            for one in entries:
                one[2] = max(one[2], self.scope.written)

    def clear(self, key: Any, name: str, value: int) -> None:
        self.scope.key = key
        self.handle.clear()
        self.model.entries.pop(key, None)

    def drop(self, key: Any, name: str, value: int) -> None:
        self.scope.key, self.scope.timestamp = key, self.scope.now
        if self.kind == "map":
            self.handle.remove(name)
            self.model.entries[key] = [one for one in self.model.live(key) if one[0] != name]
        elif self.kind == "list":
            self.handle.set([value, value])
            self.model.entries[key] = [["", value, self.scope.written] for _ in range(2)]
        else:
            self.clear(key, name, value)

    def time(self, ms: int) -> None:
        self.scope.advance(ms)

    def sweep(self) -> None:
        for _ in self.backend.forget_expired():
            pass

    def cut(self) -> None:
        if blocks := encoded(self.backend.freeze()):
            self.files.append(blocks)
        self.durable = {
            key: [list(e) for e in entries] for key, entries in self.model.entries.items()
        }

    def restore(self) -> None:
        self.model.entries = defaultdict(list)
        self.model.entries.update({k: [list(e) for e in v] for k, v in self.durable.items()})
        self.open()

    def merge(self) -> None:
        groups: dict[int, list[Block]] = defaultdict(list)
        for blocks in self.files:
            for block in blocks:
                groups[block.group].append(block)
        merged = [merge_blocks(blocks, drop_deleted=True) for blocks in groups.values()]
        self.files = [[block for block in merged if block.entries]]
        self.restore()

    # -------------------------------------------------------------- what must hold

    def check(self) -> None:
        for key in KEYS:
            self.check_view(key)
            if not self.refreshes:
                self.check_key(key)

    def check_key(self, key: Any) -> None:
        self.scope.key = key
        live = self.model.live(key)
        values = [one[1] for one in live]
        if self.kind == "map":
            assert list(self.handle.items()) == [(one[0], one[1]) for one in live]
            assert len(self.handle) == len(live)
            assert [name for name in NAMES if name in self.handle] == sorted(o[0] for o in live)
        elif self.kind == "list":
            assert self.handle.get() == values
        else:
            assert self.handle.get() == (values[0] if values else None)
        self.refresh(live)

    def check_view(self, key: Any) -> None:
        view = self.backend.view(self.spec)
        assert view is not None
        live = self.model.live(key)
        wanted: Any = MISSING
        if live:
            wanted = live[0][1]
        if live and self.kind == "map":
            wanted = {one[0]: one[1] for one in live}
        elif live and self.kind == "list":
            wanted = [one[1] for one in live]
        assert view.get(key) == wanted


@pytest.mark.parametrize("time", ["processing", "event"])
@pytest.mark.parametrize("refresh", ["write", "read"])
@pytest.mark.parametrize("kind", SPECS)
@given(history=HISTORIES)
def test_what_expired_is_never_seen_and_what_lives_always(
    kind: str, refresh: Any, time: Any, history: list[Any]
) -> None:
    run = Run(kind, Ttl("100ms", time=time, refresh=refresh))
    for what, *arguments in history:
        getattr(run, what)(*arguments)
        run.check()
    # Once all has expired the memory is given back without anybody's reading, and the files too.
    run.scope.advance(10 * TTL_MS)
    run.sweep()
    assert run.backend.next_expiry() is None
    run.cut()
    assert run.backend.freeze() is None
    assert run.backend.size() == 0
    if run.files:
        run.merge()
        assert run.backend.size() == 0
