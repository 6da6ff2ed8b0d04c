"""The demo: it writes what a plain loop over the file computes, whatever stops it meanwhile."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

import flowrt
from examples.flights import Flight, flow, report, scheduled

ROOT = Path(__file__).parent.parent.parent
JANUARY = ROOT / "examples" / "data" / "flights-2013-01.csv.gz"

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def flights() -> list[dict[str, str]]:
    with gzip.open(JANUARY, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def computed() -> list[dict[str, Any]]:
    """The lines that the demo should write, by a loop and some dicts."""
    with (ROOT / "examples/data/airlines.csv").open(encoding="utf-8") as file:
        airline = {row["carrier"]: row["name"] for row in csv.DictReader(file)}
    delays: dict[tuple[str, str], list[int]] = defaultdict(list)
    count: dict[tuple[str, str], int] = defaultdict(int)
    lines = []
    for flight in flights():
        key = flight["origin"], flight["carrier"]
        count[key] += 1
        if flight["dep_delay"]:
            delays[key].append(int(flight["dep_delay"]))
        known = delays[key]
        lines.append(
            {
                "airport": key[0],
                "carrier": key[1],
                "airline": airline[key[1]],
                "flights": count[key],
                "cancelled": round((count[key] - len(known)) / count[key], 4),
                "mean_delay": round(sum(known) / len(known), 2) if known else None,
                "worst_delay": max(known, default=None),
            }
        )
    return lines


def written(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]


async def test_a_drain_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    out, kept = tmp_path / "figures", tmp_path / "checkpoints"

    async with flowrt.start(flow(out=out), checkpoints=kept) as job:
        while job.metrics().records_in < 5_000:
            await anyio.lowlevel.checkpoint()
        await job.drain()
    first = written(out)
    assert job.status().state == "drained"
    assert 5_000 <= len(first) < len(flights())

    async with flowrt.start(flow(out=out), checkpoints=kept) as job:
        assert job.status().restored_epoch is not None
        assert job.metrics().records_in == len(first)
        await job.wait()

    assert job.status().state == "finished"
    assert written(out) == computed()


def test_event_time_is_the_scheduled_departure_in_new_york() -> None:
    for row in flights()[::100]:
        flight = Flight("", "", None, int(row["minute"]), datetime.fromisoformat(row["time_hour"]))
        year, month, day, hour, minute = (
            int(row[name]) for name in ("year", "month", "day", "hour", "minute")
        )

        # In January New York is five hours behind; no time zone data are needed to know that.
        gap = scheduled(flight) - datetime(year, month, day, hour, minute, tzinfo=UTC)
        assert gap.total_seconds() == 5 * 3600


def test_the_table_has_the_busiest_airlines_of_each_airport(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "part-00000001-0-000000.jsonl").write_text(
        "\n".join(map(json.dumps, computed())), encoding="utf-8"
    )
    (tmp_path / ".part.staged.jsonl").write_text("not committed", encoding="utf-8")

    report(tmp_path)

    table = capsys.readouterr().out
    last = {(line["airport"], line["carrier"]): line for line in computed()}
    jetblue = last["JFK", "B6"]
    assert "JetBlue Airways" in table
    assert f"{jetblue['flights']:,}" in table
    assert f"{jetblue['mean_delay']:.1f} min" in table
    assert table.index("EWR") < table.index("JFK") < table.index("LGA")


def test_without_output_the_table_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(tmp_path)

    assert capsys.readouterr().out == f"no committed figures in {tmp_path} yet\n"
