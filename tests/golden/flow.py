"""The flow whose checkpoints are kept for ever: every kind of state, and what else a snapshot has.

What is here stands in those checkpoints. It is added to, never changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntFlag
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from flowrt import (
    AggregatingState,
    BroadcastState,
    Context,
    CoOperator,
    Flow,
    ListState,
    MapState,
    MemorySink,
    Operator,
    ReducingState,
    Source,
    Ttl,
    ValueState,
    WatermarkStrategy,
)
from flowrt.testing.script import PAUSE, record

NOW_MS = 1_000_000
"""When the checkpoints were made, by the job's clock."""


class Color(Enum):
    RED = "r"
    GREEN = ("g", 1)


class Access(IntFlag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass(frozen=True)
class Place:
    airport: str
    gate: int = 1


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)
    place: Place | None = None


class Order(msgspec.Struct):
    number: int
    basket: Basket
    placed: datetime | None = None


VALUES: list[Any] = [
    None,
    True,
    7,
    -(2**70),
    0.5,
    float("inf"),
    "text \u00e9",
    "half \ud800",
    b"bytes",
    1 + 2j,
    Decimal("1.10"),
    date(2024, 2, 29),
    datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
    datetime(2024, 3, 1, 12, 30, tzinfo=ZoneInfo("Europe/Paris")),
    time(1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))),
    timedelta(days=1, microseconds=5),
    UUID(int=5),
    (1, "a", (2.0,)),
    [1, [2], {"a": 3}],
    {"a": 1, 2: [3], (4, 5): None},
    {1, 2},
    frozenset({"x"}),
    Color.GREEN,
    Access.READ | Access.WRITE,
    Point(1, 2),
    Place("JFK", 4),
    Basket(["apple"], Place("LGA")),
    Order(9, Basket(), datetime(2024, 1, 1, tzinfo=UTC)),
]
"""One of each kind of value."""

KEYS: list[Any] = [
    "text", "half \ud800", 1, 2.5, -0.0, 2**70, b"bytes", None, date(2024, 2, 29), UUID(int=5),
    Decimal("0.1"), (1, "a"), frozenset({1, 2}), Color.RED, Point(3, 4), Place("JFK"),
]  # fmt: skip
"""One of each kind of key."""


class Everything(Operator[tuple[Any, int], Any]):
    """Keeps a number in each kind of state, and each kind of value under numbered names."""

    value = ValueState(int, default=0)
    text = ValueState(str)
    basket = ValueState(Basket)
    order = ValueState(Order)
    anything: MapState[int, Any] = MapState(int)
    numbers = ListState(int)
    orders = ListState(Order)
    by_name = MapState(str, Basket)
    total = ReducingState(int.__add__, int)
    mean: AggregatingState[int, tuple[int, int], float] = AggregatingState(
        lambda: (0, 0), lambda sums, n: (sums[0] + 1, sums[1] + n), lambda sums: sums[1] / sums[0]
    )
    for_a_day = ValueState(int, ttl="1d")
    for_an_hour = MapState(str, int, ttl=Ttl("1h", time="event", refresh="read"))
    recent = ListState(Place, ttl="1m")

    def process(self, value: tuple[Any, int], ctx: Context) -> None:
        key, number = value
        self.value.set(number)
        self.text.set(f"number {number}")
        self.basket.set(Basket([f"{number}"], Place("JFK", number)))
        self.order.set(Order(number, Basket(["a"])))
        self.numbers.add(number)
        self.orders.add(Order(number, Basket()))
        self.by_name.put(f"name {number % 2}", Basket([f"{number}"]))
        self.total.add(number)
        self.mean.add(number)
        self.for_a_day.set(number)
        self.for_an_hour.put("hour", number)
        self.recent.add(Place("JFK", number))
        ctx.timers.register_event_time(10_000 + number)
        ctx.timers.register_processing_time(NOW_MS + 60_000)
        if key == "text":
            for place, one in enumerate(VALUES):
                self.anything.put(place, one)
        if number == 3:
            self.anything.remove(0)
            self.by_name.clear()
            self.numbers.set([number])
            ctx.timers.delete_event_time(10_001)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit((ctx.key, timestamp, self.value.get()))

    def snapshot(self) -> Any:
        return {"kept": "beside the state"}

    def restore(self, data: list[Any]) -> None:
        assert data == [{"kept": "beside the state"}] * 2


class Ruled(CoOperator[tuple[Any, int], tuple[str, int], Any]):
    """Tells each record the rules that are in force."""

    rules = BroadcastState(str, Point)

    def process_left(self, value: tuple[Any, int], ctx: Context) -> None:
        ctx.emit((value, list(self.rules.items())))

    def process_right(self, value: tuple[str, int], ctx: Context) -> None:
        self.rules.put(value[0], Point(value[1]))


def script() -> dict[str, list[Any]]:
    """Three rounds over all keys, then what a later life reads; the second split ends early."""
    rounds: list[Any] = []
    for number in (1, 2, 3):
        keys = KEYS if number < 3 else KEYS[:3]
        rounds += [record((key, number), at=1_000 * number) for key in keys]
        rounds.append(PAUSE)
    rest = [record((KEYS[0], 4), at=4_000), record(("new", 5), at=20_000)]
    return {"long": [*rounds, *rest], "short": [record(("short", 1), at=500)]}


def rules() -> list[Any]:
    """Two rules, one of which changes later."""
    return [("limit", 5), ("minimum", 1), PAUSE, ("limit", 6)]


@dataclass
class Sinks:
    """What comes out."""

    fired: MemorySink[Any] = field(default_factory=MemorySink)
    counted: MemorySink[Any] = field(default_factory=MemorySink)
    answered: MemorySink[Any] = field(default_factory=MemorySink)
    ruled: MemorySink[Any] = field(default_factory=MemorySink)


def flow(
    events: Source[Any],
    changes: Source[Any],
    ask: Callable[[Any], Awaitable[Any]],
    sinks: Sinks,
) -> Flow:
    """The flow of version 0.1."""
    flow = Flow("golden")
    in_order = WatermarkStrategy.monotonous()
    stream = flow.source(events, name="events", watermarks=in_order, parallelism=2)
    keyed = stream.key_by(lambda pair: pair[0], name="key")
    keyed.process(Everything, name="everything", parallelism=2).sink(
        sinks.fired, name="fired", parallelism=1
    )
    keyed.count(name="count", parallelism=3).sink(sinks.counted, name="counted", parallelism=1)
    stream.map_async(ask, name="ask", capacity=100).sink(
        sinks.answered, name="answered", parallelism=1
    )
    rules = flow.source(changes, name="changes").broadcast()
    stream.connect(rules).process(Ruled, name="ruled").sink(
        sinks.ruled, name="ruled-rows", parallelism=1
    )
    return flow
