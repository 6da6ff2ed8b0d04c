"""Continuous opens epochs by time, and time is told to it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.errors import ConfigError
from flowrt.contract.scheduler import Scheduler
from flowrt.schedulers.continuous import Continuous


def test_it_is_a_scheduler() -> None:
    scheduler: Scheduler = Continuous("500ms")

    assert scheduler.describe() == "continuous, an epoch every 500 ms"
    assert Continuous(timedelta(minutes=1)).describe() == "continuous, an epoch every 60 s"
    assert repr(Continuous()) == "Continuous(epoch_interval='1000ms')"
    assert Continuous("2s").epoch_interval_ms == 2_000


def test_the_first_epoch_opens_after_one_interval() -> None:
    assert Continuous("1s").next_epoch_ms(5_000, None) == 6_000


def test_epochs_are_counted_from_opening_to_opening() -> None:
    # The epoch before took 300 ms to commit; the next one is not later for that.
    assert Continuous("1s").next_epoch_ms(6_300, 6_000) == 7_000


def test_an_epoch_that_took_too_long_is_followed_at_once_and_not_made_up_for() -> None:
    scheduler = Continuous("1s")

    assert scheduler.next_epoch_ms(9_500, 6_000) <= 9_500
    assert scheduler.next_epoch_ms(9_510, 9_500) == 10_500


@pytest.mark.parametrize("interval", ["0s", "0.4ms", timedelta(0)])
def test_an_interval_below_a_millisecond_is_refused(interval: str | timedelta) -> None:
    with pytest.raises(ConfigError, match=r"epoch_interval=.* at least 1 ms"):
        Continuous(interval)


@pytest.mark.parametrize("interval", ["soon", "-1s"])
def test_what_is_no_interval_is_refused(interval: str) -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        Continuous(interval)


@given(now=st.integers(0, 2**42), last=st.none() | st.integers(0, 2**42))
def test_no_wait_is_longer_than_the_interval_whatever_the_clock_does(
    now: int, last: int | None
) -> None:
    assert Continuous("1s").next_epoch_ms(now, last) - now <= 1_000
