"""SQLite tables keep the laws of sinks: wherever a job dies, each row is there once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from flowrt.connectors.sqlite import database
from flowrt.connectors.sqlite.sink import SqliteSink
from flowrt.testing import check_sink

pytestmark = [pytest.mark.anyio, pytest.mark.crash]


@dataclass(frozen=True)
class Reading:
    sensor: str
    degrees: float


READINGS = [Reading(f'sensor "{number}"', number / 2) for number in range(3)]


@pytest.fixture(autouse=True)
def _without_syncs() -> Iterator[None]:
    """Processes die here, not machines; a sync in each of some thousand lives takes a minute."""
    with patch.object(database, "SYNCHRONOUS", "OFF"):
        yield


# Each value more is worth some hundred lives.
@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 3), ({"mode": "upsert", "key": "sensor"}, 2)],
    ids=["append", "upsert"],
)
async def test_laws(tmp_path: Path, options: dict[str, Any], count: int) -> None:
    def visible(place: str) -> list[Reading]:
        path = tmp_path / f"{place}.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'readings'")
            if tables.fetchone() is None:
                return []
            rows = connection.execute("SELECT sensor, degrees FROM readings ORDER BY rowid")
            return [Reading(*row) for row in rows]

    await check_sink(
        lambda place: SqliteSink(tmp_path / f"{place}.db", "readings", columns=Reading, **options),
        READINGS[:count],
        visible,
    )
