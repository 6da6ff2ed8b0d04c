"""What simulated flows are made of: steps, and operators with every kind of state and timer.

What they emit depends on nothing but the records themselves, however those interleave. Each calls
`Mishaps.stumble` where it is half done, and `fail_at` where it has written and emitted all: an
error there must leave no trace.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from flowrt import (
    AggregatingState,
    BroadcastState,
    Context,
    CoOperator,
    ListState,
    MapState,
    Operator,
    OutputTag,
    ReducingState,
    ValueState,
)
from flowrt.contract.elements import MAX_TIMESTAMP
from tests.simulate.ends import Event
from tests.simulate.failing import Mishaps
from tests.simulate.machine import START_MS

WINDOW_MS: Final = 50
FAR_MS: Final = START_MS + 10**9
TICKS: OutputTag[Any] = OutputTag("ticks")
ODD: OutputTag[Any] = OutputTag("odd")


class Last(NamedTuple):
    number: int = -1
    records: int = 0


class Same(Operator[Event, Any]):
    """Emits each record as a row, and those with an odd number to the side too."""

    last = ValueState(Last, default=Last())

    def __init__(self, outside: Mishaps) -> None:
        self._outside = outside

    def process(self, event: Event, ctx: Context) -> None:
        ctx.emit(same_row(event))
        self._outside.stumble()
        self.last.set(Last(event.number, self.last.get().records + 1))
        if event.number % 2:
            ctx.side(ODD, same_row(event))
        self._outside.fail_at(event)


def same_row(event: Event) -> Any:
    return ["same", event.split, event.number, event.key, event.copy]


class Running(Operator[Event, Any]):
    """Counts and adds up the records of a key."""

    count = ReducingState(int.__add__, int)
    total = AggregatingState(int, int.__add__, lambda total: total, int)

    def __init__(self, outside: Mishaps) -> None:
        self._outside = outside

    async def process(self, event: Event, ctx: Context) -> None:
        self.count.add(1)
        await self._outside.dawdle()
        self._outside.stumble()
        self.total.add(event.number)
        ctx.emit((ctx.key, (self.count.get(), self.total.get())))
        self._outside.fail_at(event)


class Windows(Operator[Event, Any]):
    """Tumbling windows by hand, and a last row for each key when event time ends.

    Timers of processing time lie far in the past: they are due at once.
    """

    sums = MapState(int, int)
    members = ListState(Event)
    ticked = MapState(int, bool)
    largest = ValueState(int, default=-1)
    total = ReducingState(int.__add__, int)

    def __init__(self, outside: Mishaps) -> None:
        self._outside = outside

    def process(self, event: Event, ctx: Context) -> None:
        end = window_end(event)
        self.sums.put(end, self.sums.get(end, 0) + event.number)
        self.members.add(event)
        self._outside.stumble()
        self.largest.set(max(self.largest.get(), event.number))
        self.total.add(event.number)
        ctx.timers.register_event_time(end - 1)
        ctx.timers.register_event_time(FAR_MS)
        window = (end - START_MS) // WINDOW_MS
        if window not in self.ticked:
            self.ticked.put(window, True)
            ctx.timers.register_processing_time(window)
        self._outside.fail_at(event)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        if timestamp < START_MS - 10**6:
            ctx.side(TICKS, ["tick", ctx.key, timestamp])
        elif timestamp == FAR_MS:
            ctx.emit(["key", ctx.key, self.total.get(), self.largest.get(), len(self.ticked)])
        else:
            self._fire(timestamp, ctx)

    def _fire(self, timestamp: int, ctx: Context) -> None:
        members = self.members.get()
        inside = sorted((e.split, e.number, e.copy) for e in members if e.at <= timestamp)
        self.members.set(event for event in members if event.at > timestamp)
        self._outside.stumble()
        ctx.emit(["window", ctx.key, timestamp, self.sums.get(timestamp + 1), inside])
        self.sums.remove(timestamp + 1)
        self._outside.fail(timer_number(ctx.key, timestamp), ["timer", ctx.key, timestamp])


def window_end(event: Event) -> int:
    return event.at - event.at % WINDOW_MS + WINDOW_MS


def timer_number(key: int, timestamp: int) -> int:
    """Return the number that says whether a window's timer fails."""
    return key + (timestamp - START_MS) // WINDOW_MS


