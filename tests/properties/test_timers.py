"""Timers against a plain list, with a snapshot and a restore at any cut."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.snapshot import Block
from flowrt.dataflow.chains.timers import TimerQueue
from flowrt.state.memory import MemoryBackend
from tests.state.kit import Scope, restored, snapshot

TIMES = st.integers(0, 6)
KEYS = st.sampled_from(["a", "b", 1, ("a", 1)])
STEPS = st.one_of(
    st.tuples(st.just("register"), KEYS, TIMES),
    st.tuples(st.just("register"), KEYS, TIMES),
    st.tuples(st.just("delete"), KEYS, TIMES),
    st.tuples(st.just("due"), TIMES, st.integers(0, 3)),
    st.just(("cut",)),
)


class Naive:
    """Timers as a list in order of registration."""

    def __init__(self) -> None:
        self.timers: list[tuple[int, Any]] = []

    def register(self, timestamp: int, key: Any) -> None:
        if (timestamp, key) not in self.timers:
            self.timers.append((timestamp, key))

    def delete(self, timestamp: int, key: Any) -> None:
        if (timestamp, key) in self.timers:
            self.timers.remove((timestamp, key))

    def take(self, until: int) -> tuple[int, Any] | None:
        found = min(self.timers, key=lambda timer: timer[0], default=None)
        if found is None or found[0] > until:
            return None
        self.timers.remove(found)
        return found


@given(history=st.lists(STEPS, min_size=15, max_size=40))
def test_timers_are_a_sorted_list_at_any_cut(history: list[Any]) -> None:
    naive, files, scope = Naive(), list[list[Block]](), Scope()
    backend = MemoryBackend("orders")
    timers = TimerQueue(backend, scope, "event")

    for step in [*history, ("cut",), ("due", 9, 0)]:
        match step:
            case ("register" | "delete" as what, key, timestamp):
                scope.key = key
                getattr(timers, what)(timestamp)
                getattr(naive, what)(timestamp, key)
            case ("due", until, chained):
                for fired in timers.due(until):
                    assert fired == naive.take(until)
                    if chained:  # a timer that sets another one, due or not
                        chained -= 1
                        timers.register(fired[0] + chained)
                        naive.register(fired[0] + chained, fired[1])
                assert naive.take(until) is None
            case _:
                files.append(snapshot(backend))
                backend, scope = restored(*files), Scope()
                timers = TimerQueue(backend, scope, "event")
        assert len(timers) == len(naive.timers)
        assert timers.earliest() == min((time for time, _ in naive.timers), default=None)
