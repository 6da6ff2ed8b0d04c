"""State that expires. What a record sees depends on when, so its row tells the present, too.

From the rows of a key, in the order of its records, a plain model knows what each must have seen.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from flowrt import Context, ListState, MapState, Operator, Ttl, ValueState
from flowrt.contract.elements import MAX_TIMESTAMP
from tests.simulate.ends import Event
from tests.simulate.failing import Mishaps

NAMES: Final = 3
NONE: Final = -1
Seen: TypeAlias = list[Any]
"""The value, the elements, and the entries as pairs."""


@dataclass(frozen=True, slots=True)
class Life:
    """How long what a step keeps lives."""

    after_ms: int
    time: Literal["event", "processing"]
    refresh: Literal["write", "read"]

    def __str__(self) -> str:
        return f"(expires {self.after_ms} ms after the last {self.refresh}, {self.time} time)"

    @property
    def ttl(self) -> Ttl:
        return Ttl(f"{self.after_ms}ms", self.time, self.refresh)


def draw_life(chance: random.Random) -> Life:
    """Draw how long something lives."""
    times: list[Literal["event", "processing"]] = ["event", "event", "processing"]
    refreshes: list[Literal["write", "read"]] = ["write", "write", "read"]
    after_ms = chance.choice([5, 30, 100, 300])
    return Life(after_ms, chance.choice(times), chance.choice(refreshes))


class Ageing(Operator[Event, Any]):
    """Keeps numbers of records in a value, a list and a map, and tells what is left of them."""

    def __init__(self, outside: Mishaps, life: Life) -> None:
        self._outside = outside
        self._life = life

    def open(self, ctx: Context) -> None:
        ttl = self._life.ttl
        self.value = ctx.state(ValueState(int, default=NONE, name="value", ttl=ttl))
        self.elements = ctx.state(ListState(int, name="elements", ttl=ttl))
        self.entries = ctx.state(MapState(int, int, name="entries", ttl=ttl))

    def process(self, event: Event, ctx: Context) -> None:
        present = ctx.watermark
        if self._life.time == "processing":
            present = self._outside.clock.now_ms()
        number = event.number
        seen = [self.value.get(), list(self.elements), [list(it) for it in self.entries.items()]]
        self.value.set(number)
        if number % 8 == 3:
            self.elements.clear()
        self.elements.add(number)
        self._outside.stumble()
        self.entries.put(number % NAMES, number)
        if number % 8 == 5:
            self.entries.remove((number + 1) % NAMES)
        ctx.emit((ctx.key, (number, present, seen)))
        self._outside.fail_at(event)

    def on_watermark(self, watermark: int, ctx: Context) -> None:
        """Look whether memory was given back, when event time is over."""
        if watermark != MAX_TIMESTAMP or self._life.time == "processing":
            return
        # Handles show what lives only: so the tables below them. Lists may keep some for a while.
        values, maps = (getattr(handle, "_table") for handle in (self.value, self.entries))  # noqa: B009
        held = [timed for _, timed in values._table.items()]
        held += [timed for _, _, timed in maps.table.all_entries()]
        if not all(map(values.ages.is_live, held)):
            self._outside.report(f"what expired still takes memory: {held}")


# ------------------------------------------------------------------------------------------- model


@dataclass
class Kept:
    """What one key keeps, each with the time (ms) from which its life counts."""

    life: Life
    present: int | None = None
    value: tuple[int, int] | None = None
    elements: list[tuple[int, int]] = field(default_factory=list)
    entries: dict[int, tuple[int, int]] = field(default_factory=dict)
    expired: int = 0

    def take(self, event: Event, present: int) -> Seen:
        """Return what a record sees, and keep its number."""
        # Time never goes back: what expired is not seen again.
        self.present = present if self.present is None else max(present, self.present)
        self._expire()
        at = self.present if self.life.time == "processing" else max(event.at, self.present)
        seen = self._see()
        if self.life.refresh == "read":
            self._refresh(at)
        self._write(event.number, at)
        return seen

    def _expire(self) -> None:
        before = self._size()
        if self.value is not None and not self._lives(self.value):
            self.value = None
        self.elements = [one for one in self.elements if self._lives(one)]
        self.entries = {name: one for name, one in self.entries.items() if self._lives(one)}
        self.expired += before - self._size()

    def _lives(self, timed: tuple[int, int]) -> bool:
        assert self.present is not None
        return timed[0] + self.life.after_ms > self.present

    def _size(self) -> int:
        return (self.value is not None) + len(self.elements) + len(self.entries)

    def _see(self) -> Seen:
        value = NONE if self.value is None else self.value[1]
        entries = [[name, number] for name, (_, number) in self.entries.items()]
        return [value, [number for _, number in self.elements], entries]

    def _refresh(self, at: int) -> None:
        if self.value is not None:
            self.value = max(at, self.value[0]), self.value[1]
        self.elements = [(max(at, begun), number) for begun, number in self.elements]
        self.entries = {
            name: (max(at, begun), number) for name, (begun, number) in self.entries.items()
        }

    def _write(self, number: int, at: int) -> None:
        self.value = at if self.value is None else max(at, self.value[0]), number
        if number % 8 == 3:
            self.elements.clear()
        self.elements.append((at, number))
        name = number % NAMES
        begun = max(at, self.entries[name][0]) if name in self.entries else at
        self.entries[name] = begun, number
        if number % 8 == 5:
            self.entries.pop((number + 1) % NAMES, None)


def wrong_rows(life: Life, events: Iterable[Event], rows: Iterable[Any]) -> tuple[list[str], int]:
    """Return the rows that did not see what they must, and how much expired.

    The records are in the order of each key; which are lost or repeated is not judged here.
    """
    found = {(tuple(key), number): (present, seen) for key, (number, present, seen) in rows}
    by_key: dict[Any, list[Event]] = defaultdict(list)
    for event in events:
        by_key[event.split, event.key, event.copy].append(event)
    wrong, expired = [], 0
    for key, ones in by_key.items():
        if len({event.number for event in ones}) < len(ones):
            continue  # some are equal: it is open which row is whose
        kept = Kept(life)
        for event in ones:
            present, seen = found.get((key, event.number), (None, None))
            must = None if present is None else kept.take(event, present)
            if seen != must:
                wrong.append(f"{key} {event.number} at {present} saw {seen}, not {must}")
        expired += kept.expired
    return wrong, expired
