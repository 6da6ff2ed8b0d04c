"""The crash programme: real processes, killed by SIGKILL again and again, lose and repeat nothing.

`make test` runs it small, `make crash` large: `FLOWRT_CRASH_KILLS` says how large, and
`FLOWRT_CRASH_SEED` repeats a run that failed (as far as time allows: moments are not exact).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.journeys import two_inputs, wide
from tests.journeys.crash.judge import Verdict, judge, read_lines
from tests.journeys.crash.lives import Program
from tests.journeys.crash.programme import Compare, Figures, Size, compare_parts, run_programme
from tests.journeys.crash.report import FIGURES

SEED = int(os.environ.get("FLOWRT_CRASH_SEED") or 2013)
KILLS = int(os.environ.get("FLOWRT_CRASH_KILLS") or 0)
"""How many random kills in all; 0 for the small size."""

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(300 + 5 * KILLS),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]


def test_the_demo_flow_writes_each_result_once_through_crashes(tmp_path: Path) -> None:
    program = Program("examples.flights:flow", {}, rate=4_000)
    size = Size(KILLS * 6 // 10 or 30, _hits(small=[1]))

    figures = _run("demo flow", program, tmp_path, compare_parts(_flight), size)

    assert figures.never_hit == []
    assert figures.verdict == Verdict()


def test_every_state_timer_and_input_comes_through_crashes(tmp_path: Path) -> None:
    program = _wide("flow", tmp_path)
    size = Size(KILLS * 3 // 10 or 8, _hits(small=[2]))

    figures = _run("all kinds of state, 4 subtasks", program, tmp_path, _compare_wide, size)

    assert figures.never_hit == []
    assert figures.verdict == Verdict()


def test_at_least_once_loses_nothing(tmp_path: Path) -> None:
    program = replace(_wide("plain", tmp_path), delivery="at_least_once")

    figures = _run("at least once", program, tmp_path, _compare_plain, Size(KILLS // 10 or 8, []))

    assert (figures.verdict.lost, figures.verdict.wrong) == (0, 0)


def test_two_inputs_and_rules_that_change_come_through_crashes(tmp_path: Path) -> None:
    two_inputs.write_input(tmp_path / "data")
    params = {"data": str(tmp_path / "data")}
    program = Program("tests.journeys.two_inputs:flow", params, rate=2_500)
    size = Size(KILLS // 10 or 4, _hits(small=[]))

    figures = _run("two inputs, rules", program, tmp_path, _compare_two_inputs, size)

    assert figures.verdict == Verdict()


def _hits(small: list[int]) -> list[int]:
    return [1, 2, 3, 4, 5] if KILLS else small


def _run(name: str, program: Program, folder: Path, compare: Compare, size: Size) -> Figures:
    figures = FIGURES[name] = run_programme(program, folder / "jobs", compare, size, SEED)
    print(f"{name}: {figures}", *figures.verdict.examples, sep="\n")
    return figures


def _wide(function: str, folder: Path) -> Program:
    wide.write_input(folder / "data")
    params = {"data": str(folder / "data")}
    return Program(f"tests.journeys.wide:{function}", params, rate=2_500)


def _flight(line: bytes) -> tuple[Hashable, int]:
    row = msgspec.json.decode(line)
    return (row["airport"], row["carrier"]), row["flights"]


def _running(line: bytes) -> tuple[Hashable, int]:
    file, key, count, _ = msgspec.json.decode(line)
    return (file, key), count


def _compare_wide(expected: Path, got: Path) -> Verdict:
    verdict = compare_parts(_running)(expected / "running", got / "running")
    verdict.add(compare_parts(None)(expected / "windows", got / "windows"))
    ticks = [line for line in read_lines(got / "ticks") if line != b"key,window"]
    # A timer that is due when the input ends may never fire, but none fires twice.
    verdict.add(judge(wide.possible_ticks(), ticks, complete=False))
    return verdict


def _compare_plain(expected: Path, got: Path) -> Verdict:
    return compare_parts(None)(expected / "records", got / "records")


def _compare_two_inputs(expected: Path, got: Path) -> Verdict:
    assert all(line.endswith(b",true,true]") for line in read_lines(expected / "checked"))
    verdict = compare_parts(None)(expected / "paid", got / "paid")
    verdict.add(compare_parts(_checked)(expected / "checked", got / "checked"))
    return verdict


def _checked(line: bytes) -> tuple[Hashable, int]:
    kind, key, number, _, _ = msgspec.json.decode(line)
    return (kind, key), number
