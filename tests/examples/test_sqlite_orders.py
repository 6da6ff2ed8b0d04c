"""The shop's totals are those of all its orders, also of orders that come between two runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from anyio.lowlevel import checkpoint

import flowrt
from examples.sqlite_orders import SHOP, flow

pytestmark = pytest.mark.anyio


async def run(path: Path, until: int) -> None:
    """Run the flow until it has read so many orders in all."""
    async with flowrt.start(flow(path), checkpoints=path.parent / "checkpoints") as job:
        while job.metrics().records_in < until:
            await checkpoint()


def totals(path: Path) -> list[tuple[int, str | None, int]]:
    with closing(sqlite3.connect(path)) as shop:
        return shop.execute("SELECT * FROM totals ORDER BY customer").fetchall()


async def test_orders_count_once_whenever_they_come(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as shop:
        shop.executescript(SHOP)

    await run(path, until=4)
    assert totals(path) == [(1, "Ada", 3475), (2, "Bob", 1250), (3, None, 990)]

    with closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("INSERT INTO orders (customer, cents) VALUES (2, 50)")
    await run(path, until=5)
    await run(path, until=5)

    assert totals(path)[1] == (2, "Bob", 1300)


async def test_it_can_end_with_the_orders_there_are(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as shop:
        shop.executescript(SHOP)

    async with flowrt.start(flow(path, follow=False)) as job:
        await job.wait()

    assert job.status().state == "finished"
    assert len(totals(path)) == 3
