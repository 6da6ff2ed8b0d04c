"""What the steps of a chain do, from a close look at one record in a few hundred.

Counting each record at each step, and looking at the clock, would cost as much as a quick step
itself. So the counts of a whole line are kept for each run, and now and then the first records of a
run go through a second copy of the fused function that looks at the clock behind each step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

LOOK_RECORDS: Final = 32
"""How many records a close look takes at most: the first of a run."""

LOOK_ONE_IN: Final = 1024
"""Of so many records one is looked at, for it takes some four times as long as the others.

In the beginning it is one of `_FIRST_ONE_IN`, and half as many after each look.
"""

_FIRST_ONE_IN: Final = 16

FAR_BEYOND: Final = 16
"""A look that took so many times as long as usual counts as one that took that long."""

FIRST_LOOK: Final = 64
"""How many records go through a line before the first look: what is short needs none."""

_CLOCK_CALLS: Final = 32


class LineSamples:
    """The counts of one fused line."""

    __slots__ = (
        "_cost_ns",
        "_one_in",
        "_usual",
        "_waits",
        "came",
        "look_at",
        "now_ns",
        "records",
        "spent_ns",
    )

    def __init__(self, steps: int, now_ns: Callable[[], int], *, waits: bool = False) -> None:
        """`waits`: one of the steps may await something, and then take any time."""
        self.now_ns = now_ns
        self._waits = waits
        # How long each record of the last looks took (ns).
        self._usual: deque[float] = deque(maxlen=15)
        self.records = 0
        """How many came to the first step: exact."""
        self.look_at = FIRST_LOOK
        self.came = [0] * (steps + 1)
        """How many of those looked at came to each step, and left the last."""
        self.spent_ns = [0.0] * steps
        """How long the steps took for those looked at."""
        self._cost_ns: float | None = None
        self._one_in = _FIRST_ONE_IN

    def look(self, records: int) -> int:
        """Return how many of a run are to be looked at."""
        looked = min(records, LOOK_RECORDS)
        self.look_at = self.records + looked * self._one_in
        self._one_in = min(2 * self._one_in, LOOK_ONE_IN)
        return looked

    def note(self, came: Sequence[int], spent_ns: Sequence[int]) -> None:
        """Take what one look saw; looking at the clock costs time that the step did not take."""
        if self._cost_ns is None:
            # The least of some: whatever else the machine did meanwhile only adds to it.
            self._cost_ns = min(_cost_of(self.now_ns) for _ in range(8))
        for index, count in enumerate(came):
            self.came[index] += count
        for index, spent in enumerate(self._trimmed(came, spent_ns, self._cost_ns)):
            self.spent_ns[index] += spent

    def _trimmed(self, came: Sequence[int], spent_ns: Sequence[int], cost_ns: float) -> list[float]:
        # A step that makes many of one is looked at for each that it made.
        looks = [max(came[index], came[index + 1]) for index in range(len(spent_ns))]
        spent = [max(0.0, ns - n * cost_ns) for ns, n in zip(spent_ns, looks, strict=True)]
        if self._waits:
            return spent
        # Far beyond the usual it was most likely another program's turn on this processor, for
        # milliseconds: it would outweigh all other looks of a second.
        a_record = sum(spent) / came[0]
        most = FAR_BEYOND * median(self._usual) if self._usual else a_record
        self._usual.append(a_record)
        return [ns * most / a_record for ns in spent] if a_record > most else spent


def _cost_of(now_ns: Callable[[], int]) -> float:
    # The lines that `fuse` writes behind each step, with no step before them.
    came = spent = other = 0
    since = now_ns()
    for _ in range(_CLOCK_CALLS):
        until = now_ns()
        other += until - since
        since = until
        came += 1
        until = now_ns()
        spent += until - since
        since = until
    return spent / came


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What one step did: records in and out, and its time (ns), which is an estimate."""

    id: str
    records_in: int
    records_out: int
    spent_ns: int
    watermark: int
    """Event time (ms) behind which the step expects no record."""


def step_figures(
    ids: Sequence[str],
    one_for_one: Sequence[bool],
    lines: Iterable[tuple[int, LineSamples]],
    records_out: int,
    sides: Mapping[str, int],
    watermarks: Sequence[int],
) -> list[StepFigures]:
    """Work out what each step did.

    `lines` are the samples of the fused lines, each with the index of its first step. `records_out`
    left the last step and `sides` went to side outputs, by step: both are exact, and so is what
    came to the first step. What lies between is exact up to the first step, and behind the last
    one, that does not make one of one; the rest is estimated.
    """
    came = [0.0] * (len(ids) + 1)
    spent = [0.0] * len(ids)
    exact = [True] * (len(ids) + 1)
    for start, line in lines:
        scale = line.records / line.came[0] if line.came[0] else 0.0
        for index, spent_ns in enumerate(line.spent_ns):
            # Before the first look it is taken that each step keeps all.
            came[start + index] += line.came[index] * scale if scale else line.records
            spent[start + index] += spent_ns * scale
            exact[start + index] = exact[start + index] and index == 0
    came[-1] = records_out
    for index in range(len(ids) - 1, -1, -1):
        if one_for_one[index] and exact[index + 1]:
            came[index], exact[index] = came[index + 1], True
    return [
        StepFigures(
            id,
            round(came[i]),
            round(came[i + 1]) + sides.get(id, 0),
            round(spent[i]),
            watermarks[i],
        )
        for i, id in enumerate(ids)
    ]
