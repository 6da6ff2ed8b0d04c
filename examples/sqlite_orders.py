"""Orders in one table of a shop's database, what each customer has spent in another.

    python -m examples.sqlite_orders shop.db          (makes the database with some orders)
    flowrt run examples.sqlite_orders:flow --param path=shop.db --checkpoints checkpoints

The totals are right whatever crashes: those of an epoch appear together, once. Add orders with any
tool while it runs, or while it does not: it finds them.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flowrt import Flow, SqliteLookup, SqliteSink, SqliteSource

SHOP = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY AUTOINCREMENT, customer INTEGER NOT NULL, cents INTEGER NOT NULL
);
INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bob');
INSERT INTO orders (customer, cents) VALUES (1, 3000), (2, 1250), (1, 475), (3, 990);
"""


@dataclass(frozen=True)
class Order:
    """A row of `orders`; its id is the place in the table."""

    customer: int
    cents: int


@dataclass(frozen=True)
class Total:
    """A row of `totals`: the table is made from this."""

    customer: int
    name: str | None
    cents: int


def flow(path: Path = Path("shop.db"), follow: bool = True) -> Flow:
    """Keep the totals of all orders, also of those to come unless `follow` is off."""
    customer = SqliteLookup(path, "SELECT name FROM customers WHERE id = ?")

    async def named(spent: tuple[int, int]) -> Total:
        known = await customer(spent[0])
        return Total(spent[0], known["name"] if known else None, spent[1])

    flow = Flow("totals")
    (
        flow.source(SqliteSource(path, "orders", type=Order, follow=follow), name="orders")
        .key_by(lambda order: order.customer)
        .sum(lambda order: order.cents, name="spent")
        .map(named, name="name")
        .sink(
            SqliteSink(path, "totals", mode="upsert", key="customer", columns=Total), name="totals"
        )
    )
    return flow


if __name__ == "__main__":
    with closing(sqlite3.connect(sys.argv[1])) as shop:
        shop.executescript(SHOP)
