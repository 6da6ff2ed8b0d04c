"""The shapes that a step of a flow can have. The simple ones are fused into one function.

The general one, `Process`, runs any `Operator`. Our own operators are built from these, and so can
be yours.

A `fn` may be a plain function everywhere, and a coroutine function where the shape says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

from flowrt.contract.operator import CoOperator, Operator
from flowrt.contract.time import WatermarkStrategy
from flowrt.contract.world import World


@dataclass(frozen=True, slots=True)
class Map:
    """One value in, one out: `fn(value)`, plain or coroutine."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps the values for which `fn(value)`, plain or coroutine, is true."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class FlatMap:
    """One value in, any number out: `fn(value)`, plain or coroutine, returns an iterable."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class KeyBy:
    """Gives each record the key `fn(value)`, hashable and stable; plain only."""

    fn: Callable[[Any], Hashable]


def one(value: Any) -> int:
    """Count the first record: the `first` of a `Fold` that counts."""
    return 1


def one_more(number: int, value: Any) -> int:
    """Count a later record: the `add` of a `Fold` that counts."""
    return number + 1


@dataclass(frozen=True, slots=True)
class Fold:
    """A running fold for each key.

    Emits `(key, result(accumulator))` for each record. Plain functions only.

    The first record of a key gives `first(value)`, each later one `add(accumulator, value)`. With
    `one` and `one_more` it counts, and what they do is written out instead of being called.
    `result` None emits the accumulator itself. `type` declares the accumulator's type for
    snapshots; without it builtins come back as they were. `name` is that of the state, and
    `migrate` as for any state.
    """

    first: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]
    result: Callable[[Any], Any] | None = None
    type: Any = None
    name: str = "fold"
    migrate: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class AssignTimestamps:
    """Gives records their event time and makes watermarks from it.

    Watermarks from before end here.
    """

    strategy: WatermarkStrategy[Any]


@dataclass(frozen=True, slots=True)
class Process:
    """Any operator; `make` gives a fresh instance for each subtask and each restart."""

    make: Callable[[], Operator[Any, Any]]


@dataclass(frozen=True, slots=True)
class MapAsync:
    """One value in, one out, many calls under way at once; it begins a task of its own.

    `make(world)` gives the call for one subtask, anew at each restart. At most `capacity` calls are
    under way. `ordered`: results leave in the order of their records; otherwise as they come, but
    none passes a watermark. Records in flight are part of snapshots, encoded by `type` (None: as
    each says what it is), and their calls are made again after a restore.
    """

    make: Callable[[World], Callable[[Any], Awaitable[Any]]]
    capacity: int = 100
    ordered: bool = True
    type: Any = None
    label: str = ""
    """How `explain` shows the call."""


@dataclass(frozen=True, slots=True)
class Connect:
    """An operator of two inputs; it begins a task of its own. `make` is as for `Process`.

    `broadcast`: every subtask gets every record of the second input, which has no keys. `sides`:
    what the operator does with each input, where a simple step says it all: that one is fused.
    """

    make: Callable[[], CoOperator[Any, Any, Any]]
    broadcast: bool = False
    sides: tuple[Map | FlatMap, Map | FlatMap] | None = None


Step: TypeAlias = (
    Map | Filter | FlatMap | KeyBy | Fold | AssignTimestamps | MapAsync | Process | Connect
)
