"""A job that writes to an SQLite table goes back: to a savepoint, or to an older checkpoint."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import flowrt
from flowrt import SinkError
from flowrt.connectors.sqlite import database

SPENT = {1: ["ada 1", "bob 2", "ada 3"], 2: ["cid 4", "ada 5"]}
"""What each of two lives reads, and commits as an epoch of that number."""

ALL = [("ada", 1), ("bob", 2), ("ada", 3), ("cid", 4), ("ada", 5)]
UPSERT = {"mode": "upsert", "key": "customer"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; what the first of two lives left is in `old` and `old.db`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(database, "SYNCHRONOUS", "OFF")
    return tmp_path


def two_lives(**options: Any) -> None:
    for number, lines in SPENT.items():
        with Path("spent.txt").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        flowrt.run(spending(**options), checkpoints="new")
        if number == 1:
            shutil.copytree("new", "old")
            shutil.copy("shop.db", "old.db")


def spending(sink: str = "out", **options: Any) -> flowrt.Flow:
    def row(line: str) -> dict[str, Any]:
        customer, spent = line.split()
        return {"customer": customer, "spent": int(spent)}

    flow = flowrt.Flow("spending")
    columns = {"customer": "TEXT", "spent": "INTEGER"}
    table = flowrt.SqliteSink("shop.db", "spent", columns=columns, **options)
    flow.source(flowrt.FileSource("spent.txt", "text"), name="in").map(row).sink(table, name=sink)
    return flow


def sql(text: str) -> list[Any]:
    with closing(sqlite3.connect("shop.db", isolation_level=None)) as connection:
        return connection.execute(text).fetchall()


def rows() -> list[Any]:
    return sql("SELECT customer, spent FROM spent ORDER BY rowid")


GOING_BACK: pytest.MarkDecorator = pytest.mark.parametrize(
    "options",
    [{"checkpoints": "old"}, {"checkpoints": "restored", "restore": "old"}],
    ids=["older checkpoint", "savepoint"],
)


@GOING_BACK
def test_appending_refuses_to_go_back_behind_its_rows(options: dict[str, Any]) -> None:
    two_lives()

    with pytest.raises(SinkError, match="rows until epoch 2, and the flow goes back to epoch 1"):
        flowrt.run(spending(), **options)

    assert rows() == ALL


@GOING_BACK
def test_appending_goes_back_with_the_database_of_that_time(options: dict[str, Any]) -> None:
    two_lives()
    for left in ("shop.db-wal", "shop.db-shm"):
        Path(left).unlink(missing_ok=True)
    shutil.copy("old.db", "shop.db")

    flowrt.run(spending(), **options)

    assert rows() == ALL


@GOING_BACK
def test_appending_goes_back_where_what_followed_was_deleted(options: dict[str, Any]) -> None:
    two_lives()
    with pytest.raises(SinkError) as error:
        flowrt.run(spending(), **options)
    sql("DELETE FROM spent WHERE spent > 3")
    sql(str(error.value).partition("its mark: ")[2])  # as the message says

    flowrt.run(spending(), **options)

    assert rows() == ALL


@GOING_BACK
def test_upserts_go_back_and_write_the_same_again(options: dict[str, Any]) -> None:
    sql("CREATE TABLE spent (customer TEXT PRIMARY KEY, spent INTEGER)")
    two_lives(**UPSERT)

    flowrt.run(spending(**UPSERT), **options)

    assert sorted(rows()) == [("ada", 5), ("bob", 2), ("cid", 4)]


@GOING_BACK
def test_a_sink_of_another_name_begins_anew_behind_the_savepoint(options: dict[str, Any]) -> None:
    two_lives()

    flowrt.run(spending("out2"), allow_dropped_state=["out"], **options)

    assert rows() == [*ALL, ("cid", 4), ("ada", 5)], "in the same table what followed comes twice"


def test_epochs_without_rows_are_no_way_back() -> None:
    two_lives()
    for _ in range(3):
        flowrt.run(spending(), checkpoints="new")

    assert rows() == ALL
