"""A table as a sink, in files on a real disk. What crashes leave: test_sqlite_sink_laws.py."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from flowrt.connectors.sqlite import database
from flowrt.connectors.sqlite.sink import SqliteSink
from flowrt.connectors.sqlite.table import write_mark
from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.sink import Writer
from tests.connectors.kit import sink_context

pytestmark = pytest.mark.anyio


class Total(msgspec.Struct):
    customer: str
    spent: int | None = None


class Color(Enum):
    RED = "red"


class Pair(NamedTuple):
    customer: str
    spent: int


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "shop.db"


def totals(path: Path, mode: str = "append", **options: Any) -> SqliteSink:
    key = {"key": "customer"} if mode == "upsert" else {}
    return SqliteSink(path, "totals", **{"mode": mode, "columns": Total, **key, **options})


async def begin(sink: SqliteSink) -> Writer[Any]:
    await sink.recover(None, [], sink_context())
    return await sink.writer(sink_context(), [])


async def write_epoch(
    sink: SqliteSink, writer: Writer[Any], epoch: int, values: Sequence[Any]
) -> list[Any]:
    """Write, prepare and commit an epoch; return its committables."""
    await writer.write(values, None)
    committables = [await writer.prepare(epoch)]
    await sink.commit(epoch, committables)
    return committables


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else, who waits for nobody."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        yield connection


def rows(path: Path, query: str = "SELECT * FROM totals ORDER BY rowid") -> list[Any]:
    with connected(path) as connection:
        return connection.execute(query).fetchall()


async def test_an_epoch_appears_when_it_is_committed(path: Path) -> None:
    sink = totals(path)
    writer = await begin(sink)

    await writer.write([Total("ada", 1), {"customer": "bob", "spent": 2}], None)
    await writer.write([("ada", None), Pair("ada", 3)], None)
    prepared = await writer.prepare(1)
    assert rows(path) == []
    await sink.commit(1, [prepared])
    await sink.commit(1, [prepared])
    await sink.close()

    assert rows(path) == [("ada", 1), ("bob", 2), ("ada", None), ("ada", 3)]
    assert rows(path, "SELECT sink, table_name, epoch FROM flowrt_commits") == [
        ("out", "totals", 1)
    ]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


async def test_an_upsert_keeps_the_last_row_of_each_key(path: Path) -> None:
    sink = totals(path, "upsert")
    writer = await begin(sink)

    (first,) = await write_epoch(sink, writer, 1, [("ada", 1), ("bob", 1), ("ada", 2)])
    await write_epoch(sink, writer, 2, [("ada", 3), ("cid", None)])
    await sink.close()

    assert rows(path, "SELECT * FROM totals ORDER BY 1") == [("ada", 3), ("bob", 1), ("cid", None)]
    assert len(msgspec.msgpack.decode(first["blocks"][0])) == 2


async def test_a_key_of_several_columns_and_nothing_else(path: Path) -> None:
    columns = {"a": "TEXT", "b": "INTEGER"}
    sink = SqliteSink(path, "pairs", mode="upsert", key=["a", "b"], columns=columns)
    writer = await begin(sink)

    await write_epoch(sink, writer, 1, [("x", 1), ("x", 2), ("x", 1)])
    await write_epoch(sink, writer, 2, [("x", 2)])
    await sink.close()

    assert rows(path, "SELECT * FROM pairs ORDER BY b") == [("x", 1), ("x", 2)]


async def test_keys_that_sql_thinks_equal_end_with_the_last(path: Path) -> None:
    with connected(path) as connection:
        connection.execute("CREATE TABLE totals (customer TEXT COLLATE NOCASE UNIQUE, spent)")
    sink = totals(path, "upsert", columns=None)
    writer = await begin(sink)

    values = [("x", 1), ("X", 2), ("x", 3)]
    await write_epoch(
        sink, writer, 1, [dict(zip(("customer", "spent"), v, strict=True)) for v in values]
    )
    await sink.close()

    assert rows(path) == [("X", 3)]  # SQL keeps the key as it was written first


async def test_what_a_column_can_hold(path: Path) -> None:
    sink = SqliteSink(path, "cells", columns={"v": ""})
    writer = await begin(sink)
    when = datetime(2026, 1, 2, tzinfo=UTC)
    given = [None, 1, 2.5, "é", b"\0", True, Color.RED, when, Decimal("1.50"), bytearray(b"x")]

    await write_epoch(sink, writer, 1, [{"v": value} for value in given])
    await sink.close()

    assert [value for (value,) in rows(path, "SELECT v FROM cells ORDER BY rowid")] == [
        *(None, 1, 2.5, "é", b"\0", 1, "red", "2026-01-02T00:00:00+00:00", "1.50", b"x")
    ]


async def test_the_table_of_a_type(path: Path) -> None:
    @dataclass
    class Reading:
        sensor: str
        degrees: float | None
        raw: bytes
        at: datetime
        ok: bool = True

    sink = SqliteSink(path, "readings", columns=Reading)
    await begin(sink)
    await sink.close()

    assert rows(path, "SELECT name, type, \"notnull\" FROM pragma_table_info('readings')") == [
        ("sensor", "TEXT", 1),
        ("degrees", "REAL", 0),
        ("raw", "BLOB", 1),
        ("at", "TEXT", 1),
        ("ok", "INTEGER", 1),
    ]


async def test_a_table_that_is_there_is_taken_as_it_is(path: Path) -> None:
    with connected(path) as connection:
        connection.execute("CREATE TABLE totals (id INTEGER PRIMARY KEY, customer, spent)")
    sink = totals(path, columns=None)
    writer = await begin(sink)

    await write_epoch(sink, writer, 1, [Total("ada", 1)])
    await sink.close()

    assert rows(path) == [(1, "ada", 1)]


async def test_subtasks_come_one_after_the_other(path: Path) -> None:
    sink = totals(path)
    await sink.recover(None, [], sink_context())
    writers = [await sink.writer(sink_context(subtask=i, parallelism=2), []) for i in (0, 1)]
    for index, writer in enumerate(writers):
        await writer.write([("ada", index), ("ada", index + 10)], None)

    await sink.commit(1, [await writer.prepare(1) for writer in reversed(writers)])
    await sink.close()

    assert [spent for _, spent in rows(path)] == [0, 10, 1, 11]


async def test_many_rows_go_in_blocks(path: Path) -> None:
    sink = totals(path)
    writer = await begin(sink)

    with patch("flowrt.connectors.sqlite.sink.BLOCK_BYTES", 1_000):
        (prepared,) = await write_epoch(sink, writer, 1, [("ada", n) for n in range(1_000)])
    await sink.close()

    assert len(prepared["blocks"]) > 5
    assert [spent for _, spent in rows(path)] == list(range(1_000))


# ---------------------------------------------------------------------- rows that do not fit


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"customer": "ada"}, "it lacks 'spent'; each row needs the columns"),
        ({"customer": "ada", "spent": 1, "x": 2}, "it has 'x' beside the columns"),
        (("ada",), "it has 1 cell, and the columns are"),
        (("ada", [1]), "column 'spent' holds a list"),
        ("ada", "a value of type str does not fit: a row is a dict"),
        (("\ud800", 1), "cannot take .* surrogates not allowed"),
        (("ada", 2**64), "cannot take .*18446744073709551616"),
    ],
)
async def test_a_value_that_is_no_row_fails_when_it_is_written(
    path: Path, value: Any, message: str
) -> None:
    sink = totals(path)
    writer = await begin(sink)

    with pytest.raises(SinkError, match=rf"sink 'out', table 'totals'.*{message}"):
        await writer.write([("ada", 1), value], None)
    await sink.close()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((None, 3), r"the row \{'customer': None, 'spent': 3\}: NOT NULL constraint failed"),
        (("ada", 2**63), "too large"),
        (("eve", -1), "CHECK constraint failed"),
        (("bob", 4), "UNIQUE constraint failed"),  # it is in the table
        (("dan", 5), "UNIQUE constraint failed"),  # it is in the same epoch
        (("ida", 6), "no idas here"),
    ],
)
async def test_a_row_that_the_table_does_not_take_fails_before_the_epoch_is_decided(
    path: Path, value: Any, message: str
) -> None:
    with connected(path) as connection:
        connection.executescript(
            "CREATE TABLE totals (customer TEXT NOT NULL UNIQUE, spent INTEGER CHECK (spent > 0));"
            "INSERT INTO totals VALUES ('bob', 1);"
            "CREATE TRIGGER no_idas BEFORE INSERT ON totals WHEN new.customer = 'ida'"
            " BEGIN SELECT RAISE(ABORT, 'no idas here'); END;"
        )
    sink = totals(path)
    writer = await begin(sink)

    await writer.write([("dan", 1), value], None)
    with pytest.raises(SinkError, match=rf"sink 'out': table 'totals' does not take .*{message}"):
        await writer.prepare(1)
    await sink.close()

    assert rows(path) == [("bob", 1)]


async def test_a_trigger_that_ends_the_transaction_leaves_nothing(path: Path) -> None:
    with connected(path) as connection:
        connection.executescript(
            "CREATE TABLE totals (customer, spent); CREATE TRIGGER no_idas BEFORE INSERT ON totals "
            "WHEN new.customer = 'ida' BEGIN SELECT RAISE(ROLLBACK, 'no idas here'); END;"
        )
    sink = totals(path)
    writer = await begin(sink)

    await writer.write([("dan", 1), ("ida", 2), ("eve", 3)], None)
    with pytest.raises(SinkError, match="no idas here"):
        await writer.prepare(1)
    await sink.close()

    assert rows(path) == []


async def test_an_upsert_needs_a_key_in_each_row(path: Path) -> None:
    with connected(path) as connection:
        connection.execute("CREATE TABLE totals (customer UNIQUE, spent)")
    sink = totals(path, "upsert", columns=["customer", "spent"])
    writer = await begin(sink)
    with pytest.raises(SinkError, match=r"the key \['customer'\] of .* is NULL"):
        await writer.write([(None, 1)], None)
    await sink.close()

    sink = totals(path, "upsert", columns=None)
    writer = await begin(sink)
    with pytest.raises(SinkError, match="rows have no 'customer', which is in the key"):
        await writer.write([{"spent": 1}], None)
    with pytest.raises(SinkError, match="its columns have no names; give the sink columns="):
        await (await begin(sink)).write([("ada", 1)], None)
    await sink.close()


async def test_a_decided_epoch_that_fails_comes_again_when_the_table_is_mended(path: Path) -> None:
    sink = SqliteSink(path, "totals", columns={"customer": "TEXT UNIQUE", "spent": "INTEGER"})
    writer = await begin(sink)
    await writer.write([("ada", 1), ("bob", 2)], None)
    prepared = [await writer.prepare(1)]
    with connected(path) as connection:
        connection.execute("INSERT INTO totals VALUES ('bob', 99)")

    with pytest.raises(SinkError, match=r"'bob'.*: UNIQUE .* decided .*: mend the table"):
        await sink.commit(1, prepared)
    assert rows(path) == [("bob", 99)]
    with pytest.raises(SinkError, match="mend the table"):
        await sink.recover(1, prepared, sink_context(generation=2))
    with connected(path) as connection:
        connection.execute("DELETE FROM totals")
    await sink.recover(1, prepared, sink_context(generation=3))
    await sink.close()

    assert rows(path) == [("ada", 1), ("bob", 2)]


# ---------------------------------------------------------------------- others at the database


async def test_a_locked_database_is_waited_for(path: Path) -> None:
    sink = totals(path)
    writer = await begin(sink)
    await writer.write([("ada", 1)], None)
    prepared = [await writer.prepare(1)]

    tries = []
    really = database.Database._try
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")

        def try_and_let_go(*args: Any) -> Any:
            tries.append(1)
            if len(tries) == 3:
                other.execute("COMMIT")
            return really(*args)

        with (
            patch.object(database, "SLICE_MS", 1),
            patch.object(database.Database, "_try", try_and_let_go),
        ):
            await sink.commit(1, prepared)
    await sink.close()

    assert len(tries) == 3
    assert rows(path) == [("ada", 1)]


async def test_a_database_that_stays_locked_is_an_error(path: Path) -> None:
    sink = totals(path, busy_timeout="50ms")
    writer = await begin(sink)
    await writer.write([("ada", 1)], None)
    prepared = [await writer.prepare(1)]

    with connected(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkError, match=r"sink 'out' .* held it locked for 0.05 s\. Who has"):
            await sink.commit(1, prepared)
        assert rows(path) == []  # WAL: who reads never waits
    await sink.commit(1, prepared)
    await sink.close()

    assert rows(path) == [("ada", 1)]


async def test_two_sinks_write_to_one_database_at_once(path: Path) -> None:
    sinks = [SqliteSink(path, name, columns={"n": "INTEGER"}) for name in ("a", "b")]

    async def live(sink: SqliteSink) -> None:
        writer = await begin(sink)
        for epoch in range(1, 11):
            await write_epoch(sink, writer, epoch, [{"n": epoch}])
        await sink.close()

    async with anyio.create_task_group() as group:
        for sink in sinks:
            group.start_soon(live, sink)

    expected = [(n,) for n in range(1, 11)]
    assert rows(path, "SELECT n FROM a") == rows(path, "SELECT n FROM b") == expected


async def test_a_reader_in_the_middle_holds_nobody_up(path: Path) -> None:
    """The log grows while somebody reads on in an old state; then it is written back."""
    sink = totals(path)
    writer = await begin(sink)
    await write_epoch(sink, writer, 1, [("ada", 1)])
    with connected(path) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM totals").fetchone() == (1,)
        for epoch in range(2, 7):
            await write_epoch(sink, writer, epoch, [("x" * 1_000, n) for n in range(500)])
        assert reader.execute("SELECT count(*) FROM totals").fetchone() == (1,)
        reader.execute("COMMIT")
        assert reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    await write_epoch(sink, writer, 7, [("ada", 7)])
    await sink.close()

    assert rows(path, "SELECT count(*) FROM totals") == [(2_502,)]


async def test_a_full_disk_is_an_error_and_then_none(path: Path) -> None:
    really = database.connect
    room = {"pages": 10}

    def small(path: str, read_only: bool) -> sqlite3.Connection:
        connection = really(path, read_only)
        connection.execute(f"PRAGMA max_page_count = {room['pages']}")
        return connection

    with patch.object(database, "connect", small):
        sink = totals(path)
        writer = await begin(sink)
        await writer.write([("x" * 10_000, n) for n in range(20)], None)
        with pytest.raises(SinkError, match=r"sink 'out' cannot use .* is full; make room"):
            await writer.prepare(1)
        room["pages"] = 10_000
        await sink.commit(1, [await writer.prepare(1)])
        await sink.close()

    assert rows(path, "SELECT count(*) FROM totals") == [(20,)]


async def test_a_file_that_is_no_database_is_an_error(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else " * 100)

    with pytest.raises(SinkError, match=r"not a database; is the path that of an SQLite database"):
        await begin(totals(path))
    with pytest.raises(SinkError, match="cannot use the database"):
        await begin(totals(path.parent))


# ---------------------------------------------------------------------- lives


async def test_a_flow_from_nothing_does_not_add_to_an_earlier_life(path: Path) -> None:
    sink = totals(path)
    await write_epoch(sink, await begin(sink), 4, [("ada", 1)])
    await sink.close()

    sink = totals(path)
    with pytest.raises(ConfigError, match=r"earlier life .*until epoch 4.* DELETE FROM") as error:
        await begin(sink)
    with connected(path) as connection:  # as the message says
        connection.execute(str(error.value).partition("stay: ")[2])
    await write_epoch(sink, await begin(sink), 1, [("bob", 2)])
    await sink.close()

    assert rows(path) == [("ada", 1), ("bob", 2)]


async def test_an_upsert_may_begin_again(path: Path) -> None:
    for _ in range(2):
        sink = totals(path, "upsert")
        await write_epoch(sink, await begin(sink), 1, [("ada", 1)])
        await sink.close()

    assert rows(path) == [("ada", 1)]


async def test_another_database_than_that_of_the_checkpoint_is_noticed(path: Path) -> None:
    sink = totals(path)
    prepared = await write_epoch(sink, await begin(sink), 1, [("ada", 1)])
    await sink.close()
    for name in ("shop.db", "shop.db-wal", "shop.db-shm"):
        path.with_name(name).unlink(missing_ok=True)

    with pytest.raises(SinkError, match="not the one that the checkpoint of epoch 1 knows"):
        await sink.recover(1, prepared, sink_context(generation=2))


async def test_a_backup_that_was_brought_back_is_noticed(path: Path) -> None:
    sink = totals(path)
    writer = await begin(sink)
    await write_epoch(sink, writer, 1, [("ada", 1)])
    with connected(path) as connection, connected(path.with_name("old.db")) as backup:
        connection.backup(backup)
    await write_epoch(sink, writer, 2, [("ada", 2)])
    prepared = await write_epoch(sink, writer, 3, [("ada", 3)])
    await sink.close()

    old = totals(path.with_name("old.db"))
    with pytest.raises(SinkError, match=r"until epoch 1 only, .* those until 2 were there"):
        await old.recover(3, prepared, sink_context(generation=2))
    await old.close()


async def test_going_back_behind_rows_that_are_there(path: Path) -> None:
    """The newest checkpoint is damaged, and the flow goes on from the one before."""
    for mode in ("append", "upsert"):
        sink = totals(path.with_name(f"{mode}.db"), mode)
        writer = await begin(sink)
        first = await write_epoch(sink, writer, 1, [("ada", 1)])
        await write_epoch(sink, writer, 2, [("ada", 2)])
        if mode == "append":
            with pytest.raises(SinkError, match=r"until epoch 2, .* goes back to epoch 1"):
                await sink.recover(1, first, sink_context(generation=2))
        else:
            await sink.recover(1, first, sink_context(generation=2))
            await write_epoch(sink, await sink.writer(sink_context(), []), 2, [("ada", 2)])
            assert rows(path.with_name("upsert.db")) == [("ada", 2)]
        await sink.close()


async def test_epochs_without_rows_write_nothing(path: Path) -> None:
    sink = totals(path)
    writer = await begin(sink)
    await write_epoch(sink, writer, 1, [("ada", 1)])
    empty = await write_epoch(sink, writer, 2, [])

    assert rows(path, "SELECT epoch FROM flowrt_commits") == [(1,)]
    await sink.recover(2, empty, sink_context(generation=2))
    await write_epoch(sink, await sink.writer(sink_context(), []), 3, [("ada", 3)])
    await sink.close()
    assert rows(path) == [("ada", 1), ("ada", 3)]


async def test_an_instance_that_was_replaced_cannot_commit(path: Path) -> None:
    old, new = totals(path), totals(path)
    writer = await begin(old)
    await writer.write([("ada", 1)], None)
    prepared = [await writer.prepare(1)]
    await new.recover(1, prepared, sink_context(generation=2))

    await writer.write([("ada", 2)], None)
    with pytest.raises(SinkError, match="another instance writes to table 'totals'"):
        await old.commit(2, [await writer.prepare(2)])
    await old.close()
    await new.close()

    assert rows(path) == [("ada", 1)]
    with pytest.raises(SinkError, match="is closed"):
        await new.commit(3, prepared)


# ---------------------------------------------------------------------- memory


async def test_writes_wait_while_the_epoch_before_is_committed(path: Path) -> None:
    sink = totals(path, max_epoch_bytes=1_000)
    writer = await begin(sink)
    await writer.write([("ada", 1)], None)
    prepared = [await writer.prepare(1)]
    await writer.write([("ada", n) for n in range(10)], None)  # more than half
    written = []

    async with anyio.create_task_group() as group:

        async def write() -> None:
            await writer.write([("bob", 1)], None)
            written.append(1)

        group.start_soon(write)
        for _ in range(20):
            await checkpoint()
        assert not written
        await sink.commit(1, prepared)
    assert written
    await sink.close()


async def test_who_has_not_prepared_the_epoch_does_not_wait(path: Path) -> None:
    """Else its barrier would never come, and the commit that all wait for neither."""
    sink = totals(path, max_epoch_bytes=10_000)
    await sink.recover(None, [], sink_context())
    first, second = [await sink.writer(sink_context(subtask=i, parallelism=2), []) for i in (0, 1)]
    prepared = [await first.prepare(1)]
    await first.write([("ada", n) for n in range(100)], None)  # more than half

    await second.write([("bob", 1)], None)
    prepared.append(await second.prepare(1))
    await sink.commit(1, prepared)
    await first.write([("ada", 100)], None)
    await sink.commit(2, [await first.prepare(2), await second.prepare(2)])
    await sink.close()

    assert [spent for _, spent in rows(path)] == [1, *range(101)]


async def test_an_epoch_that_is_too_large_is_an_error(path: Path) -> None:
    sink = totals(path, max_epoch_bytes="1kB")
    writer = await begin(sink)

    with pytest.raises(SinkError, match=r"one epoch take more than max_epoch_bytes=1000, .*epoch_"):
        await writer.write([("ada", n) for n in range(100)], None)
    await sink.close()

    sink = totals(path.with_name("upsert.db"), "upsert", max_epoch_bytes="1kB")
    writer = await begin(sink)
    await writer.write([("ada", n) for n in range(1_000)], None)  # one row, in the end
    await sink.close()


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("create", "options", "message"),
    [
        ("", {"columns": None}, r"sink 'out': there is no table 'totals': create it, or give"),
        ("CREATE TABLE totals (a)", {}, r"has no column 'customer', 'spent', only \['a'\]"),
        ("CREATE TABLE totals (customer, spent)", {"mode": "upsert"}, "CREATE UNIQUE INDEX"),
    ],
)
async def test_a_table_that_does_not_fit_is_refused_at_the_start(
    path: Path, create: str, options: dict[str, Any], message: str
) -> None:
    with connected(path) as connection:
        connection.execute(create)
    sink = totals(path, **options)

    with pytest.raises(ConfigError, match=message):
        await begin(sink)
    await sink.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "replace"}, '"append" or "upsert"'),
        ({"mode": "upsert"}, "a key is for upserts, and they need one"),
        ({"key": "a"}, "a key is for upserts"),
        ({"mode": "upsert", "key": "b", "columns": ["a"]}, r"the key \['b'\] is not among"),
        ({"columns": "abc"}, "columns names the columns"),
        ({"columns": int}, "not from <class 'int'>"),
        ({"columns": []}, "columns names the columns"),
        ({"columns": ["a", ""]}, "not a name"),
        ({"max_epoch_bytes": "much"}, "not a size"),
        ({"busy_timeout": "soon"}, "not a duration"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SqliteSink("shop.db", "totals", **options)


def test_a_field_without_an_sql_type_is_refused() -> None:
    @dataclass
    class Odd:
        names: list[str]

    with pytest.raises(ConfigError, match="field 'names' of Odd has no SQL type"):
        SqliteSink("shop.db", "totals", columns=Odd)
    with pytest.raises(ConfigError, match="no file"):
        SqliteSink(":memory:", "totals")


def test_what_a_sink_says_of_itself() -> None:
    assert SqliteSink("shop.db", "t").describe() == "sqlite shop.db, table t (append)"
    sink = SqliteSink("shop.db", "t", mode="upsert", key=["a", "b"])
    assert sink.describe() == "sqlite shop.db, table t (upsert by a, b)"


# ------------------------------------------------------------------ files that are replaced


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def delete(path: Path) -> None:
    for one in (path, beside(path, "-wal"), beside(path, "-shm")):
        one.unlink()


def replace(path: Path) -> None:
    """Put the backup in place, as somebody does who knows that the log must go."""
    for ending in ("-wal", "-shm"):
        beside(path, ending).unlink()
    os.replace(backup_of(path), path)


def backup_of(path: Path) -> Path:
    return path.with_name("backup.db")


def back_up(path: Path) -> None:
    with connected(path) as source, closing(sqlite3.connect(backup_of(path))) as target:
        source.backup(target)


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


CHANGES = pytest.mark.parametrize(
    ("change", "expect"),
    [
        (delete, "deleted or moved away"),
        (replace, "another file took its place"),
        (move_folder, "deleted or moved away"),
        (lambda path: beside(path, "-wal").unlink(), "shop.db-wal was deleted or replaced"),
        (lambda path: beside(path, "-shm").unlink(), "shop.db-shm was deleted or replaced"),
    ],
    ids=["deleted", "replaced", "folder moved", "log deleted", "index deleted"],
)


async def begun(path: Path) -> tuple[SqliteSink, Writer[Any]]:
    """A sink with one epoch, of which there is a backup."""
    sink = totals(path)
    writer = await begin(sink)
    await write_epoch(sink, writer, 1, [("ada", 1)])
    back_up(path)
    return sink, writer


@CHANGES
async def test_a_changed_file_is_noticed_before_an_epoch_is_decided(
    path: Path, change: Callable[[Path], None], expect: str
) -> None:
    sink, writer = await begun(path)
    change(path)

    await writer.write([("bob", 2)], None)
    with pytest.raises(SinkError, match=rf"sink 'out' cannot use .*: .*{expect}.*start the fl"):
        await writer.prepare(2)
    with pytest.raises(SinkError, match="while it was in use"):  # it stays so
        await writer.prepare(2)
    await sink.close()


@CHANGES
@pytest.mark.parametrize("idle", [False, True])
async def test_a_changed_file_is_noticed_before_a_commit(
    path: Path, change: Callable[[Path], None], expect: str, idle: bool
) -> None:
    sink, writer = await begun(path)
    await writer.write([] if idle else [("bob", 2)], None)
    committables = [await writer.prepare(2)]
    change(path)

    with pytest.raises(SinkError, match=expect):
        await sink.commit(2, committables)
    await sink.close()


async def test_a_file_that_is_replaced_within_a_commit_gets_its_rows_at_the_next_start(
    path: Path,
) -> None:
    sink, writer = await begun(path)
    await writer.write([("bob", 2)], None)
    committables = [await writer.prepare(2)]

    def write_and_replace(*arguments: Any) -> None:
        write_mark(*arguments)
        replace(path)

    with (
        patch("flowrt.connectors.sqlite.commits.write_mark", write_and_replace),
        pytest.raises(SinkError, match="another file took its place"),
    ):
        await sink.commit(2, committables)
    assert rows(path) == [("ada", 1)]
    await sink.recover(2, committables, sink_context(generation=2))
    await sink.close()

    assert rows(path) == [("ada", 1), ("bob", 2)]


async def test_an_empty_file_in_its_place_is_not_the_one_that_the_checkpoint_knows(
    path: Path,
) -> None:
    sink, writer = await begun(path)
    await writer.write([("bob", 2)], None)
    committables = [await writer.prepare(2)]
    delete(path)
    with pytest.raises(SinkError, match="deleted"):
        await sink.commit(2, committables)

    with pytest.raises(SinkError, match="not the one that the checkpoint of epoch 2 knows"):
        await sink.recover(2, committables, sink_context(generation=2))
    await sink.close()


async def test_the_log_of_a_former_file_is_not_mixed_with_the_new(path: Path) -> None:
    sink, writer = await begun(path)
    await writer.write([("bob", 2)], None)
    committables = [await writer.prepare(2)]
    os.replace(backup_of(path), path)  # and its log stays
    with pytest.raises(SinkError, match="another file"):
        await sink.commit(2, committables)

    with pytest.raises(SinkError, match=r"the log of the one that was there before.* delete"):
        await sink.recover(2, committables, sink_context(generation=2))
    for ending in ("-wal", "-shm"):
        beside(path, ending).unlink()
    await sink.recover(2, committables, sink_context(generation=3))
    await sink.close()

    assert rows(path) == [("ada", 1), ("bob", 2)]


async def test_a_backup_that_is_written_into_the_same_file_is_noticed(path: Path) -> None:
    sink, writer = await begun(path)
    await write_epoch(sink, writer, 2, [("bob", 2)])
    with closing(sqlite3.connect(backup_of(path))) as source, connected(path) as target:
        source.backup(target)

    with pytest.raises(SinkError, match=r"until epoch 1 only, but this flow has committed .* 2: w"):
        await write_epoch(sink, writer, 3, [("cid", 3)])
    await sink.close()


async def test_a_file_that_is_replaced_while_it_is_opened_is_not_taken_for_the_other(
    path: Path,
) -> None:
    with connected(path) as connection:
        connection.execute("CREATE TABLE totals (customer, spent)")
    back_up(path)

    def connect(*arguments: Any) -> sqlite3.Connection:
        connection = database_connect(*arguments)
        if backup_of(path).exists():
            replace(path)
        return connection

    database_connect = database.connect
    sink = totals(path)
    with patch.object(database, "connect", connect):
        writer = await begin(sink)
    await write_epoch(sink, writer, 1, [("ada", 1)])
    await sink.close()

    assert rows(path) == [("ada", 1)]


async def test_a_file_that_is_replaced_whenever_it_is_opened_is_an_error(path: Path) -> None:
    def connect(*arguments: Any) -> sqlite3.Connection:
        connection = database_connect(*arguments)
        delete(path)
        return connection

    database_connect = database.connect
    with (
        patch.object(database, "connect", connect),
        pytest.raises(SinkError, match="again and again"),
    ):
        await begin(totals(path))


# ------------------------------------------------------------------ what is no number


@pytest.mark.parametrize("value", [{"v": math.nan}, (math.nan,)])
async def test_nan_is_refused_where_it_is_written(path: Path, value: Any) -> None:
    sink = SqliteSink(path, "figures", columns={"v": "REAL"})
    writer = await begin(sink)

    await writer.write([(1.5,), (math.inf,), (-math.inf,)], None)
    with pytest.raises(SinkError, match=r"'v' is nan, and would become NULL \(allow_nan=True"):
        await writer.write([value], None)
    await sink.close()


async def test_nan_becomes_null_where_that_is_allowed(path: Path) -> None:
    sink = SqliteSink(path, "figures", columns={"v": "REAL"}, allow_nan=True)
    writer = await begin(sink)

    await write_epoch(sink, writer, 1, [(math.nan,), (math.inf,)])
    await sink.close()

    assert rows(path, "SELECT * FROM figures") == [(None,), (math.inf,)]
