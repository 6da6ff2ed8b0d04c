"""The crash programme for calls: records are in flight at every cut and every death."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path

import msgspec
import pytest

from flowrt.checkpoint.manifest import decode_manifest
from flowrt.dataflow.tasks.in_flight_snapshot import holds_calls
from tests.journeys import wide
from tests.journeys.crash import programme
from tests.journeys.crash.deaths import Death, at_failpoint
from tests.journeys.crash.judge import Verdict
from tests.journeys.crash.lives import Home, Life, Program, live
from tests.journeys.crash.programme import Size, compare_parts
from tests.journeys.crash.report import FIGURES
from tests.journeys.crash.test_crash import KILLS, SEED, pytestmark

__all__ = ["pytestmark"]

OPERATORS = ("in-order", "in-any-order", "in-batches")
FIRST = at_failpoint("sources.told", 3)
NEAR_A_CUT = ("state.frozen", "manifest.renamed", "state.loaded")


class Restores:
    """Lives that went on from a checkpoint, and those of them with records in flight."""

    def __init__(self) -> None:
        self.all = 0
        self.in_flight = dict.fromkeys(OPERATORS, 0)

    def live(self, program: Program, home: Home, death: Death | None = None) -> Life:
        manifests = [*home.checkpoints.glob("manifest-*.json")]
        if not manifests and death is not None:
            # However busy the machine: what follows goes on from the midst of the input.
            death = FIRST
        if manifests:
            self.all += 1
            newest = max(manifests, key=lambda path: [*map(int, re.findall(r"\d+", path.stem))])
            for operator in _in_flight(newest):
                self.in_flight[operator] += 1
        return live(program, home, death)

    def __str__(self) -> str:
        return f"of {self.all} restores, with records in flight: {self.in_flight}"


def _in_flight(manifest: Path) -> set[str]:
    """The operators that had records in flight at a checkpoint."""
    parts = decode_manifest(manifest.read_bytes(), str(manifest)).operators
    return {part.operator for part in parts if holds_calls(part.data)}


def test_calls_in_flight_are_lost_and_repeated_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide.write_input(tmp_path / "data")
    params = {"data": str(tmp_path / "data")}
    program = Program("tests.journeys.asking:flow", params, rate=1_200)
    restores = Restores()
    monkeypatch.setattr(programme, "live", restores.live)
    size = Size(KILLS * 3 // 10 or 2, [1, 2, 3, 4, 5] if KILLS else [2])
    if not KILLS:
        size = Size(size.random_kills, size.hits, NEAR_A_CUT)

    figures = programme.run_programme(program, tmp_path / "jobs", _compare, size, SEED)

    FIGURES["calls in flight"] = figures
    print(f"calls in flight: {figures}", restores, *figures.verdict.examples, sep="\n")
    assert figures.verdict == Verdict()
    assert all(restores.in_flight.values()), str(restores)
    if KILLS:
        assert figures.never_hit == []


def _number_in_file(line: bytes) -> tuple[Hashable, int]:
    file, number = msgspec.json.decode(line)
    return file, number % wide.RECORDS_A_FILE + 1


def _running(line: bytes) -> tuple[Hashable, int]:
    (file, key), count = msgspec.json.decode(line)
    return (file, key), count


def _compare(expected: Path, got: Path) -> Verdict:
    verdict = compare_parts(_number_in_file)(expected / "in-order", got / "in-order")
    verdict.add(compare_parts(_running)(expected / "running", got / "running"))
    verdict.add(compare_parts(None)(expected / "windows", got / "windows"))
    return verdict
