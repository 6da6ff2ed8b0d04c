"""The figures of a simulation: what the seeds went through, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from flowrt.contract.failpoints import FAILPOINTS
from tests.journeys.crash.judge import Verdict
from tests.simulate.story import Result

SHOWN = (
    "lives",
    "crashes",
    "power lost",
    "I/O errors",
    "stumbles",
    "letters",
    "records skipped",
    "tries again",
    "expired",
    "failed calls",
    "calls that hung",
    "outputs judged",
    "restarts",
    "restores",
    "drain",
    "cancel",
    "savepoint",
    "hand over",
    "intrude",
    "epochs",
)


@dataclass(slots=True)
class Figures:
    """What many seeds amount to; `bad` has the first seeds that were not right, and how."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    bad: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.counts.update(result.counts)
        self.verdict.add(result.verdict)
        if not result.right:
            self.bad.append(
                "\n".join([*result.verdict.examples, *result.story, again(result.seed)])
            )

    @property
    def died_at(self) -> list[str]:
        """The failpoints at which a process died."""
        return [name for name in FAILPOINTS if self.counts[f"died at {name}"]]

    def __str__(self) -> str:
        found = self.verdict
        counts = ", ".join(f"{self.counts[name]} {NAMES.get(name, name)}" for name in SHOWN)
        return (
            f"{self.seeds} seeds: {counts}; died at {len(self.died_at)} of {len(FAILPOINTS)} "
            f"failpoints; {found.lost} lost, {found.repeated} repeated, {found.wrong} wrong, "
            f"{found.reordered} reordered"
        )


NAMES = {
    "power lost": "of them with the loss of all that was not synced",
    "stumbles": "errors of operators",
    "letters": "dead letters",
    "tries again": "tries that failed before one that did not",
    "expired": "expired values",
    "drain": "drains",
    "cancel": "cancellations",
    "savepoint": "savepoints",
    "hand over": "takeovers",
    "intrude": "second instances",
}

FIGURES: list[Figures] = []


def again(seed: int) -> str:
    """Return how to repeat a run."""
    return f"to repeat it: make simulate SEED={seed}"
