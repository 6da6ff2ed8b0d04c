"""Files keep the laws of sinks: wherever a job dies, each record is there once, and in order."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from flowrt.connectors.files.sink import FileSink
from flowrt.testing import MemoryFiles, check_sink, manual_world

pytestmark = [pytest.mark.anyio, pytest.mark.crash]


@dataclass
class Reading:
    sensor: str
    degrees: int


READINGS = [Reading(f'sensor "{number}",\nroof', number) for number in range(5)]


def json_rows(content: bytes) -> list[Any]:
    return [Reading(**row) for row in msgspec.json.Decoder().decode_lines(content)]


def csv_rows(content: bytes) -> list[Any]:
    rows = csv.DictReader(content.decode().splitlines(keepends=True))
    return [Reading(row["sensor"], int(row["degrees"])) for row in rows]


# More ways to roll are tried in test_files_sink_crash.py; each here is worth some thousand lives.
@pytest.mark.parametrize(
    ("format", "roll"),
    [("jsonl", {}), ("csv", {"roll_epochs": 2, "roll_bytes": 100})],
    ids=["jsonl, a part for each epoch", "csv, rolled by epochs and by size"],
)
async def test_laws(format: Any, roll: dict[str, Any]) -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    rows_of = json_rows if format == "jsonl" else csv_rows

    def visible(place: str) -> list[Any]:
        parts = [path for path in files.paths() if path.startswith(f"{place}/part-")]
        return [row for part in parts for row in rows_of(files.contents(part))]

    await check_sink(
        lambda place: FileSink(place, format, **roll),
        READINGS,
        visible,
        world=world,
        holds_back="roll_epochs" in roll,
    )
