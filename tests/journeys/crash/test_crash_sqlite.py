"""The crash programme over SQLite: what is in the tables is what an undisturbed run writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable
from pathlib import Path

import pytest

from tests.journeys import tables
from tests.journeys.crash.judge import Verdict, judge
from tests.journeys.crash.lives import Program
from tests.journeys.crash.programme import Size, run_programme
from tests.journeys.crash.report import FIGURES

SEED = int(os.environ.get("FLOWRT_CRASH_SEED") or 2013)
KILLS = int(os.environ.get("FLOWRT_CRASH_KILLS") or 0)
"""How many random kills in all; 0 for the small size."""

AROUND_A_COMMIT = frozenset(
    {
        "sink.prepared",
        "manifest.written",
        "manifest.renamed",
        "commit.sent",
        "commit.acknowledged",
        "checkpoint.deleted",
        "sinks.resolved",
    }
)

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(300 + 5 * KILLS),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]


def test_tables_hold_each_result_once_through_crashes(tmp_path: Path) -> None:
    data = tmp_path / "data.db"
    tables.write_input(data)
    program = Program("tests.journeys.tables:flow", {"data": str(data)}, rate=6_000)
    hits = [1, 2, 3, 4, 5] if KILLS else [2]
    size = Size(KILLS // 5 or 3, hits, AROUND_A_COMMIT)

    figures = run_programme(program, tmp_path / "jobs", _compare, size, SEED)
    FIGURES["sqlite"] = figures
    print(f"sqlite: {figures}", *figures.verdict.examples, sep="\n")

    assert figures.killed_at >= AROUND_A_COMMIT
    assert figures.verdict == Verdict()


def _compare(expected: Path, got: Path) -> Verdict:
    verdict = judge(tables.rows_in(expected, "counts"), tables.rows_in(got, "counts"), _numbered)
    verdict.add(judge(tables.rows_in(expected, "totals"), tables.rows_in(got, "totals")))
    return verdict


def _numbered(line: bytes) -> tuple[Hashable, int]:
    key, _, count = line.partition(b"\t")
    return key, int(count)
