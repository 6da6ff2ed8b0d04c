"""Random flows, as data: what stays the same over all lives of a job."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import msgspec

from flowrt.contract.snapshot import Delivery
from tests.simulate.ends import Event, Shelf, Table
from tests.simulate.machine import START_MS

StageKind: TypeAlias = Literal["map", "async map", "calls", "batched calls", "filter", "double"]
BranchKind: TypeAlias = Literal[
    "same", "running", "count", "max", "reduce", "recount", "windows", "delayed", "tally"
]
SinkType: TypeAlias = Literal["file", "repeatable", "deciding", "direct"]

KEYS: Final = 8
STAGES: Final[tuple[StageKind, ...]] = (
    "map",
    "async map",
    "calls",
    "batched calls",
    "filter",
    "double",
)
BRANCHES: Final[tuple[BranchKind, ...]] = (
    "same",
    "running",
    "count",
    "max",
    "reduce",
    "recount",
    "windows",
    "windows",
    "delayed",
    "tally",
)
NUMBERED: Final[tuple[BranchKind, ...]] = ("running", "count")
"""Branches whose rows are numbered within their key, so that their order can be judged."""
SIDES: Final[dict[BranchKind, str]] = {"same": "odd", "windows": "ticks"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A step without state; `apply` says what it makes of a record."""

    kind: StageKind
    number: int
    new_chain: bool

    def apply(self, event: Event) -> list[Event]:
        if self.kind == "filter":
            return [] if event.number % self.number == 1 else [event]
        if self.kind == "double":
            twice = event.number % self.number == 0
            return [event, msgspec.structs.replace(event, copy=event.copy + 1)][: 1 + twice]
        return [msgspec.structs.replace(event, key=(event.key * self.number + 1) % KEYS)]


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source and the steps behind it. `open_splits` 0: all at once."""

    shelf: Shelf
    stages: list[Stage]
    open_splits: int
    disorder_ms: int

    def events(self) -> list[Event]:
        """Return what comes out of the stages, split by split."""
        events = [event for split in self.shelf.splits.values() for event in split]
        for stage in self.stages:
            events = [out for event in events for out in stage.apply(event)]
        return events


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A sink: what it takes ("main" or a side output), and where that goes."""

    name: str
    takes: str
    kind: SinkType
    table: Table
    roll_epochs: int


@dataclass(frozen=True, slots=True)
class BranchSpec:
    """A line of steps behind some sources (by number), and its sinks."""

    name: str
    kind: BranchKind
    sources: list[int]
    sinks: list[SinkSpec] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole flow."""

    delivery: Delivery
    sources: list[SourceSpec]
    branches: list[BranchSpec]
    front: int = 1
    """The parallelism up to the exchange, where it must stay."""

    @property
    def has_calls(self) -> bool:
        """Whether records may be in flight in a step without keys.

        Where its parallelism changes they are spread anew, and so lose their order.
        """
        stages = [stage for source in self.sources for stage in source.stages]
        return any(stage.kind in ("calls", "batched calls") for stage in stages)

    def has_sink(self, kind: SinkType) -> bool:
        return any(sink.kind == kind for branch in self.branches for sink in branch.sinks)

    def events(self, branch: BranchSpec) -> list[Event]:
        """Return what reaches a branch, split by split."""
        return [event for number in branch.sources for event in self.sources[number].events()]

    def __str__(self) -> str:
        lines = [f"delivery {self.delivery}"]
        for source in self.sources:
            sizes = {split: len(events) for split, events in source.shelf.splits.items()}
            stages = ", ".join(f"{stage.kind} {stage.number}" for stage in source.stages)
            lines.append(f"source {source.shelf.name}: {sizes} {stages}")
        for branch in self.branches:
            sinks = ", ".join(f"{sink.name} ({sink.kind})" for sink in branch.sinks)
            lines.append(f"branch {branch.name} of {branch.sources}: {branch.kind} to {sinks}")
        return "\n".join(lines)


def draw_spec(chance: random.Random) -> Spec:
    """Draw a flow."""
    # Without alignment state may count a record twice: only what passes records on can be judged.
    weak = chance.random() < 0.15
    delivery: Delivery = "at_least_once" if weak else "exactly_once"
    spec = Spec(delivery, [], [], chance.randint(1, 4))
    for number in range(chance.choice([1, 1, 2, 3])):
        spec.sources.append(_draw_source(f"s{number}", chance))
    for number in range(chance.choice([1, 1, 2, 3])):
        some = chance.sample(range(len(spec.sources)), chance.randint(1, len(spec.sources)))
        kind = "same" if weak else chance.choice(BRANCHES)
        spec.branches.append(BranchSpec(f"b{number}", kind, sorted(some)))
    read = {number for branch in spec.branches for number in branch.sources}
    spec.branches[0].sources.extend(set(range(len(spec.sources))) - read)
    for branch in spec.branches:
        takes = ["main", SIDES[branch.kind]] if branch.kind in SIDES else ["main"]
        for what in takes:
            branch.sinks.append(_draw_sink(spec, f"{branch.name}-{what}", what, chance))
    return spec


def _draw_source(name: str, chance: random.Random) -> SourceSpec:
    disorder_ms = chance.choice([0, 0, 20, 200])
    splits = {}
    for split in range(chance.randint(1, 4)):
        at, events = START_MS, []
        for number in range(chance.choice([0, 5, 20, 40, 80])):
            at += chance.choice([0, 1, 5, 30])
            late_ms = chance.randint(0, disorder_ms)
            key = chance.randrange(KEYS)
            events.append(Event(f"{name}.{split}", number, key, at - late_ms))
        splits[f"{name}.{split}"] = events
    stages = [
        Stage(chance.choice(STAGES), chance.choice([3, 5, 7]), chance.random() < 0.3)
        for _ in range(chance.choice([0, 0, 1, 2, 3]))
    ]
    return SourceSpec(Shelf(name, splits), stages, chance.choice([0, 0, 1, 2]), disorder_ms)


def _draw_sink(spec: Spec, name: str, takes: str, chance: random.Random) -> SinkSpec:
    kinds: list[SinkType] = ["file", "file", "repeatable"]
    if spec.delivery == "at_least_once":
        kinds.append("direct")
    elif not spec.has_sink("deciding"):
        kinds.append("deciding")
    return SinkSpec(name, takes, chance.choice(kinds), Table(name), chance.choice([1, 1, 2, 4]))
