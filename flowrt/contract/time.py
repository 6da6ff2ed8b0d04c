"""Timestamps, durations and watermark strategies.

A timestamp is an `int`, milliseconds since 1970-01-01 UTC (it may be negative); a duration is a
`timedelta` or text such as "500ms", "10s", "1.5m", "1h", "2d".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.errors import ConfigError

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

Duration: TypeAlias = timedelta | str
Timestamp: TypeAlias = int | datetime

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_LONGEST_MS = timedelta.max / timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def duration_ms(duration: Duration) -> int:
    """Return a duration in whole milliseconds.

    `ConfigError` where it is negative, longer than a timedelta can be, or not a duration.
    """
    if isinstance(duration, timedelta):
        milliseconds = duration / timedelta(milliseconds=1)
    else:
        match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
        if match is None:
            raise ConfigError(
                f"{duration!r} is not a duration: use a timedelta or text such as '500ms', "
                "'10s', '1h'"
            )
        milliseconds = float(match[1]) * _UNITS_MS[match[2]]
    if milliseconds < 0:
        raise ConfigError(f"the duration {duration!r} is negative")
    if milliseconds > _LONGEST_MS:
        raise ConfigError(f"the duration {duration!r} is longer than {timedelta.max.days:,} days")
    return round(milliseconds)


def timestamp_ms(timestamp: Timestamp) -> int:
    """Return a timestamp as milliseconds since 1970; `ConfigError` for a naive datetime."""
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ConfigError(
                f"{timestamp!r} has no time zone: pass an aware datetime or ms since 1970"
            )
        return (timestamp - _EPOCH) // timedelta(milliseconds=1)
    return timestamp


class WatermarkGenerator(Protocol):
    """Derives the watermark of one split from the timestamps seen in it. No clock, no I/O."""

    def observe(self, timestamps: Sequence[int]) -> None:
        """Take the event times (ms) of a run of records, in order; the run is not empty."""
        ...

    def watermark(self) -> int:
        """Return the watermark after what was observed (ms); never smaller than an earlier one."""
        ...

    def snapshot(self) -> Any:
        """Return the state as plain data."""
        ...

    def restore(self, data: Any) -> None:
        """Take back what `snapshot` returned."""
        ...


class BoundedOutOfOrderness:
    """The watermark trails the largest timestamp by `delay_ms`, minus one (as in Flink)."""

    __slots__ = ("_delay_ms", "_largest")

    def __init__(self, delay_ms: int = 0) -> None:
        self._delay_ms = delay_ms
        self._largest: int | None = None

    def observe(self, timestamps: Sequence[int]) -> None:
        """See `WatermarkGenerator.observe`."""
        largest = max(timestamps)
        if self._largest is None or largest > self._largest:
            self._largest = largest

    def watermark(self) -> int:
        """See `WatermarkGenerator.watermark`."""
        return MIN_TIMESTAMP if self._largest is None else self._largest - self._delay_ms - 1

    def snapshot(self) -> Any:
        """Return the largest timestamp so far."""
        return self._largest

    def restore(self, data: Any) -> None:
        """Take back the largest timestamp so far."""
        self._largest = data


@dataclass(frozen=True)
class WatermarkStrategy(Generic[T]):
    """How a stream gets its event time: timestamps from records, watermarks from timestamps.

    One generator runs for each split; the stream's watermark is the minimum over those not idle.
    """

    generator: Callable[[], WatermarkGenerator]
    timestamp: Callable[[T], Timestamp] | None = None
    idle_after_ms: int | None = None

    @staticmethod
    def monotonous() -> WatermarkStrategy[Any]:
        """For timestamps that never go back within a split."""
        return WatermarkStrategy(BoundedOutOfOrderness)

    @staticmethod
    def bounded_out_of_orderness(delay: Duration) -> WatermarkStrategy[Any]:
        """For records that are at most `delay` behind the newest of their split."""
        delay_ms = duration_ms(delay)
        return WatermarkStrategy(lambda: BoundedOutOfOrderness(delay_ms))

    @staticmethod
    def custom(generator: Callable[[], WatermarkGenerator]) -> WatermarkStrategy[Any]:
        """Use a generator of your own; the callable makes one for each split."""
        return WatermarkStrategy(generator)

    def with_timestamps(self, timestamp: Callable[[T], Timestamp]) -> WatermarkStrategy[T]:
        """Take each record's event time from `timestamp(value)`: ms or an aware datetime."""
        return WatermarkStrategy(self.generator, timestamp, self.idle_after_ms)

    def with_idleness(self, after: Duration) -> WatermarkStrategy[T]:
        """Leave a split out of the minimum when it sent nothing for `after` of processing time."""
        return replace(self, idle_after_ms=duration_ms(after))
