"""A flow from table to tables: every row counted for its key, each count added, the last put."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from flowrt import Flow, SqliteSink, SqliteSource

ROWS = 6_000
KEYS = 40


class Count(NamedTuple):
    """A row of both results."""

    key: str
    number: int


def write_input(path: Path, seed: int = 1) -> None:
    """Write the table `events`: the same for the same seed."""
    chance = random.Random(seed)
    rows = [(f"key {chance.randrange(KEYS)}",) for _ in range(ROWS)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, key TEXT NOT NULL)")
        connection.executemany("INSERT INTO events (key) VALUES (?)", rows)


def flow(data: Path, out: Path, rate: float | None = None) -> Flow:
    """Every count goes to `counts`, the last of each key to `totals`, in one database."""
    flow = Flow("tables")
    results = out / "results.db"
    columns = {"key": "TEXT NOT NULL", "number": "INTEGER NOT NULL"}
    counts = (
        flow.source(SqliteSource(data, "events"), name="events", max_rate=rate)
        .key_by(lambda row: row["key"])
        .count(name="count", parallelism=2)
        .map(lambda pair: Count(*pair), parallelism=2)
    )
    counts.sink(SqliteSink(results, "counts", columns=columns), name="counts", parallelism=2)
    totals = SqliteSink(results, "totals", mode="upsert", key="key", columns=columns)
    counts.sink(totals, name="totals")
    return flow


def rows_in(out: Path, table: str) -> list[bytes]:
    """Return the committed rows of a result as lines, in the order in which they were written."""
    with closing(sqlite3.connect(out / "results.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute(f"SELECT key, number FROM {table} ORDER BY rowid")
        return [f"{key}\t{number}".encode() for key, number in rows]
