"""Random flows, as data: what stays the same over all lives of a job."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

import msgspec

from flowrt.contract.snapshot import Delivery
from flowrt.runtime.output import Policy, When
from tests.simulate.ageing import Life, draw_life
from tests.simulate.calls import Calls
from tests.simulate.ends import Event, Shelf, Table
from tests.simulate.failing import Failing, draw_failing
from tests.simulate.machine import START_MS
from tests.simulate.outputs import OutputSpec

StageKind: TypeAlias = Literal["map", "async map", "calls", "filter", "double"]
BranchKind: TypeAlias = Literal[
    "same",
    "running",
    "count",
    "max",
    "reduce",
    "recount",
    "windows",
    "delayed",
    "tally",
    "joined",
    "ruled",
    "marked",
    "ageing",
]
SinkType: TypeAlias = Literal["file", "repeatable", "deciding", "direct"]

KEYS: Final = 8
STAGES: Final[tuple[StageKind, ...]] = (
    "map",
    "async map",
    "calls",
    "calls",
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
    "joined",
    "ruled",
    "marked",
    "ageing",
    "ageing",
)
NUMBERED: Final[tuple[BranchKind, ...]] = ("running", "count", "ruled")
"""Branches whose rows are numbered within their key, so that their order can be judged."""
ORDERED: Final[tuple[BranchKind, ...]] = ("running", "max", "reduce", "ageing")
"""Branches whose rows depend on the order of the records of a key."""
BROADCAST: Final[tuple[BranchKind, ...]] = ("ruled", "marked")
"""Branches with rules: when which of them comes is open, so a row says what it saw."""
SHOWN: Final[tuple[BranchKind, ...]] = (
    "same",
    "running",
    "count",
    "max",
    "reduce",
    "recount",
    "windows",
    "delayed",
    "joined",
)
"""Branches that may have an output: their rows are the same, however often they are made."""
SIDES: Final[dict[BranchKind, str]] = {"same": "odd", "windows": "ticks"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A step without state; `apply` says what it makes of a record, and `calls` how it asks."""

    kind: StageKind
    number: int
    new_chain: bool
    calls: Calls
    failing: Failing | None = None

    def __str__(self) -> str:
        policy = "" if self.failing is None else f" {self.failing}"
        return f"{self.calls if self.kind == 'calls' else self.kind} {self.number}{policy}"

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
        return self.entering(len(self.stages))

    def entering(self, number: int) -> list[Event]:
        """Return what comes to a stage, split by split."""
        events = [event for split in self.shelf.splits.values() for event in split]
        for stage in self.stages[:number]:
            passing = good(stage.failing, events)
            events = [out for event in passing for out in stage.apply(event)]
        return events


def good(failing: Failing | None, events: list[Event]) -> list[Event]:
    """Return the records that a step does not fail at for good."""
    return [event for event in events if not is_bad(failing, event.number)]