class Delayed(Operator[Event, Any]):
    """Holds each record for a while of processing time; what is left when event time ends, too."""

    held = ListState(Event)

    def __init__(self, outside: Mishaps) -> None:
        self._outside = outside
        self._clock = outside.clock

    def process(self, event: Event, ctx: Context) -> None:
        self.held.add(event)
        ctx.timers.register_processing_time(self._clock.now_ms() + event.number % 7 * 30)
        self._outside.stumble()
        ctx.timers.register_event_time(FAR_MS)
        self._outside.fail_at(event)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        for event in self.held:
            ctx.emit(delayed_row(event))
        self._outside.stumble()
        self.held.clear()


def delayed_row(event: Event) -> Any:
    return ["delayed", event.split, event.number, event.key, event.copy]


class Tally(Operator[Event, Any]):
    """Counts what its subtask sees, beside keyed state, and tells it when event time ends."""

    def __init__(self, outside: Mishaps) -> None:
        self._outside = outside
        self._seen = 0

    def snapshot(self) -> Any:
        return self._seen

    def restore(self, data: list[Any]) -> None:
        self._restored = data

    def open(self, ctx: Context) -> None:
        # All instances get what all of them kept: the first takes it.
        if ctx.subtask == 0:
            self._seen = sum(getattr(self, "_restored", []))

    async def process(self, event: Event, ctx: Context) -> None:
        self._outside.fail_at(event)  # what is kept in an attribute cannot be taken back
        self._seen += 1
        await self._outside.dawdle()
        self._outside.stumble()

    def on_watermark(self, watermark: int, ctx: Context) -> None:
        if watermark == MAX_TIMESTAMP and self._seen:
            ctx.emit(["tally", self._seen])
            self._seen = 0


class Joined(CoOperator[Event, Event, Any]):
    """Pairs the records of two streams, whichever comes first; counts them when both have ended."""

    lefts = ListState(Event)
    rights = ListState(Event)

    def __init__(self, outside: Mishaps) -> None:
        self._outside = outside

    def process_left(self, event: Event, ctx: Context) -> None:
        self.lefts.add(event)
        self._outside.stumble()
        for other in self.rights:
            self._pair(event, other, ctx)
        ctx.timers.register_event_time(FAR_MS)
        self._outside.fail_at(event)

    async def process_right(self, event: Event, ctx: Context) -> None:
        self.rights.add(event)
        await self._outside.dawdle()
        self._outside.stumble()
        for other in self.lefts:
            self._pair(other, event, ctx)
        ctx.timers.register_event_time(FAR_MS)
        self._outside.fail_at(event)

    def _pair(self, left: Event, right: Event, ctx: Context) -> None:
        if are_pair(left, right):
            ctx.emit(pair_row(left, right))

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit(["ended", ctx.key, len(self.lefts), len(self.rights)])


def are_pair(left: Event, right: Event) -> bool:
    return left.number % 16 == right.number % 16


def pair_row(left: Event, right: Event) -> Any:
    return ["pair", *same_row(left)[1:], *same_row(right)[1:]]


class Rules(CoOperator[Event, Event, Any]):
    """Counts the rules, in two steps with a wait between them: no record may see only the first."""

    rules = BroadcastState(str, int)

    def __init__(self, outside: Mishaps) -> None:
        self._outside = outside

    async def process_right(self, rule: Event, ctx: Context) -> None:
        self.rules.put("last", rule.number + 1)
        await self._outside.dawdle()
        self._outside.stumble()
        self.rules.put("count", self.rules.get("count", 0) + 1)
        self._outside.fail_at(rule)

    def seen(self) -> tuple[int, int]:
        return self.rules.get("last", 0), self.rules.get("count", 0)


class Ruled(Rules):
    """Numbers the records of a key, and tells which rules each has seen."""

    count = ReducingState(int.__add__, int)

    def process_left(self, event: Event, ctx: Context) -> None:
        self.count.add(1)
        self._outside.stumble()
        ctx.emit((ctx.key, (self.count.get(), *self.seen())))
        self._outside.fail_at(event)


class Marked(Rules):
    """Tells which rules a record has seen; has no keys."""

    def process_left(self, event: Event, ctx: Context) -> None:
        self._outside.stumble()
        ctx.emit((same_row(event), (0, *self.seen())))
        self._outside.fail_at(event)
