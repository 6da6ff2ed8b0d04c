"""Continuous: records flow as they come, and epochs end by time."""

from __future__ import annotations

from flowrt.contract.errors import ConfigError
from flowrt.contract.time import Duration, duration_ms


class Continuous:
    """Opens an epoch every `epoch_interval`, counted from opening to opening.

    An epoch that takes longer than the interval delays the next one, which then opens at once;
    those missed are not made up for. A short interval means that results are committed sooner and
    that less is repeated after a crash; a long one costs less. `ConfigError` where the interval is
    below 1 ms.
    """

    __slots__ = ("_interval_ms",)

    def __init__(self, epoch_interval: Duration = "1s") -> None:
        self._interval_ms = duration_ms(epoch_interval)
        if self._interval_ms < 1:
            raise ConfigError(
                f"Continuous has epoch_interval={epoch_interval!r}: it must be at least 1 ms"
            )

    @property
    def epoch_interval_ms(self) -> int:
        """The time from one opening to the next, in ms."""
        return self._interval_ms

    def describe(self) -> str:
        """See `Scheduler.describe`."""
        seconds, rest_ms = divmod(self._interval_ms, 1_000)
        interval = f"{self._interval_ms} ms" if rest_ms else f"{seconds} s"
        return f"continuous, an epoch every {interval}"

    def next_epoch_ms(self, now_ms: int, last_opened_ms: int | None) -> int:
        """See `Scheduler.next_epoch_ms`; the first epoch opens one interval after it was asked for.

        After the clock was set back the next epoch opens within one interval all the same.
        """
        if last_opened_ms is None or last_opened_ms > now_ms:
            return now_ms + self._interval_ms
        return last_opened_ms + self._interval_ms

    def __repr__(self) -> str:
        return f"Continuous(epoch_interval='{self._interval_ms}ms')"
