"""Looking rows up in a real database, also from inside a flow."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

import flowrt
from flowrt.connectors.sqlite.lookup import SqliteLookup
from flowrt.contract.errors import ConfigError, InputError

pytestmark = pytest.mark.anyio

QUERY = "SELECT name, vip FROM customers WHERE id = ?"


@dataclass(frozen=True)
class Customer:
    name: str
    vip: bool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, vip INTEGER);"
            "INSERT INTO customers VALUES (1, 'ada', 1), (2, 'bob', 0), (3, NULL, 0);"
        )
    return path


async def test_a_row_is_found_or_not(path: Path) -> None:
    with SqliteLookup(path, QUERY) as lookup:
        assert await lookup(1) == {"name": "ada", "vip": 1}
        assert await lookup(9) is None
    with SqliteLookup(path, QUERY, type=Customer) as typed:
        assert await typed(2) == Customer("bob", False)
        with pytest.raises(InputError, match=r"a row that does not fit the type Customer: .*\$.na"):
            await typed(3)


async def test_more_ask_at_once_than_there_are_connections(path: Path) -> None:
    found: list[object] = []
    with SqliteLookup(path, QUERY, connections=2) as lookup:

        async def ask(id: int) -> None:
            row = await lookup(id)
            found.append(row and row["name"])

        async with anyio.create_task_group() as group:
            for id in [1, 2] * 10:
                group.start_soon(ask, id)

    assert sorted(map(str, found)) == ["ada"] * 10 + ["bob"] * 10


async def test_it_sees_what_was_committed_since(path: Path) -> None:
    with SqliteLookup(path, QUERY) as lookup, closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        await lookup(1)
        writer.execute("UPDATE customers SET name = 'eve' WHERE id = 1")
        assert (await lookup(1) or {})["name"] == "ada"
        writer.commit()
        assert (await lookup(1) or {})["name"] == "eve"


async def test_it_enriches_a_flow(path: Path) -> None:
    results: flowrt.MemorySink[str] = flowrt.MemorySink()
    with SqliteLookup(path, QUERY, type=Customer) as lookup:

        async def named(id: int) -> str:
            customer = await lookup(id)
            return customer.name if customer is not None else "?"

        flow = flowrt.Flow("names")
        flow.source([1, 2, 4]).map(named).sink(results)
        async with flowrt.start(flow) as job:
            await job.wait()

    assert results.rows == ["ada", "bob", "?"]


async def test_what_cannot_be_read_is_said(path: Path) -> None:
    with (
        SqliteLookup(path, "SELECT * FROM gone WHERE id = ?") as lookup,
        pytest.raises(InputError, match=r"the lookup 'SELECT \* FROM gone.* no such table: gone"),
    ):
        await lookup(1)
    with (
        SqliteLookup(path.parent / "no.db", QUERY) as lookup,
        pytest.raises(InputError, match="does it exist"),
    ):
        await lookup(1)
    with (
        SqliteLookup(path, "DELETE FROM customers WHERE id = ?") as lookup,
        pytest.raises(InputError, match="readonly"),
    ):
        await lookup(1)


async def test_a_value_that_sqlite_does_not_know_is_said(path: Path) -> None:
    with SqliteLookup(path, QUERY) as lookup:
        for value in (2**70, "\ud800", [1]):
            with pytest.raises(InputError, match="the lookup 'SELECT name"):
                await lookup(value)
        assert await lookup(9) is None


def other(path: Path) -> Path:
    """Another database, with one row."""
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.executescript(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, vip INTEGER);"
            "INSERT INTO customers VALUES (1, 'eve', 0)"
        )
    return other


async def test_a_file_that_takes_the_place_is_read_from_then_on(path: Path) -> None:
    with SqliteLookup(path, QUERY) as lookup:
        assert (await lookup(1) or {})["name"] == "ada"
        os.replace(other(path), path)
        assert (await lookup(1) or {})["name"] == "eve"
        assert await lookup(2) is None


async def test_so_is_one_to_which_a_link_leads(path: Path) -> None:
    link, new = path.with_name("link.db"), path.with_name("new.db")
    link.symlink_to(path)
    new.symlink_to(other(path))
    with SqliteLookup(link, QUERY) as lookup:
        assert (await lookup(1) or {})["name"] == "ada"
        os.replace(new, link)
        assert (await lookup(1) or {})["name"] == "eve"


async def test_a_file_that_is_gone_is_said_until_there_is_one(path: Path) -> None:
    with SqliteLookup(path, QUERY) as lookup:
        await lookup(1)
        path.unlink()
        with pytest.raises(InputError, match="does it exist"):
            await lookup(1)
        os.replace(other(path), path)
        assert (await lookup(1) or {})["name"] == "eve"


async def test_a_file_is_not_read_with_the_log_of_another(path: Path) -> None:
    with closing(sqlite3.connect(path)) as writer, SqliteLookup(path, QUERY) as lookup:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("UPDATE customers SET name = 'dan' WHERE id = 1")
        writer.commit()
        assert (await lookup(1) or {})["name"] == "dan"
        os.replace(other(path), path)
        with pytest.raises(InputError, match="the log of the one that was there before"):
            await lookup(1)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        SqliteLookup("shop.db", QUERY, connections=0)
