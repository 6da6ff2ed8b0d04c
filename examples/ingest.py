"""A shop's service: its handlers push orders into a flow that keeps what each customer has spent.

    python -m examples.ingest .demo/shop

An order is acknowledged once it is in the journal. From then on it counts, and once: kill the
service with kill -9 when you like and run it again, the figures go on where they were.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import msgspec

from flowrt import FileSink, Flow, Ingest, start

CUSTOMERS = ["ada", "bob", "cyd", "dan"]


class Order(msgspec.Struct, frozen=True):
    """What a customer sends; the key is the customer's own, the same when it is sent again."""

    key: str
    customer: str
    cents: int


class Spent(msgspec.Struct, frozen=True):
    """A line of the output: what a customer has spent, after one more order."""

    customer: str = ""
    orders: int = 0
    cents: int = 0


def add(spent: Spent, order: Order) -> Spent:
    return Spent(order.customer, spent.orders + 1, spent.cents + order.cents)


def flow(orders: Ingest[Order], out: Path) -> Flow:
    flow = Flow("shop")
    (
        flow.source(orders, name="orders")
        .key_by(lambda order: order.customer)
        .aggregate(Spent, add, name="spent")
        .map(lambda keyed: keyed[1])
        .sink(FileSink(out), name="files")
    )
    return flow


async def handle(orders: Ingest[Order], order: Order) -> str:
    """What a request handler does: it answers when the order is safe, and no sooner."""
    await orders.send(order)  # waits for the disk, and for the flow where that is behind
    return f"thank you for {order.key}"


async def shop(orders: Ingest[Order], customer: str, count: int) -> None:
    for number in range(count):
        await handle(orders, Order(f"{customer}-{number}", customer, 100 + number))


async def main(folder: Path, count: int = 1_000) -> None:
    orders = Ingest("orders", type=Order, journal=folder / "journal")
    async with start(flow(orders, folder / "spent"), checkpoints=folder / "checkpoints") as job:
        async with anyio.create_task_group() as customers:
            for customer in CUSTOMERS:
                customers.start_soon(shop, orders, customer, count)
        orders.close()
        await job.wait()
    for line in report(folder / "spent"):
        print(f"{line.customer}: {line.orders:,} orders, {line.cents / 100:,.2f}")


def report(folder: Path) -> list[Spent]:
    """Return the last committed line of each customer."""
    last: dict[str, Spent] = {}
    for part in sorted(folder.glob("part-*.jsonl")):
        for line in msgspec.json.Decoder(Spent).decode_lines(part.read_bytes()):
            last[line.customer] = line
    return [last[customer] for customer in sorted(last)]


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
