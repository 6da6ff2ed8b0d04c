"""Compares what was written through crashes with what an uninterrupted run wrote."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

Numbered = Callable[[bytes], tuple[Hashable, int] | None]
"""Gives a line's key and its number within that key, from 1; None for a line without."""


@dataclass(slots=True)
class Verdict:
    """How many lines were lost, repeated, wrong (in no right output), or out of order in a key."""

    lost: int = 0
    repeated: int = 0
    wrong: int = 0
    reordered: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        self.lost += other.lost
        self.repeated += other.repeated
        self.wrong += other.wrong
        self.reordered += other.reordered
        self.examples += other.examples[: 5 - len(self.examples)]


def read_lines(folder: Path) -> list[bytes]:
    """Return the lines of all visible parts in the order of the parts' names."""
    parts = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
    return [line for part in parts for line in part.read_bytes().splitlines()]


def judge(
    expected: Iterable[bytes],
    got: list[bytes],
    numbered: Numbered | None = None,
    *,
    complete: bool = True,
) -> Verdict:
    """Compare lines as multisets, and look at the order of each key's lines.

    Without `complete`, lines that are expected may also be missing.
    """
    wanted, have = Counter(expected), Counter(got)
    missing, surplus = wanted - have, have - wanted
    if not complete:
        missing.clear()
    repeated = Counter({line: n for line, n in surplus.items() if line in wanted})
    verdict = Verdict(
        lost=missing.total(),
        repeated=repeated.total(),
        wrong=surplus.total() - repeated.total(),
        reordered=0 if numbered is None else _reordered(got, numbered),
    )
    for what, lines in (("lost", missing), ("surplus", surplus)):
        verdict.examples += [f"{what}: {line.decode()}" for line in list(lines)[:5]]
    return verdict


def _reordered(lines: list[bytes], numbered: Numbered) -> int:
    """Count the lines whose number is not the one after that of the key's line before."""
    last: dict[Hashable, int] = defaultdict(int)
    count = 0
    for line in lines:
        known = numbered(line)
        if known is not None:
            key, number = known
            count += number != last[key] + 1
            last[key] = number
    return count
