"""Rows of an SQLite table as a source, from files on a real disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from flowrt.connectors.sqlite.source import SqliteSource
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.source import Chunk
from flowrt.testing import check_source, manual_world
from flowrt.testing.world import ManualClock
from tests.connectors.kit import open_reader, read_all, source_context

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct, frozen=True):
    id: int
    customer: str
    paid: bool = False


@dataclass(frozen=True)
class Name:
    customer: str


SCHEMA = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, at INTEGER, paid INTEGER);
INSERT INTO orders VALUES (3, 'ann', 10, 1), (7, 'bob', 20, 0), (8, 'ann', 20, 1),
  (20, 'cid', 20, 0), (21, 'bob', 30, 1);
CREATE TABLE numbers (n INTEGER PRIMARY KEY) WITHOUT ROWID;
INSERT INTO numbers VALUES (1), (2);
CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, line TEXT);
INSERT INTO log (line) VALUES ('one'), ('two');
"""
IDS = [3, 7, 8, 20, 21]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    execute(path, SCHEMA)
    return path


def execute(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def insert(path: Path, id: int, at: int | None = 0) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO orders VALUES (?, 'dan', ?, 0)", (id, at))


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("options", "expect"),
    [
        ({"table": "orders", "type": Order}, None),
        ({"table": "orders", "type": Order, "column": "id"}, None),
        ({"table": "orders", "type": Order, "column": "at"}, None),
        ({"query": "SELECT * FROM orders ORDER BY at", "column": "id", "type": Order}, None),
        ({"table": "numbers", "column": "n"}, [{"n": 1}, {"n": 2}]),
    ],
    ids=["rowid", "primary key", "ties", "query", "without rowid"],
)
async def test_laws(path: Path, options: Any, expect: list[Any] | None, follow: bool) -> None:
    names = ["ann", "bob", "ann", "cid", "bob"]
    orders = [
        Order(id, name, paid)
        for id, name, paid in zip(IDS, names, [True, False, True, False, True], strict=True)
    ]

    await check_source(
        lambda: SqliteSource(path, **options, follow=follow), expect or orders, longest_limit=3
    )


async def test_rows_are_dicts_or_of_a_type(path: Path) -> None:
    rows = await read_all(SqliteSource(path, "orders"))

    assert rows[0] == {"id": 3, "customer": "ann", "at": 10, "paid": 1}
    assert (await read_all(SqliteSource(path, "orders", type=Name)))[1] == Name("bob")


async def test_what_is_added_later_is_found_by_who_follows(path: Path) -> None:
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    source = SqliteSource(path, "orders", column="at", follow=True, poll_interval="2s")
    reader = await open_reader(source, source_context(world))
    chunks: list[Chunk[Any] | None] = [await reader.read(100)]

    async with anyio.create_task_group() as group:

        async def read() -> None:
            chunks.append(await reader.read(100))

        group.start_soon(read)
        while clock.next_alarm_ms() is None:
            await checkpoint()
        insert(path, 22, at=30)  # the same value as the last that was read
        insert(path, 23, at=31)
        clock.advance(1_999)
        assert len(chunks) == 1
        clock.advance(1)

    assert chunks[1] is not None
    assert [row["id"] for row in chunks[1].values] == [22, 23]
    assert chunks[1].position == [31, 23]
    await reader.close()


async def test_rows_that_were_read_may_be_deleted(path: Path) -> None:
    reader = await open_reader(SqliteSource(path, "orders"), source_context())
    chunk = await reader.read(3)
    assert chunk is not None
    execute(path, "DELETE FROM orders WHERE id <= 8")

    assert [row["id"] for row in (await reader.read(5) or Chunk([], 0)).values] == [20, 21]
    await reader.close()
    rest = await read_all(SqliteSource(path, "orders"), position=chunk.position)
    assert [row["id"] for row in rest] == [20, 21]


async def test_a_table_that_was_replaced_is_noticed(path: Path) -> None:
    execute(path, "DELETE FROM orders WHERE id > 7")

    with pytest.raises(InputError, match=r"'orders' in .* ends before the position .* rowid 21"):
        await read_all(SqliteSource(path, "orders"), position=[21])

    execute(path, "DELETE FROM orders")  # nothing there says otherwise, until a row comes
    assert await read_all(SqliteSource(path, "orders"), position=[21]) == []


@pytest.mark.parametrize("column", ["rowid", "id"])
async def test_ids_that_are_never_given_twice_may_go(path: Path, column: str) -> None:
    execute(path, "DELETE FROM log WHERE id = 2")
    source = SqliteSource(path, "log", column=column)
    assert await read_all(source, position=[2]) == []
    execute(path, "INSERT INTO log (line) VALUES ('three')")

    assert await read_all(source, position=[2]) == [{"id": 3, "line": "three"}]
    with pytest.raises(InputError, match="ends before the position"):
        await read_all(source, position=[9])


