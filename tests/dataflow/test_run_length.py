"""How many records a source sends in one go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowrt.dataflow.channels.run_length import FIRST, LONG_NS, RUN_LIMIT, RunLength


def test_quick_runs_make_it_grow_to_the_longest() -> None:
    length = RunLength()
    limits = [length.limit]
    while length.limit < RUN_LIMIT:
        length.took(length.limit, 1_000)
        limits.append(length.limit)

    assert limits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def test_a_slow_step_makes_it_as_short_as_is_done_in_time() -> None:
    length = RunLength()
    while length.limit < 16:
        length.took(length.limit, 1_000)

    length.took(16, 16 * 5_000_000)

    assert length.limit == 4


def test_a_record_that_takes_longer_than_that_comes_alone() -> None:
    length = RunLength()

    length.took(FIRST, FIRST * 10 * LONG_NS)

    assert length.limit == 1


def test_it_grows_again_once_the_step_is_quick() -> None:
    length = RunLength()
    length.took(FIRST, FIRST * LONG_NS)
    length.took(1, 1_000)
    length.took(2, 1_000)

    assert length.limit == 4


@given(st.integers(1, 10**9), st.integers(0, 5))
def test_at_a_steady_pace_runs_take_as_long_as_they_may_and_no_longer(
    record_ns: int, before: int
) -> None:
    length = RunLength()
    for _ in range(before):
        length.took(length.limit, 0)
    for _ in range(20):
        length.took(length.limit, length.limit * record_ns)

    took = length.limit * record_ns
    assert took <= LONG_NS or length.limit == 1
    assert 4 * took >= LONG_NS or length.limit == RUN_LIMIT
