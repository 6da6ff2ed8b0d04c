"""A service is killed by SIGKILL again and again: what it acknowledged is processed, once.

`make test` runs it small, `make crash` large, as the crash programme beside it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.journeys import ingest_service

SEED = int(os.environ.get("FLOWRT_CRASH_SEED") or 2013)
KILLS = int(os.environ.get("FLOWRT_CRASH_KILLS") or 0) // 5 or 10
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
LONGEST_MS = 250

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(120 + 5 * KILLS),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]


@dataclass
class Home:
    """The folder of a service that lives many times, and what it acknowledged in all its lives."""

    folder: Path
    lives: int = 0

    @property
    def told(self) -> Path:
        return self.folder / "acknowledged"

    def acknowledged(self) -> set[str]:
        # A line that was cut short was never told.
        return {line for line in self.told.read_text().split("\n")[:-1] if line}

    def live(self, *last: str) -> subprocess.Popen[bytes]:
        self.lives += 1
        with self.told.open("ab") as out, self.errors.open("wb") as errors:
            command = [sys.executable, "-m", "tests.journeys.ingest_service"]
            return subprocess.Popen(
                [*command, str(self.folder), f"life{self.lives}", *last],
                cwd=ROOT,
                stdout=out,
                stderr=errors,
            )

    @property
    def errors(self) -> Path:
        return self.folder / f"errors-{self.lives}"


def test_what_was_acknowledged_is_processed_once_however_often_the_service_dies(
    tmp_path: Path,
) -> None:
    home, chance = Home(tmp_path), random.Random(SEED)
    home.told.touch()
    for _ in range(KILLS):
        early_ms = chance.uniform(200, 800) if chance.random() < 0.3 else None
        killed(home, chance.random() ** 2 * LONGEST_MS, early_ms)
    last = home.live("last")
    try:
        assert last.wait(PATIENCE_SECONDS) == 0, home.errors.read_text()
    finally:
        last.kill()
        last.wait()

    rows = processed(tmp_path / "out")
    count = Counter(row["id"] for row in rows)
    acknowledged = home.acknowledged()
    lost = acknowledged - count.keys()
    twice = [id for id, times in count.items() if times > 1]
    print(
        f"{KILLS} kills (seed {SEED}): {len(acknowledged)} events acknowledged, {len(rows)} "
        f"processed, {len(count.keys() - acknowledged)} of them not acknowledged; {len(lost)} "
        f"lost, {len(twice)} twice"
    )
    assert len(acknowledged) > KILLS
    assert not lost
    assert not twice
    # One that was in the hands of each sender at each death.
    most = KILLS * ingest_service.SENDERS * 3
    assert len(count.keys() - acknowledged) <= most
    numbers: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        numbers[row["sender"]].append(row["number"])
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    assert in_order(rows)


def killed(home: Home, after_ms: float, early_ms: float | None) -> None:
    """Let the service live until it has told of an event and a while longer, or for `early_ms`.

    That is while it starts and recovers.
    """
    size = home.told.stat().st_size
    process = home.live()
    started = time.monotonic()
    try:
        if early_ms is not None:
            time.sleep(early_ms / 1_000)
        else:
            while process.poll() is None and home.told.stat().st_size == size:
                assert time.monotonic() < started + PATIENCE_SECONDS, "it acknowledges nothing"
                time.sleep(0.001)
            time.sleep(after_ms / 1_000)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL, home.errors.read_text()


def processed(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("part-*"))
    return [msgspec.json.decode(line) for part in parts for line in part.read_bytes().splitlines()]


def in_order(rows: list[dict[str, Any]]) -> bool:
    """Say whether the events of each sender in each life are in the order of sending."""
    last: dict[tuple[str, str], tuple[int, str]] = {}
    for row in rows:
        life, sender, number = row["id"].split("-")
        digits = number.rstrip("abc")
        at = int(digits), number.removeprefix(digits)
        if at <= last.get((life, sender), (-1, "")):
            return False
        last[life, sender] = at
    return True
