"""What may happen to a process, drawn from a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from flowrt.contract.failpoints import FAILPOINTS

T = TypeVar("T")
Call: TypeAlias = Callable[[], Awaitable[T]]

Death: TypeAlias = Literal["killed", "power lost", "power lost in part"]
"""The process is killed; or the machine loses its power, and all of what was not synced, or some.
"""


class DiedError(Exception):
    """The process is dead: this only unwinds what is left of it."""


class InjectedError(Exception):
    """An error that the simulation put there."""


@dataclass(slots=True)
class Faults:
    """What happens to a process. Operations and hits are counted from 1, for each process."""

    death: Death = "killed"
    die_at_operation: int | None = None
    die_at_failpoint: tuple[str, int] | None = None
    die_after_ms: int | None = None
    errors: int = 0
    """How many operations fail at most, each with chance `error_rate`."""
    error_rate: float = 0.0
    raise_at_failpoint: tuple[str, int] | None = None
    stumbles: int = 0
    """How often an operator raises at most."""
    slow: float = 0.0
    """Which part of the operations takes time."""


def draw_faults(chance: random.Random) -> Faults:
    """Draw what a life dies and suffers of."""
    faults = Faults(
        death=chance.choice(["killed", "killed", "power lost", "power lost in part"]),
        slow=chance.choice([0.0, 0.1, 0.5]),
    )
    kind = chance.random()
    if kind < 0.35:
        faults.die_at_operation = int(2 ** chance.uniform(2, 10))
    elif kind < 0.6:
        faults.die_at_failpoint = _some_failpoint(chance)
    elif kind < 0.7:
        faults.die_after_ms = int(2 ** chance.uniform(3, 10))
    if chance.random() < 0.3:
        faults.errors = chance.randint(1, 4)
        faults.error_rate = chance.choice([0.005, 0.02, 0.1])
    if chance.random() < 0.15:
        faults.raise_at_failpoint = _some_failpoint(chance)
    if chance.random() < 0.15:
        faults.stumbles = chance.randint(1, 2)
    return faults


def draw_errors(chance: random.Random) -> Faults:
    """Draw errors that a job comes over by itself, in the same process."""
    faults = Faults(stumbles=chance.choice([0, 0, 1, 2]))
    if chance.random() < 0.5:
        running = [name for name, step in FAILPOINTS.items() if not step.startswith("R")]
        faults.raise_at_failpoint = chance.choice(running), int(2 ** chance.uniform(1, 4))
    return faults


def _some_failpoint(chance: random.Random) -> tuple[str, int]:
    name = chance.choice(list(FAILPOINTS))
    recovery = FAILPOINTS[name].startswith("R")
    return name, 1 if recovery else int(2 ** chance.uniform(0, 4))
