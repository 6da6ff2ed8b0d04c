"""The crash programme for records that fail: letters are exactly-once, and leave no trace."""

from __future__ import annotations

from pathlib import Path

from tests.journeys import wide
from tests.journeys.crash.judge import Verdict, read_lines
from tests.journeys.crash.lives import Program
from tests.journeys.crash.programme import Size, compare_parts, run_programme
from tests.journeys.crash.report import FIGURES
from tests.journeys.crash.test_crash import KILLS, SEED, pytestmark

__all__ = ["pytestmark"]

NEAR_A_CUT = ("state.frozen", "manifest.renamed")


def test_letters_are_lost_and_repeated_nowhere(tmp_path: Path) -> None:
    wide.write_input(tmp_path / "data")
    params = {"data": str(tmp_path / "data")}
    program = Program("tests.journeys.failing:flow", params, rate=1_200)
    size = Size(KILLS * 3 // 10 or 2, [1, 2, 3, 4, 5] if KILLS else [2])
    if not KILLS:
        size = Size(size.random_kills, size.hits, NEAR_A_CUT)

    figures = run_programme(program, tmp_path / "jobs", _compare, size, SEED)

    FIGURES["failing records"] = figures
    print(f"failing records: {figures}", *figures.verdict.examples, sep="\n")
    assert figures.verdict == Verdict()
    uninterrupted = tmp_path / "jobs" / "uninterrupted" / "output"
    # Of 6,000: a seventh, an eleventh of the others, a fifth of what is left.
    numbers = range(wide.FILES * wide.RECORDS_A_FILE)
    failing = sum(n % 7 == 0 or n % 11 == 0 or n % 5 == 0 for n in numbers)
    assert len(read_lines(uninterrupted / "letters")) == failing
    if KILLS:
        assert figures.never_hit == []


def _compare(expected: Path, got: Path) -> Verdict:
    verdict = compare_parts(None)(expected / "letters", got / "letters")
    verdict.add(compare_parts(None)(expected / "windows", got / "windows"))
    return verdict
