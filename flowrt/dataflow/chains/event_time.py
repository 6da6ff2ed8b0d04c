"""Event time, where a user's function gives it to records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.errors import OperatorError
from flowrt.contract.steps import AssignTimestamps
from flowrt.contract.time import Timestamp, WatermarkGenerator, timestamp_ms
from flowrt.contract.world import Clock
from flowrt.dataflow.chains.blame import operator_error, shown

W = TypeVar("W")


def event_times(
    timestamp: Callable[[Any], Timestamp], values: list[Any], operator: str
) -> list[int]:
    """Return each value's event time in ms.

    `OperatorError` where the function fails or gives none.
    """
    try:
        times = [timestamp(value) for value in values]
        if set(map(type, times)) != {int}:
            times = [_checked(time) for time in times]
        return times  # type: ignore[return-value]
    except Exception as error:
        # Asked again, which costs nothing while all goes well.
        value = next((v for v in values if _fails(timestamp, v)), None)
        raise OperatorError(
            f"the timestamp function of {operator!r} raised {type(error).__name__}: {error} "
            f"at the record {shown(value)}; it must return ms since 1970 or an aware datetime",
            operator=operator,
            value=value,
        ) from error


def _checked(time: Any) -> int:
    milliseconds = timestamp_ms(time)
    if type(milliseconds) is not int:
        raise TypeError(f"{time!r} is no timestamp")
    return milliseconds


def _fails(timestamp: Callable[[Any], Timestamp], value: Any) -> bool:
    try:
        _checked(timestamp(value))
    except Exception:
        return True
    return False


def observe(generator: WatermarkGenerator, timestamps: Sequence[int], operator: str) -> None:
    """Let a watermark generator see event times (ms); `OperatorError` where it raises."""
    try:
        generator.observe(timestamps)
    except Exception as error:
        raise operator_error(operator, error, method="the watermark generator") from error


def watermark_of(ask: Callable[[], W], operator: str) -> W:
    """Ask a watermark generator; `OperatorError` where it raises."""
    try:
        return ask()
    except Exception as error:
        raise operator_error(operator, error, method="the watermark generator") from error


class EventTime:
    """Timestamps and watermarks that a step in the middle of a stream makes."""

    def __init__(self, operator: str, step: AssignTimestamps, clock: Clock) -> None:
        self._operator = operator
        self._strategy = step.strategy
        self._generator: WatermarkGenerator = step.strategy.generator()
        self._clock = clock
        self.last = MIN_TIMESTAMP
        self.resting = False
        """Whether those that follow were told that nothing comes for now."""
        self.silent = False
        """Whether that is because no record came; only a record ends it."""
        self.idle_at: int | None = None
        self._stay_awake()

    def assign(self, values: list[Any]) -> list[int | None]:
        """Return the event times (ms) of a run; `OperatorError` where a user's code raises."""
        assert self._strategy.timestamp is not None
        times = event_times(self._strategy.timestamp, values, self._operator)
        observe(self._generator, times, self._operator)
        self._stay_awake()
        return [*times]

    def watermark(self) -> int | None:
        """Return the watermark (ms) if it grew."""
        watermark = watermark_of(self._generator.watermark, self._operator)
        if watermark <= self.last:
            return None
        self.last = watermark
        return watermark

    def rest(self, now_ms: int) -> bool:
        """Say whether the stream is idle from now on."""
        if self.idle_at is None or now_ms < self.idle_at:
            return False
        self.idle_at = None
        self.silent = True
        return True

    def _stay_awake(self) -> None:
        self.silent = False
        if self._strategy.idle_after_ms is not None:
            self.idle_at = self._clock.now_ms() + self._strategy.idle_after_ms

    def snapshot(self) -> Any:
        """Return the state as plain data."""
        return [self.last, self._generator.snapshot(), self.resting, self.silent]

    def restore(self, data: list[Any]) -> None:
        """Take back what all former subtasks returned from `snapshot`; [] for nothing."""
        # At another parallelism the slowest former subtask decides: nothing becomes late by it.
        if not data:
            return
        self.last, generator, _, _ = min(data, key=lambda entry: entry[0])
        self._generator.restore(generator)
        self.resting = all(resting for _, _, resting, _ in data)
        self.silent = all(silent for _, _, _, silent in data)
        if self.silent:
            self.idle_at = None
