"""The shapes that a step of a flow can have. The simple ones are fused into one function.

The general one, `Process`, runs any `Operator`. Our own operators are built from these, and so can
be yours.

A `fn` may be a plain function everywhere, and a coroutine function where the shape says so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

from flowrt.contract.operator import Operator
from flowrt.contract.time import WatermarkStrategy


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


@dataclass(frozen=True, slots=True)
class Fold:
    """A running fold for each key.

    Emits `(key, result(accumulator))` for each record. Plain functions only.

    The first record of a key gives `first(value)`, each later one `add(accumulator, value)`.
    `result` None emits the accumulator itself. `type` declares the accumulator's type for
    snapshots; without it builtins come back as they were. `name` is that of the state.
    """

    first: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]
    result: Callable[[Any], Any] | None = None
    type: Any = None
    name: str = "fold"


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


Step: TypeAlias = Map | Filter | FlatMap | KeyBy | Fold | AssignTimestamps | Process
