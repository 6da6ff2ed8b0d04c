"""Whether and when what failed is tried again: a job from its last snapshot, a call as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flowrt.contract.errors import ConfigError
from flowrt.contract.time import Duration, duration_ms


class RetryStrategy(Protocol):
    """Decides after each failure. No clock inside: what it needs to know is told."""

    def delay_ms(self, failures: int, chance: float) -> int | None:
        """Return how long to wait before the next try (ms), or None to give up.

        `failures` counts those in a row, from 1; of a job, a committed epoch starts the count anew.
        `chance` is a random number in [0, 1).
        """
        ...


@dataclass(frozen=True, slots=True)
class NoRestart:
    """Fail at the first error."""

    def delay_ms(self, failures: int, chance: float) -> int | None:
        """See `RetryStrategy.delay_ms`."""
        return None


@dataclass(frozen=True, slots=True)
class FixedDelay:
    """Try again after `delay`, at most `attempts` times in a row."""

    delay: Duration = "10s"
    attempts: int = 3

    def __post_init__(self) -> None:
        duration_ms(self.delay)
        _check_attempts("FixedDelay", self.attempts)

    def delay_ms(self, failures: int, chance: float) -> int | None:
        """See `RetryStrategy.delay_ms`."""
        return duration_ms(self.delay) if failures <= self.attempts else None


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """Try again after `first`, then `factor` times as long, up to `longest`; a tenth is jitter.

    `attempts` None tries for ever.
    """

    first: Duration = "1s"
    longest: Duration = "1m"
    factor: float = 2.0
    attempts: int | None = None

    def __post_init__(self) -> None:
        duration_ms(self.first)
        duration_ms(self.longest)
        if not self.factor >= 1:
            raise ConfigError(
                f"ExponentialBackoff has factor={self.factor!r}: it must be at least 1"
            )
        if self.attempts is not None:
            _check_attempts("ExponentialBackoff", self.attempts)

    def delay_ms(self, failures: int, chance: float) -> int | None:
        """See `RetryStrategy.delay_ms`."""
        if self.attempts is not None and failures > self.attempts:
            return None
        longest = duration_ms(self.longest)
        # Capped before the power is taken: it must not overflow after a long night.
        exponent = min(failures - 1, 64)
        delay = min(duration_ms(self.first) * self.factor**exponent, longest)
        return round(delay * (0.95 + 0.1 * chance))


def _check_attempts(strategy: str, attempts: int) -> None:
    if attempts < 1:
        raise ConfigError(
            f"{strategy} has attempts={attempts!r}: it must be at least 1; NoRestart() gives up at "
            "the first failure"
        )