async def test_a_row_without_a_place_in_the_order_is_an_error(path: Path) -> None:
    insert(path, 30, at=None)

    with pytest.raises(InputError, match="a row whose 'at' is NULL: it has no place"):
        await read_all(SqliteSource(path, "orders", column="at"))


async def test_ties_in_a_query_are_an_error_wherever_they_are_cut(path: Path) -> None:
    source = SqliteSource(path, query="SELECT at FROM orders", column="at")

    for limit in (1, 2, 3):
        with pytest.raises(InputError, match=r"the query in .* has two rows with at 20"):
            await read_all(source, limit=limit)


async def test_a_row_that_is_not_of_the_type_is_named(path: Path) -> None:
    execute(path, "UPDATE orders SET customer = NULL WHERE id = 8")

    with pytest.raises(InputError, match=r"the row with rowid 8 does not fit the type Name: .*ust"):
        await read_all(SqliteSource(path, "orders", type=Name))


async def test_the_lag_counts_rows(path: Path) -> None:
    reader = await open_reader(SqliteSource(path, "orders", column="at"), source_context())

    assert await reader.lag(None) == (5, "records")
    assert await reader.lag([20, 8]) == (2, "records")
    await reader.close()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: SqliteSource(p, "gone"), ConfigError, "there is no table 'gone' in .*shop.db"),
        (lambda p: SqliteSource(p, "orders", column="when"), ConfigError, "no such column: q.when"),
        (lambda p: SqliteSource(p, "numbers"), ConfigError, "name its column that grows"),
        (lambda p: SqliteSource(p, query="SELECT FROM", column="x"), ConfigError, "syntax error"),
        (lambda p: SqliteSource(p.parent / "no.db", "x"), InputError, "does it exist"),
    ],
    ids=["table", "column", "rowid", "query", "file"],
)
async def test_what_is_not_there_is_said(
    path: Path, make: Callable[[Path], SqliteSource[Any]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await read_all(make(path))
    assert not (path.parent / "no.db").exists()


async def test_no_name_gets_into_the_sql(path: Path) -> None:
    name = 'a "quoted"; DROP TABLE orders; --'
    execute(
        path,
        'CREATE TABLE "{0}" ("{0}"); INSERT INTO "{0}" VALUES (1)'.format(name.replace('"', '""')),
    )

    assert await read_all(SqliteSource(path, name, column=name)) == [{name: 1}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a table or a query"),
        ({"table": "orders", "query": "SELECT 1"}, "a table or a query"),
        ({"query": "SELECT 1"}, "a query has no rowid"),
        ({"table": "orders", "poll_interval": "0s"}, "at least 1ms"),
        ({"table": "orders", "type": int}, "read as a dataclass"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SqliteSource("shop.db", **options)
    with pytest.raises(ConfigError, match="no file"):
        SqliteSource(":memory:", "orders")


def test_what_a_source_says_of_itself() -> None:
    source = SqliteSource("shop.db", "orders", follow=True)

    assert source.describe() == "sqlite table 'orders' in shop.db by rowid, followed"
    assert not source.bounded


async def replaced(path: Path, script: str) -> None:
    """Read all, put a new database in place by rename, read on."""
    reader = await open_reader(SqliteSource(path, "orders", follow=True), source_context())
    assert await reader.read(9) is not None
    new = path.with_name("new.db")
    execute(new, script)
    os.replace(new, path)
    try:
        chunk = await reader.read(9)
        assert chunk is not None
        assert [row["id"] for row in chunk.values] == [22, 23]
    finally:
        await reader.close()


async def test_a_file_that_takes_the_place_is_read_on_behind_the_position(path: Path) -> None:
    await replaced(path, SCHEMA + "INSERT INTO orders (id) VALUES (22), (23);")


@pytest.mark.parametrize(
    ("script", "expect"),
    [
        ("CREATE TABLE other (id);", r"no table 'orders' in .* It was there when"),
        (
            "CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (5);",
            "ends before the position",
        ),
        ("CREATE TABLE orders (a PRIMARY KEY) WITHOUT ROWID;", "cannot be read by 'rowid'"),
    ],
)
async def test_a_file_in_its_place_that_is_no_continuation_is_said(
    path: Path, script: str, expect: str
) -> None:
    insert(path, 0)
    execute(path, "INSERT INTO orders (id) VALUES (50)")
    with pytest.raises(InputError, match=expect):
        await replaced(path, script)


async def test_a_table_that_was_made_anew_with_other_keys_is_said(path: Path) -> None:
    place = [30, 21]
    execute(path, "DROP TABLE orders; CREATE TABLE orders (at INTEGER PRIMARY KEY)")
    with pytest.raises(InputError, match="has other keys than it had"):
        await read_all(SqliteSource(path, "orders", column="at"), position=place)


async def test_a_file_that_is_gone_while_it_is_followed_is_said(path: Path) -> None:
    reader = await open_reader(SqliteSource(path, "orders", follow=True), source_context())
    await reader.read(9)
    path.unlink()
    with pytest.raises(InputError, match="does it exist"):
        await reader.read(9)
    await reader.close()
