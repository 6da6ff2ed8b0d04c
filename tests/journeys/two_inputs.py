"""A flow with two inputs and one with rules that change, for jobs that are killed.

In which order the records of two inputs come is open, so what is written does not depend on it: an
order and its payments are told once all are there, and of a set of rules only that it is whole and
never an older one than before.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec

from flowrt import (
    BroadcastState,
    Context,
    CoOperator,
    FileSink,
    FileSource,
    Flow,
    ListState,
    ValueState,
)

ORDERS = 3_000
FILES = 3
KEYS = 40
SETS_OF_RULES = 300
RULES = ("floor", "ceiling", "limit")


class Order(msgspec.Struct):
    """A line of the orders; `payments` is in how many parts it is paid."""

    number: int
    customer: int
    payments: int


class Payment(msgspec.Struct):
    """A line of the payments."""

    order: int
    part: int


class RuleSet(msgspec.Struct):
    """A line of the rules: all of them, each of the same version."""

    version: int


class Paid(CoOperator[Order, Payment, Any]):
    """Tells of an order once it and all its payments are there."""

    order = ValueState(Order)
    parts = ListState(int)

    def process_left(self, value: Order, ctx: Context) -> None:
        self.order.set(value)
        self._tell(ctx)

    def process_right(self, value: Payment, ctx: Context) -> None:
        self.parts.add(value.part)
        self._tell(ctx)

    def _tell(self, ctx: Context) -> None:
        order: Any = self.order.get()
        if order is not None and len(self.parts) == order.payments:
            ctx.emit((order.number, order.customer, sorted(self.parts)))
            self.order.clear()
            self.parts.clear()


class Checked(CoOperator[Order, RuleSet, Any]):
    """Counts a customer's orders, and says of each whether the rules it saw were whole and newer.

    Of each set of rules every subtask tells once.
    """

    versions = BroadcastState(str, int)
    count = ValueState(int, default=0)
    seen = ValueState(int, default=0)

    def process_left(self, value: Order, ctx: Context) -> None:
        versions = [self.versions.get(rule, 0) for rule in RULES]
        is_whole = len(set(versions)) == 1
        is_newer = versions[0] >= self.seen.get()
        self.seen.set(versions[0])
        self.count.set(self.count.get() + 1)
        ctx.emit(("order", value.customer, self.count.get(), is_whole, is_newer))

    def process_right(self, value: RuleSet, ctx: Context) -> None:
        is_next = self.versions.get("limit", 0) == value.version - 1
        if value.version % 2:
            self.versions.replace(dict.fromkeys(RULES, value.version))
        else:
            for rule in RULES:
                self.versions.put(rule, value.version)
        ctx.emit(("rules", ctx.subtask, value.version, is_next, True))


def write_input(folder: Path, seed: int = 1) -> None:
    """Write orders, payments and rules: the same for the same seed."""
    chance = random.Random(seed)
    orders = [Order(n, chance.randrange(KEYS), chance.randrange(1, 4)) for n in range(ORDERS)]
    payments = [Payment(order.number, part) for order in orders for part in range(order.payments)]
    chance.shuffle(payments)
    for kind, rows in (("orders", orders), ("payments", payments)):
        (folder / kind).mkdir(parents=True)
        for file in range(FILES):
            _write(folder / kind / f"{file}.jsonl", rows[file::FILES])
    (folder / "rules").mkdir()
    _write(folder / "rules" / "0.jsonl", [RuleSet(n) for n in range(1, SETS_OF_RULES + 1)])


def _write(path: Path, rows: list[Any]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def flow(data: Path, out: Path, rate: float | None = None) -> Flow:
    """Orders joined with payments, and under rules that change meanwhile."""
    flow = Flow("two-inputs")

    def read(kind: str, type: Any, share: float, parallelism: int) -> Any:
        source = FileSource(data / kind, type=type)
        limit = None if rate is None else rate * share
        return flow.source(source, name=kind, max_rate=limit, parallelism=parallelism)

    orders = read("orders", Order, 1, 2)
    payments = read("payments", Payment, 2, 2)
    rules = read("rules", RuleSet, SETS_OF_RULES / ORDERS, 1)
    (
        orders.key_by(lambda order: order.number, name="order-number")
        .connect(payments.key_by(lambda payment: payment.order, name="payment-number"))
        .process(Paid, name="paid", parallelism=3)
        .rebalance()
        .sink(FileSink(out / "paid"), name="paid-files", parallelism=2)
    )
    (
        orders.key_by(lambda order: order.customer, name="customer")
        .connect(rules.broadcast())
        .process(Checked, name="checked", parallelism=3)
        .sink(FileSink(out / "checked"), name="checked-files", parallelism=3)
    )
    return flow
