"""Restart strategies: how long to wait after which failure, and when to give up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.errors import ConfigError
from flowrt.contract.retry import ExponentialBackoff, FixedDelay, NoRestart


def test_without_a_restart_the_first_failure_is_the_last() -> None:
    assert NoRestart().delay_ms(1, 0.5) is None


def test_a_fixed_delay_gives_up_after_so_many_failures_in_a_row() -> None:
    strategy = FixedDelay("2s", attempts=3)

    assert [strategy.delay_ms(failures, 0.5) for failures in (1, 2, 3, 4)] == [2000] * 3 + [None]


def test_backoff_grows_by_its_factor_up_to_the_longest_delay() -> None:
    strategy = ExponentialBackoff("100ms", longest="1s", factor=3)

    assert [strategy.delay_ms(failures, 0.5) for failures in (1, 2, 3, 4)] == [100, 300, 900, 1000]


def test_backoff_tries_for_ever_unless_told_otherwise() -> None:
    assert ExponentialBackoff("1s", longest="1m").delay_ms(1_000_000, 0.5) == 60_000
    assert ExponentialBackoff(attempts=2).delay_ms(2, 0.5) is not None
    assert ExponentialBackoff(attempts=2).delay_ms(3, 0.5) is None


@given(failures=st.integers(1, 10**9), chance=st.floats(0, 1, exclude_max=True))
def test_jitter_is_a_tenth_of_the_delay(failures: int, chance: float) -> None:
    delay = ExponentialBackoff("1s", longest="1m").delay_ms(failures, chance)
    middle = ExponentialBackoff("1s", longest="1m").delay_ms(failures, 0.5)

    assert delay is not None
    assert middle is not None
    assert abs(delay - middle) <= 0.05 * middle + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedDelay("soon"), "'soon' is not a duration"),
        (lambda: FixedDelay("1s", attempts=0), "attempts=0"),
        (lambda: ExponentialBackoff(timedelta(-1)), "negative"),
        (lambda: ExponentialBackoff(longest="never"), "'never' is not a duration"),
        (lambda: ExponentialBackoff(factor=0.5), "factor=0.5"),
        (lambda: ExponentialBackoff(attempts=0), "attempts=0"),
    ],
)
def test_a_strategy_that_cannot_work_is_refused_when_it_is_made(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
