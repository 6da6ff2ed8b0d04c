"""Records a second, spread evenly."""

from __future__ import annotations

import pytest

from flowrt.dataflow.sources.throttle import Throttle


def test_records_are_spread_evenly() -> None:
    throttle = Throttle(records_per_second=10)
    assert [throttle.take(1, now_ms=1_000) for _ in range(4)] == [1_000, 1_100, 1_200, 1_300]


def test_a_run_keeps_the_next_waiting_for_as_long_as_it_is() -> None:
    throttle = Throttle(records_per_second=1_000)
    assert throttle.take(500, now_ms=0) == 0
    assert throttle.take(1, now_ms=0) == 500


def test_what_was_not_used_up_is_not_caught_up() -> None:
    throttle = Throttle(records_per_second=10)
    throttle.take(1, now_ms=0)
    assert throttle.take(1, now_ms=60_000) == 60_000
    assert throttle.take(1, now_ms=60_000) == 60_100


def test_fractions_of_a_millisecond_add_up() -> None:
    throttle = Throttle(records_per_second=3_000)
    leaves = [throttle.take(1, now_ms=0) for _ in range(3_001)]
    assert leaves[-1] == pytest.approx(1_000)


@pytest.mark.parametrize(
    ("rate", "limit"), [(0.1, 1), (10, 1), (1_000, 50), (20_000, 1_000), (1e9, 1_024)]
)
def test_chunks_are_as_large_as_fifty_milliseconds_allow(rate: float, limit: int) -> None:
    assert Throttle(rate).limit() == limit
