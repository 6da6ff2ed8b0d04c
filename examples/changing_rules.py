"""Alerts under limits that change while the flow runs; the service iterates over them itself.

    python -m examples.changing_rules

What a customer has spent is kept by key. The limits go to every subtask, and an alert says which
limit it was made under. Before the first change the limits are those that `open` loads.
"""

from __future__ import annotations

from typing import NamedTuple

import anyio

from flowrt import BroadcastState, Context, CoOperator, Flow, Ingest, JobOutput, ValueState, start

FIRST_LIMITS = {"ada": 100, "bob": 80}


class Order(NamedTuple):
    """What a customer orders."""

    customer: str
    amount: int


class Alert(NamedTuple):
    """A customer spent more than the limit that held then."""

    customer: str
    spent: int
    limit: int


class OverLimit(CoOperator[Order, dict[str, int], Alert]):
    """Orders on the left, and on the right, whenever it changes, the whole set of limits."""

    limits = BroadcastState(str, int)
    spent = ValueState(int, default=0)

    async def open(self, ctx: Context) -> None:
        """Load the limits to begin with; after a restore those of the snapshot hold."""
        if not len(self.limits):
            self.limits.replace(FIRST_LIMITS)

    def process_left(self, value: Order, ctx: Context) -> None:
        """Add up, and tell of a customer who is over the limit."""
        spent = self.spent.get() + value.amount
        self.spent.set(spent)
        limit = self.limits.get(value.customer)
        if limit is not None and spent > limit:
            ctx.emit(Alert(value.customer, spent, limit))

    def process_right(self, value: dict[str, int], ctx: Context) -> None:
        """Let new limits hold, all at once."""
        self.limits.replace(value)


def flow(orders: Ingest[Order], limits: Ingest[dict[str, int]]) -> tuple[Flow, JobOutput[Alert]]:
    """Describe the flow; the output is what the service iterates over."""
    flow = Flow("limits")
    alerts = (
        flow.source(orders, name="orders")
        .key_by(lambda order: order.customer)
        .connect(flow.source(limits, name="limits", parallelism=1).broadcast())
        .process(OverLimit, name="over-limit", parallelism=2)
        .output("alerts", capacity=100)
    )
    return flow, alerts


async def main() -> None:
    """Order until an alert tells that the change has arrived."""
    orders: Ingest[Order] = Ingest("orders")
    limits: Ingest[dict[str, int]] = Ingest("limits")
    limited, alerts = flow(orders, limits)
    async with start(limited) as job:
        await orders.send(Order("ada", 120))
        await limits.send({"ada": 50, "bob": 80})
        async for alert in job.output(alerts):
            print(f"{alert.customer} spent {alert.spent}, more than {alert.limit}")
            if alert.limit == 50:
                break
            await orders.send(Order("ada", 10))


if __name__ == "__main__":
    anyio.run(main)
