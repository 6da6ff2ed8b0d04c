"""Failpoints by text: what the crash programme tells a process to do, and where. For tests only.

`FLOWRT_FAILPOINTS` holds rules `name:hit=action`, parted by commas, such as
`manifest.renamed:3=kill`: at the third hit of that failpoint the process kills itself with SIGKILL.
`name=action` means the first hit. Actions: `kill` and `raise`.

`FLOWRT_FAILPOINTS_LOG` names a file to which each failpoint's name is appended at its first hit.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowrt.contract.errors import ConfigError
from flowrt.contract.failpoints import FAILPOINTS, arm_failpoints

RULES: Final = "FLOWRT_FAILPOINTS"
LOG: Final = "FLOWRT_FAILPOINTS_LOG"
ACTIONS: Final = ("kill", "raise")

_RULE = re.compile(r"([a-z_.]+)(?::([1-9][0-9]*))?=([a-z]+)")


class FailpointRaised(Exception):
    """A failpoint was told to raise; stands for any bug at that place."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do at which hit of a failpoint; `hit` counts from 1."""

    name: str
    hit: int
    action: str


def parse_rules(text: str) -> list[Rule]:
    """Read `name:hit=action,...`; `ConfigError` naming what cannot be read."""
    return [_parse_rule(part.strip()) for part in text.split(",") if part.strip()]


def _parse_rule(text: str) -> Rule:
    match = _RULE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{text!r} is no failpoint rule: write name:hit=action, such as manifest.renamed:3=kill"
        )
    name, hit, action = match[1], int(match[2] or 1), match[3]
    if name not in FAILPOINTS:
        raise ConfigError(f"no failpoint is named {name!r}; there are: {', '.join(FAILPOINTS)}")
    if action not in ACTIONS:
        raise ConfigError(f"{action!r} is no action of a failpoint: choose {' or '.join(ACTIONS)}")
    return Rule(name, hit, action)


class Armed:
    """Counts hits and acts on rules; call it with the name of each failpoint that is hit."""

    def __init__(self, rules: list[Rule], log: int | None = None) -> None:
        self._actions = {(rule.name, rule.hit): rule.action for rule in rules}
        self._log = log
        self.hits: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        self.hits[name] += 1
        if self._log is not None and self.hits[name] == 1:
            # Straight to the operating system: what it took survives the kill that may follow.
            os.write(self._log, f"{name}\n".encode())
        action = self._actions.get((name, self.hits[name]))
        if action == "kill":
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        elif action == "raise":
            raise FailpointRaised(f"failpoint {name} was told to raise at hit {self.hits[name]}")


def arm_from_environment(environment: Mapping[str, str]) -> Armed | None:
    """Arm what the two variables say; None, and nothing armed, where neither is set.

    `ConfigError` where the rules cannot be read. The log stays open until the process ends.
    """
    rules, log = environment.get(RULES, ""), environment.get(LOG)
    if not rules and not log:
        return None
    parsed = parse_rules(rules)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    armed = Armed(parsed, os.open(log, flags, 0o644) if log else None)
    arm_failpoints(armed)
    return armed
