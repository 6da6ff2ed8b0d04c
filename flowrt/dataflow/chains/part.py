"""A step while it runs: what the runtime gives for it, and what a chain makes of that."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.on_error import OnError
from flowrt.contract.operator import CoOperator, Operator
from flowrt.contract.snapshot import BroadcastBackend, KeyedBackend, SnapshotWriter, Table
from flowrt.contract.steps import (
    AssignTimestamps,
    Connect,
    Filter,
    FlatMap,
    Fold,
    KeyBy,
    Map,
    Process,
    Step,
)
from flowrt.contract.undo import UndoLog
from flowrt.contract.world import World
from flowrt.dataflow.chains.context import OperatorContext
from flowrt.dataflow.chains.judge import Judge

EmitSide: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class StepSetup:
    """What the runtime gives for one step: its state, and what to restore."""

    id: str
    step: Step
    keyed: bool = False
    backend: KeyedBackend | None = None
    writer: SnapshotWriter | None = None
    restored: list[Any] = field(default_factory=list)
    watermark: int = MIN_TIMESTAMP
    taken_tags: frozenset[str] = frozenset()
    broadcast: BroadcastBackend | None = None
    on_error: OnError = field(default_factory=OnError)
    check_key: Callable[[Any], object] = hash
    """Raises for what state can have for no key."""


@dataclass(slots=True)
class Part:
    """A step of the line with what it needs while it runs."""

    id: str
    step: Step
    operator: Operator[Any, Any] | None = None
    context: OperatorContext | None = None
    table: Table | None = None
    flush_sides: EmitSide | None = None
    keyed: bool = False
    right: bool = False
    """Of an operator with two inputs: whether it takes the records of the second."""
    judge: Judge | None = None
    """Decides what becomes of records that the step fails at; None: the flow fails."""
    check_key: Callable[[Any], object] = hash
    """Raises for what can be no key; asked where there is a judge."""

    @property
    def takes(self) -> Callable[..., Any]:
        """The operator's method that takes a record."""
        operator = self.operator
        if isinstance(operator, CoOperator):
            return operator.process_right if self.right else operator.process_left
        assert operator is not None
        return operator.process


def part_of(
    setup: StepSetup, judge: Judge | None, world: World, subtask: int, parallelism: int
) -> Part:
    """Make a step ready to run: its operator and context, or its table."""
    part = Part(setup.id, setup.step, keyed=setup.keyed, judge=judge, check_key=setup.check_key)
    undo = None if judge is None else _undo_log(setup)
    if isinstance(setup.step, Process | Connect):
        part.operator = setup.step.make()
        part.context = OperatorContext(
            setup.id,
            subtask,
            parallelism,
            world,
            setup.backend,
            setup.taken_tags,
            setup.broadcast,
            undo,
        )
        if judge is not None:
            judge.context, judge.undo = part.context, undo
        part.context.watermark = setup.watermark
    if isinstance(setup.step, Fold):
        assert setup.backend is not None
        part.table = setup.backend.table(setup.step.name, setup.step.type, setup.step.migrate)
    return part


def _undo_log(setup: StepSetup) -> UndoLog | None:
    if not isinstance(setup.step, Process | Connect):
        return None
    undo = UndoLog()
    for backend in (setup.backend, setup.broadcast):
        if backend is not None:
            backend.undo = undo
    return undo


def waits_for(part: Part) -> bool:
    """Say whether a step may suspend the task."""
    step = part.step
    if isinstance(step, Process | Connect):
        return part.operator is not None and is_coroutine(part.takes)
    return isinstance(step, Map | Filter | FlatMap) and is_coroutine(step.fn)


def is_one_for_one(part: Part) -> bool:
    """Say whether as many records leave a step as come to it."""
    return part.judge is None and isinstance(part.step, Map | KeyBy | Fold | AssignTimestamps)


def is_coroutine(fn: Any) -> bool:
    """Say whether calling `fn` gives something to await."""
    # A class is called through its metaclass: what its instances do when called is another matter.
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(type(fn), "__call__", None)  # noqa: B004
    )
