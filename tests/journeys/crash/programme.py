"""The crash programme: jobs that are killed again and again, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from flowrt.contract.failpoints import FAILPOINTS
from tests.journeys.crash.deaths import LIFE_MS, Death, at_every_failpoint, at_random
from tests.journeys.crash.judge import Verdict, judge, read_lines
from tests.journeys.crash.lives import Home, Life, Program, live

AT_ONCE = 2
"""How many jobs run at the same time."""
TRIES = 5
"""How often a death is tried that did not come: the input may have ended before."""

Compare = Callable[[Path, Path], Verdict]
"""Judges an output folder: the first is that of the uninterrupted run."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done: `random_kills` in all, and `hits` of each of the `failpoints`."""

    random_kills: int
    hits: list[int]
    failpoints: Collection[str] = tuple(FAILPOINTS)


@dataclass(slots=True)
class Figures:
    """What the programme counts."""

    seed: int
    kills: int = 0
    lives: int = 0
    runs: int = 0
    killed_at: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    verdict: Verdict = field(default_factory=Verdict)

    def add(self, other: Figures) -> None:
        self.kills += other.kills
        self.lives += other.lives
        self.runs += other.runs
        self.killed_at |= other.killed_at
        self.passed |= other.passed
        self.verdict.add(other.verdict)

    @property
    def never_hit(self) -> list[str]:
        """The failpoints at which no process died."""
        return [name for name in FAILPOINTS if name not in self.killed_at]

    def __str__(self) -> str:
        found = self.verdict
        return (
            f"{self.kills} kills in {self.runs} runs (seed {self.seed}), killed at "
            f"{len(self.killed_at)} of {len(FAILPOINTS)} failpoints, {found.lost} lost, "
            f"{found.repeated} repeated, {found.wrong} wrong, {found.reordered} reordered"
        )


def run_programme(
    program: Program, folder: Path, compare: Compare, size: Size, seed: int
) -> Figures:
    """Kill as often as `size` says; raises where a job fails of itself."""
    expected = Home(folder / "uninterrupted")
    live(program, expected)
    chance = random.Random(seed)
    at_failpoints = [
        group
        for group in at_every_failpoint(size.hits, chance)
        if group[0].failpoint in size.failpoints
    ]
    chains = []
    for index in range(AT_ONCE):
        deaths = _Deaths(
            at_failpoints[index::AT_ONCE],
            len(range(index, size.random_kills, AT_ONCE)),
            random.Random(f"{seed} {index}"),
        )
        chains.append(_Chain(program, folder / f"chain-{index}", expected, compare, deaths, seed))
    figures = Figures(seed)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for part in threads.map(_Chain.run, chains):
            figures.add(part)
    return figures


@dataclass(slots=True)
class _Deaths:
    """What one chain has to die of: the planned deaths with random ones between them."""

    planned: list[list[Death]]
    random_kills: int
    chance: random.Random

    def first(self) -> Death:
        """Return what the first life of a job dies of."""
        return Death(after_ms=self.chance.uniform(LIFE_MS / 2, LIFE_MS))

    def __iter__(self) -> Iterator[Death]:
        planned = list(self.planned)
        left = self.random_kills
        while planned or left > 0:
            if planned and self.chance.random() < len(planned) / (len(planned) + left):
                yield from planned.pop()
            else:
                deaths = at_random(self.chance)[:left]
                left -= len(deaths)
                yield from deaths


@dataclass(slots=True)
class _Chain:
    """Jobs on one folder after another: each dies until its input is at its end."""

    program: Program
    folder: Path
    expected: Home
    compare: Compare
    deaths: _Deaths
    seed: int
    figures: Figures = field(init=False)
    story: list[str] = field(default_factory=list)

    def run(self) -> Figures:
        self.figures = Figures(self.seed)
        home = self._new_home()
        for planned in self.deaths:
            death = planned
            for _ in range(TRIES):
                life = self._live(home, death)
                if life.killed:
                    break
                self._end(home)
                home = self._new_home()
                # It was at the end by then: sooner, the next time.
                death = replace(death, after_ms=death.after_ms / 2)
            else:
                raise AssertionError(f"no process died of {planned}, in {TRIES} tries")
        self._live(home, None)
        self._end(home)
        return self.figures

    def _new_home(self) -> Home:
        self.story.clear()
        self.figures.runs += 1
        home = Home(self.folder / f"{self.figures.runs}")
        # Until there is a checkpoint: some failpoints lie in the recovery from one.
        for _ in range(TRIES):
            life = self._live(home, self.deaths.first())
            if not life.killed or any(home.checkpoints.glob("manifest-*.json")):
                break
        return home

    def _live(self, home: Home, death: Death | None) -> Life:
        self.story.append(str(death or "to the end"))
        try:
            life = live(self.program, home, death)
        except AssertionError as error:
            error.add_note(f"seed {self.seed}; the lives on {home.folder}: {self.story}")
            raise
        self.figures.lives += 1
        self.figures.kills += life.killed
        self.figures.passed.update(life.hits)
        if life.own_hand and death is not None and death.failpoint is not None:
            self.figures.killed_at.add(death.failpoint)
        return life

    def _end(self, home: Home) -> None:
        verdict = self.compare(self.expected.output, home.output)
        if verdict.examples:
            verdict.examples.insert(0, f"{home.folder}, lives: {self.story}")
        self.figures.verdict.add(verdict)


def compare_parts(numbered: Callable[[bytes], tuple[object, int] | None] | None) -> Compare:
    """Compare two folders of part files."""

    def compare(expected: Path, got: Path) -> Verdict:
        return judge(read_lines(expected), read_lines(got), numbered)

    return compare
