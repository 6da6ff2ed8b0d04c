"""Steps that fail at some records: at which, how often, and what becomes of those records."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from flowrt import DeadLetter, FixedDelay, FlowrtError, OnError, OutputTag
from flowrt.contract.world import Clock
from tests.simulate.faults import InjectedError

if TYPE_CHECKING:
    from tests.simulate.ends import Event
    from tests.simulate.machine import Process

Action: TypeAlias = Literal["skip", "dead_letter", "fail"]

SHARED: Final = "bad"
"""The tag that many steps send their letters to; each other one belongs to one step."""


class BadRecordError(Exception):
    """What a step raises at a record that is bad for it."""


@dataclass(frozen=True, slots=True)
class Failing:
    """A step's policy, and at which records it fails: their numbers say so, also in a replay.

    `tries` is how often it tries again. With the action "fail" no record is bad, and some need
    those tries.
    """

    action: Action
    every: int
    tries: int
    tag: str

    def __str__(self) -> str:
        action = f"letter to {self.tag}" if self.action == "dead_letter" else self.action
        return f"(tried {self.tries} times again, {action}; every {self.every})"

    def is_bad(self, number: int) -> bool:
        """Whether the step fails at each try."""
        return self.action != "fail" and number % self.every == 2

    def is_flaky(self, number: int) -> bool:
        """Whether the step fails at as many tries as it may."""
        return self.tries > 0 and number % self.every == 0

    def output(self) -> OutputTag[DeadLetter]:
        """Return where the letters go."""
        return OutputTag(self.tag)

    def policy(self) -> OnError:
        """Return it as the step takes it."""
        then = {
            "fail": OnError.fail(),
            "skip": OnError.skip(),
            "dead_letter": OnError.dead_letter(self.output()),
        }[self.action]
        if not self.tries:
            return then
        return OnError.retry(FixedDelay("10ms", attempts=self.tries), then)


def draw_failing(step: str, chance: random.Random, tries: int) -> Failing:
    """Draw at what a step fails."""
    actions: list[Action] = ["skip", "dead_letter", "dead_letter"]
    if tries:
        actions.append("fail")
    tag = chance.choice([SHARED, f"bad-{step}"])
    return Failing(chance.choice(actions), chance.choice([4, 7, 11]), tries, tag)


class Mishaps:
    """What goes wrong in one step of one process."""

    def __init__(self, process: Process, failing: Failing | None = None) -> None:
        self._process = process
        self._failing = failing
        self._failed: Counter[bytes] = Counter()

    @property
    def on_error(self) -> OnError | None:
        """The step's policy."""
        return None if self._failing is None else self._failing.policy()

    @property
    def clock(self) -> Clock:
        return self._process.machine.clock

    async def dawdle(self) -> None:
        """See `Process.dawdle`."""
        await self._process.dawdle()

    def stumble(self) -> None:
        """See `Process.stumble`."""
        # No error of the record, where the step would go on without it: then it would be missing.
        self._process.stumble(InjectedError if self._failing is None else FlowrtError)

    def report(self, violation: str) -> None:
        """Note what flowrt did that it must not."""
        if self._process.alive:
            self._process.machine.violations.append(violation)

    def fail_at(self, event: Event) -> None:
        """Raise at a record that is bad or flaky; to be called where the step is nearly done."""
        self.fail(event.number, event)

    def fail(self, number: int, what: Any) -> None:
        """As `fail_at`, for a number that stands for `what`."""
        failing, process = self._failing, self._process
        if failing is None or not process.alive:
            return
        self.fail_for_good(number)
        # Counted in this life: the next one fails as often, and a replay in this one at no try.
        who = msgspec.json.encode(what)
        if failing.is_flaky(number) and self._failed[who] < failing.tries:
            self._failed[who] += 1
            process.machine.counts["tries again"] += 1
            raise InjectedError("not yet")

    def fail_for_good(self, number: int) -> None:
        """Raise at what is bad."""
        if self._failing is not None and self._failing.is_bad(number) and self._process.alive:
            raise BadRecordError(text_of(number))


def text_of(number: int) -> str:
    """Return what the error says that is raised at a bad record."""
    return f"bad record {number}"
