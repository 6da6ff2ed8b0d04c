"""Options of `flowrt run`: read from what was typed, and named so where the library names them."""

from __future__ import annotations

import re
import shlex
from typing import Final

from flowrt.contract.errors import ConfigError
from flowrt.contract.retry import ExponentialBackoff, FixedDelay, NoRestart, RetryStrategy
from flowrt.contract.time import duration_ms
from flowrt.schedulers.continuous import Continuous

_RESTART: Final = re.compile(r"fixed:([^:]+)(?::([0-9]+))?")

_IN_PYTHON: Final = re.compile(
    r"\b(allow_dropped_state|checkpoints|delivery|restart|restore|take_over)="
    r"(True|\.\.\.|'[^']*'|\[[^\]]*\])"
)


def parse_epoch_interval(text: str) -> Continuous:
    """Read a duration such as `500ms`; `ConfigError` for anything else, and below 1 ms."""
    if _duration_ms("--epoch-interval", text) < 1:
        raise ConfigError(f"--epoch-interval {text} is too short: at least 1ms")
    return Continuous(text)


def parse_restart(text: str) -> RetryStrategy:
    """Read `none`, `fixed:10s:3` or `backoff`; `ConfigError` for anything else."""
    if text == "none":
        return NoRestart()
    if text == "backoff":
        return ExponentialBackoff()
    match = _RESTART.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--restart {text!r} is unknown: choose none, backoff, or fixed:DELAY:ATTEMPTS such "
            "as fixed:10s:3"
        )
    _duration_ms(f"--restart {text}:", match[1])
    attempts = int(match[2] or 3)
    if attempts < 1:
        raise ConfigError(f"--restart {text} never tries again: choose none for that")
    return FixedDelay(match[1], attempts)


def _duration_ms(option: str, text: str) -> int:
    try:
        return duration_ms(text)
    except ConfigError:
        raise ConfigError(
            f"{option} {text!r} is not a duration: write a number and its unit, ms, s, m, h or d, "
            "such as 500ms or 1.5m"
        ) from None


def as_typed(message: str) -> str:
    """Return a message of the library with the options of `start` as the command has them.

    A message writes such an option as Python does, `take_over=True`. All others, such as the
    arguments of a source, stand in the user's own code, and stay.
    """
    return _IN_PYTHON.sub(_typed, message)


def _typed(match: re.Match[str]) -> str:
    option = f"--{match[1].replace('_', '-')}"
    values = re.findall("'([^']*)'", match[2])
    return " ".join(f"{option} {shlex.quote(value)}" for value in values) or option
