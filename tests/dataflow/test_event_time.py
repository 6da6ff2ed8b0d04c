"""Event times from a user's function, and a step that makes its own watermarks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.errors import OperatorError
from flowrt.contract.steps import AssignTimestamps
from flowrt.contract.time import BoundedOutOfOrderness, WatermarkStrategy
from flowrt.dataflow.chains.event_time import EventTime, event_times
from flowrt.testing.world import ManualClock

BY_VALUE: WatermarkStrategy[Any] = WatermarkStrategy.bounded_out_of_orderness(
    "5ms"
).with_timestamps(lambda v: v)


def test_numbers_are_milliseconds_and_datetimes_become_them() -> None:
    times: list[Any] = [3, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), -4]
    assert event_times(lambda v: v, times, "o") == [3, 1_000, -4]
    assert event_times(lambda v: v, [], "o") == []


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "TypeError: None is no timestamp at the record None"),
        ("12", "TypeError: '12' is no timestamp at the record '12'"),
        (1.5, "TypeError: 1.5 is no timestamp"),
        (True, "TypeError: True is no timestamp"),
        (datetime(2020, 1, 1), "has no time zone"),  # noqa: DTZ001
    ],
)
def test_anything_else_is_blamed_on_the_record(value: Any, says: str) -> None:
    with pytest.raises(OperatorError) as raised:
        event_times(lambda v: v, [1, value, 3], "times")
    assert says in str(raised.value)
    assert "timestamp function of 'times'" in str(raised.value)
    assert "ms since 1970 or an aware datetime" in str(raised.value)
    assert (raised.value.operator, raised.value.value) == ("times", value)


def test_a_record_that_cannot_be_shown_is_blamed_all_the_same() -> None:
    value = Unprintable()
    with pytest.raises(OperatorError, match="Unprintable whose repr raises ValueError") as raised:
        event_times(lambda v: v.at, [value], "times")
    assert raised.value.value is value
    assert isinstance(raised.value.__cause__, AttributeError)


def make(strategy: WatermarkStrategy[Any] = BY_VALUE, now_ms: int = 0) -> EventTime:
    return EventTime("times", AssignTimestamps(strategy), ManualClock(now_ms))


def test_the_watermark_trails_and_is_told_only_when_it_grew() -> None:
    time = make()
    assert time.watermark() is None
    assert time.assign([10, 20, 15]) == [10, 20, 15]
    assert time.watermark() == 14
    assert time.watermark() is None
    time.assign([18])
    assert time.watermark() is None
    time.assign([21])
    assert time.watermark() == 15


def test_it_rests_when_nothing_came_for_the_time_of_the_strategy() -> None:
    clock = ManualClock()
    time = EventTime("times", AssignTimestamps(BY_VALUE.with_idleness("100ms")), clock)
    assert time.idle_at == 100
    clock.advance(50)
    time.assign([1])
    assert time.idle_at == 150
    assert not time.rest(149)
    assert time.rest(150)
    assert not time.rest(151)
    time.assign([2])
    assert time.idle_at == 150


def test_without_idleness_it_never_rests() -> None:
    time = make()
    time.assign([1])
    assert time.idle_at is None
    assert not time.rest(10**9)


def test_a_snapshot_brings_generator_and_watermark_back() -> None:
    time = make()
    time.assign([30])
    time.watermark()
    again = make()
    again.restore([time.snapshot()])
    assert again.last == 24
    assert again.watermark() is None
    again.assign([29])
    assert again.watermark() is None
    again.assign([31])
    assert again.watermark() == 25


def test_of_several_former_subtasks_the_slowest_decides() -> None:
    slow, fast, again = make(), make(), make()
    slow.assign([10])
    fast.assign([90])
    slow.watermark()
    fast.watermark()
    again.restore([fast.snapshot(), slow.snapshot()])
    assert again.last == 4
    again.restore([])
    assert again.last == 4
    fresh = make()
    fresh.restore([fast.snapshot(), make().snapshot()])
    assert fresh.last == MIN_TIMESTAMP


class Broken(BoundedOutOfOrderness):
    def watermark(self) -> int:
        raise ValueError("broken")


def test_a_generator_that_fails_is_blamed() -> None:
    time = make(WatermarkStrategy.custom(Broken).with_timestamps(lambda v: v))
    time.assign([1])
    with pytest.raises(OperatorError) as raised:
        time.watermark()
    assert str(raised.value) == (
        "operator 'times' raised ValueError: broken in the watermark generator"
    )
