"""How a process dies, and when: drawn from a seeded generator, so that it can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import cycle

from flowrt.contract.failpoints import FAILPOINTS

RECOVERY = tuple(name for name, step in FAILPOINTS.items() if step.startswith("R"))
EPOCH = tuple(name for name in FAILPOINTS if name not in RECOVERY)

LIFE_MS = 400
"""How long a process that is killed at a random moment lives at most, from its recovery on."""
RECOVERY_MS = 25
"""About as long as a recovery takes."""


@dataclass(frozen=True, slots=True)
class Death:
    """One way to die.

    With `failpoint`, by its own hand there, at the hit of that number. Without one, from outside,
    `after_ms` after it began to recover. `raises` are rules for failpoints where an error is raised
    before that, which restarts the job within the process. `rush`: without a limit on the rate, so
    that the end of the input is near.
    """

    failpoint: str | None = None
    hit: int = 1
    after_ms: float = 0.0
    raises: str = ""
    rush: bool = False

    @property
    def rules(self) -> str:
        """What the process is told."""
        kill = f"{self.failpoint}:{self.hit}=kill" if self.failpoint else ""
        return ",".join(filter(None, [self.raises, kill]))

    def __str__(self) -> str:
        moment = self.rules or "outside"
        after = "" if self.failpoint else f" after {self.after_ms:.1f} ms"
        return f"{moment}{after}{' (rush)' if self.rush else ''}"


def at_failpoint(name: str, hit: int) -> Death:
    """Die at the given hit (from 1) of a failpoint.

    A recovery passes each of its failpoints once, so for later hits the job must restart within the
    process: an error at the beginning of each epoch sees to that.
    """
    if name not in RECOVERY:
        return Death(name, hit)
    raises = ",".join(f"epoch.chosen:{number}=raise" for number in range(1, hit))
    return Death(name, hit, raises=raises)


def at_every_failpoint(hits: list[int], chance: random.Random) -> list[list[Death]]:
    """Return groups of deaths that follow one another at once, for each failpoint and each hit.

    Each death within an epoch is followed by one within the recovery from it.
    """
    recovery = cycle(chance.sample(RECOVERY, len(RECOVERY)))
    groups = [
        [at_failpoint(name, hit), at_failpoint(next(recovery), 1)] for name in EPOCH for hit in hits
    ]
    groups += [[at_failpoint(name, hit)] for name in RECOVERY for hit in hits]
    chance.shuffle(groups)
    return groups


def at_random(chance: random.Random) -> list[Death]:
    """Return one or two deaths at random moments: in an epoch, in the recovery, at the end."""
    kind = chance.random()
    if kind < 0.2:
        return [_within(LIFE_MS, chance), _within(RECOVERY_MS, chance)]
    if kind < 0.4:
        return [_within(LIFE_MS, chance, rush=True)]
    if kind < 0.6:
        rules = f"{chance.choice(EPOCH)}:{chance.randint(1, 4)}=raise"
        return [_within(LIFE_MS, chance, raises=rules)]
    return [_within(LIFE_MS, chance)]


def _within(most_ms: int, chance: random.Random, raises: str = "", rush: bool = False) -> Death:
    return Death(after_ms=chance.uniform(0, most_ms), raises=raises, rush=rush)