def is_bad(failing: Failing | None, number: int) -> bool:
    """Say whether a step drops what has this number."""
    return failing is not None and failing.is_bad(number)


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A sink: what it takes ("main" or a side output), and where that goes."""

    name: str
    takes: str
    kind: SinkType
    table: Table
    roll_epochs: int


@dataclass(slots=True)
class BranchSpec:
    """A line of steps behind some sources (by number), and its sinks.

    `right` is the second input, if any. `calls` are made for each row, in front of the sinks, by a
    step whose parallelism stays. `failing` is about the first step that has a user's function, and
    `life` about how long its state lives.
    """

    name: str
    kind: BranchKind
    sources: list[int]
    right: SourceSpec | None = None
    calls: Calls | None = None
    calls_parallelism: int = 1
    sinks: list[SinkSpec] = field(default_factory=list)
    outputs: list[OutputSpec] = field(default_factory=list)
    failing: Failing | None = None
    life: Life | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether the rows of a key leave in the order of their numbers."""
        return self.kind in NUMBERED and (self.calls is None or self.calls.ordered)


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole flow."""

    delivery: Delivery
    sources: list[SourceSpec]
    branches: list[BranchSpec]
    front: int = 1
    """The parallelism up to the exchange, where it must stay."""
    letters: list[SinkSpec] = field(default_factory=list)
    """Where dead letters go; what a sink takes is their tag."""

    @property
    def keeps_front(self) -> bool:
        """Whether records in flight in a step without keys must keep their order.

        Where its parallelism changes they are spread anew, and so lose it.
        """
        stages = [stage for source in self.sources for stage in source.stages]
        needs_order = any(branch.kind in ORDERED for branch in self.branches)
        return needs_order and any(stage.kind == "calls" for stage in stages)

    def has_sink(self, kind: SinkType) -> bool:
        sinks = [*self.letters, *(sink for branch in self.branches for sink in branch.sinks)]
        return any(sink.kind == kind for sink in sinks)

    def all_sources(self) -> list[SourceSpec]:
        """Return the sources, also those of second inputs."""
        rights = [branch.right for branch in self.branches if branch.right is not None]
        return [*self.sources, *rights]

    def failing(self) -> list[Failing]:
        """Return the policies of all steps that have one."""
        policies = [stage.failing for source in self.all_sources() for stage in source.stages]
        policies += [branch.failing for branch in self.branches]
        return [policy for policy in policies if policy is not None]

    def outputs(self) -> list[OutputSpec]:
        return [output for branch in self.branches for output in branch.outputs]

    def events(self, branch: BranchSpec) -> list[Event]:
        """Return what reaches a branch, split by split."""
        return [event for number in branch.sources for event in self.sources[number].events()]

    def good_events(self, branch: BranchSpec) -> list[Event]:
        """Return what reaches a branch and is not bad for it."""
        return good(branch.failing, self.events(branch))

    def __str__(self) -> str:
        lines = [f"delivery {self.delivery}"]
        for source in self.sources:
            sizes = {split: len(events) for split, events in source.shelf.splits.items()}
            stages = ", ".join(map(str, source.stages))
            lines.append(f"source {source.shelf.name}: {sizes} {stages}")
        for branch in self.branches:
            ends = [f"{sink.name} ({sink.kind})" for sink in branch.sinks]
            steps = [
                str(it) for it in (branch.kind, branch.failing, branch.life, branch.calls) if it
            ]
            to = ", ".join([*ends, *map(str, branch.outputs)])
            lines.append(f"branch {branch.name} of {branch.sources}: {', '.join(steps)} to {to}")
        lines += [f"letters {sink.name} ({sink.kind})" for sink in self.letters]
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
        spec.branches.append(_draw_branch(f"b{number}", sorted(some), weak, chance))
    read = {number for branch in spec.branches for number in branch.sources}
    spec.branches[0].sources.extend(set(range(len(spec.sources))) - read)
    _order_where_needed(spec)
    for branch in spec.branches:
        takes = ["main", SIDES[branch.kind]] if branch.kind in SIDES else ["main"]
        for what in takes:
            branch.sinks.append(_draw_sink(spec, f"{branch.name}-{what}", what, chance))
        if branch.kind in SHOWN and not weak and chance.random() < 0.4:
            _draw_output(branch, chance)
    tags = [failing.tag for failing in spec.failing() if failing.action == "dead_letter"]
    for tag in dict.fromkeys(tags):
        spec.letters.append(_draw_sink(spec, f"letters-{tag}", tag, chance))
    return spec


def _draw_branch(name: str, sources: list[int], weak: bool, chance: random.Random) -> BranchSpec:
    kind: BranchKind = "same" if weak else chance.choice(BRANCHES)
    branch = BranchSpec(name, kind, sources)
    if kind == "joined":
        branch.right = _draw_source(f"{name}-right", chance)
    elif kind in BROADCAST:
        branch.right = _draw_rules(f"{name}-rules", chance)
    if chance.random() < 0.25:
        branch.calls, branch.calls_parallelism = _draw_calls(chance), chance.randint(1, 4)
    if chance.random() < 0.4:
        branch.failing = draw_failing(name, chance, chance.choice([0, 0, 1, 3]))
    if kind == "ageing":
        branch.life = draw_life(chance)
    return branch


def _draw_calls(chance: random.Random) -> Calls:
    return Calls(
        ordered=chance.random() < 0.6,
        batched=chance.random() < 0.4,
        tries=chance.choice([0, 1, 3]),
        has_timeout=chance.random() < 0.5,
    )


def _order_where_needed(spec: Spec) -> None:
    """Let the calls in front of branches that need the order of records keep it."""
    for branch in spec.branches:
        for number in branch.sources if branch.kind in ORDERED else ():
            stages = spec.sources[number].stages
            stages[:] = [
                replace(stage, calls=replace(stage.calls, ordered=True)) for stage in stages
            ]


def _draw_output(branch: BranchSpec, chance: random.Random) -> None:
    """Put an output beside the first sink, which becomes a table that knows its epochs."""
    sink = branch.sinks[0] = replace(branch.sinks[0], kind="repeatable", roll_epochs=1)
    policies: list[Policy] = ["wait", "wait", "drop_oldest", "drop_newest", "latest"]
    policy = chance.choice(policies)
    capacity = None if policy == "latest" else chance.choice([1, 3, 20, None])
    when: When = "committed" if chance.random() < 0.5 else "at_once"
    name = f"{branch.name}-output"
    branch.outputs.append(OutputSpec(name, sink.table, policy, when, capacity))


def _draw_rules(name: str, chance: random.Random) -> SourceSpec:
    """Draw rules: numbered, one after the other."""
    rules = [Event(name, number, 0, START_MS) for number in range(chance.choice([0, 1, 5, 20]))]
    return SourceSpec(Shelf(name, {f"{name}.0": rules}), [], 0, 0)


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
        _draw_stage(f"{name}-{number}", chance) for number in range(chance.choice([0, 0, 1, 2, 3]))
    ]
    return SourceSpec(Shelf(name, splits), stages, chance.choice([0, 0, 1, 2]), disorder_ms)


def _draw_stage(name: str, chance: random.Random) -> Stage:
    kind, number = chance.choice(STAGES), chance.choice([3, 5, 7])
    stage = Stage(kind, number, chance.random() < 0.3, _draw_calls(chance))
    # A batch fails with all that is in it, and that is another one each time.
    if chance.random() > 0.3 or (kind == "calls" and stage.calls.batched):
        return stage
    tries = stage.calls.tries if kind == "calls" else chance.choice([0, 0, 1, 3])
    return replace(stage, failing=draw_failing(name, chance, tries))


def _draw_sink(spec: Spec, name: str, takes: str, chance: random.Random) -> SinkSpec:
    kinds: list[SinkType] = ["file", "file", "repeatable"]
    if spec.delivery == "at_least_once":
        kinds.append("direct")
    elif not spec.has_sink("deciding"):
        kinds.append("deciding")
    return SinkSpec(name, takes, chance.choice(kinds), Table(name), chance.choice([1, 1, 2, 4]))
