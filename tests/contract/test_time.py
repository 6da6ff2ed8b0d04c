"""Durations: what is one, in milliseconds, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowrt.contract.errors import ConfigError
from flowrt.contract.time import Duration, duration_ms


@pytest.mark.parametrize(
    ("duration", "milliseconds"),
    [
        ("500ms", 500),
        ("10s", 10_000),
        (" 1.5 m ", 90_000),
        ("1h", 3_600_000),
        ("2d", 172_800_000),
        ("0s", 0),
        (timedelta(seconds=1.5), 1_500),
        (timedelta.max, 86_400_000_000_000_000),
    ],
)
def test_text_and_timedeltas(duration: Duration, milliseconds: int) -> None:
    assert duration_ms(duration) == milliseconds


@pytest.mark.parametrize("duration", ["", "10", "s", "-1s", "1e3s", "1 week", "1_000s", "nan s", 5])
def test_what_is_no_duration_is_refused(duration: Duration) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        duration_ms(duration)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ConfigError, match="is negative"):
        duration_ms(timedelta(seconds=-1))


@pytest.mark.parametrize("duration", ["9" * 400 + "d", "1000000001d"])
def test_what_is_longer_than_any_is_refused(duration: str) -> None:
    with pytest.raises(ConfigError, match="longer than 999,999,999 days"):
        duration_ms(duration)
