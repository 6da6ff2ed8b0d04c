"""Operators: one step of a flow, as a class. Only `process` is required.

Each method may be plain (`def`) or a coroutine (`async def`); a plain one is cheaper and cannot
wait. One instance serves one subtask; the flow's instance is copied for each, again at each
restart, so open files and clients in `open`, and keep what must survive a crash in state only.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Generic, Never, Protocol, TypeVar, overload

from flowrt.contract.state import (
    AggregatingHandle,
    AggregatingState,
    BroadcastHandle,
    BroadcastState,
    ListHandle,
    ListState,
    MapHandle,
    MapState,
    ReducingHandle,
    ReducingState,
    ValueHandle,
    ValueState,
)
from flowrt.contract.world import World

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
Acc = TypeVar("Acc")
In = TypeVar("In")
Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)
In_contra = TypeVar("In_contra", contravariant=True)
Left_contra = TypeVar("Left_contra", contravariant=True)
Right_contra = TypeVar("Right_contra", contravariant=True)


class OutputTag(Generic[T]):
    """Names a side output; `OutputTag[Order]("late")` gives the type of its stream."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputTag) and other.name == self.name

    def __hash__(self) -> int:
        return hash(("OutputTag", self.name))

    def __repr__(self) -> str:
        return f"OutputTag({self.name!r})"


class Timers(Protocol):
    """Timers of the current key.

    Setting one twice is setting it once. They are part of snapshots.
    """

    def register_event_time(self, timestamp: int) -> None:
        """Call `on_timer` once the watermark reaches `timestamp` (ms)."""
        ...

    def register_processing_time(self, timestamp: int) -> None:
        """Call `on_timer` once the clock reaches `timestamp` (ms).

        After a restore at once if past.
        """
        ...

    def delete_event_time(self, timestamp: int) -> None:
        """Forget an event-time timer; no error where there is none."""
        ...

    def delete_processing_time(self, timestamp: int) -> None:
        """Forget a processing-time timer; no error where there is none."""
        ...


class Context(Protocol):
    """What an operator may use beyond the value it was given."""

    @property
    def operator(self) -> str:
        """The operator's stable id."""
        ...

    @property
    def subtask(self) -> int:
        """The index of this instance, from 0."""
        ...

    @property
    def parallelism(self) -> int:
        """How many instances there are."""
        ...

    @property
    def world(self) -> World:
        """Clock, files and randomness of the job."""
        ...

    @property
    def key(self) -> Any:
        """The current key; `StateError` outside a keyed stream."""
        ...

    @property
    def timestamp(self) -> int | None:
        """The event time of the current record or timer (ms); None where it has none."""
        ...

    @property
    def watermark(self) -> int:
        """The operator's watermark (ms); `MIN_TIMESTAMP` before the first."""
        ...

    @property
    def timers(self) -> Timers:
        """Timers of the current key."""
        ...

    def emit(self, value: Any, timestamp: int | None = None) -> None:
        """Send a value on, with the current record's event time unless one is given (int, ms)."""
        ...

    def side(self, tag: OutputTag[T], value: T, timestamp: int | None = None) -> None:
        """Send a value to a side output.

        It is dropped, and counted, where nobody takes that output.
        """
        ...

    @overload
    def state(self, declaration: ValueState[T]) -> ValueHandle[T]: ...
    @overload
    def state(self, declaration: ListState[T]) -> ListHandle[T]: ...
    @overload
    def state(self, declaration: MapState[K, V]) -> MapHandle[K, V]: ...
    @overload
    def state(self, declaration: BroadcastState[K, V]) -> BroadcastHandle[K, V]: ...
    @overload
    def state(self, declaration: ReducingState[T]) -> ReducingHandle[T]: ...
    @overload
    def state(self, declaration: AggregatingState[In, Acc, Out]) -> AggregatingHandle[In, Out]: ...
    def state(self, declaration: Any) -> Any:
        """Return the handle of a declared state; the same declaration gives the same handle."""
        ...


class Operator(Generic[In_contra, Out_co]):
    """One step of a flow. Emits through `ctx.emit`; returns nothing."""

    def open(self, ctx: Context) -> Awaitable[None] | None:
        """Get ready; called once, after state was restored and before the first record."""
        return None

    def process(self, value: In_contra, ctx: Context) -> Awaitable[None] | None:
        """Take one record."""
        raise NotImplementedError(f"{type(self).__name__} has no process method")

    def on_timer(self, timestamp: int, ctx: Context) -> Awaitable[None] | None:
        """Take a timer that is due.

        `ctx.key` is the key that set it, `ctx.timestamp` its time (ms).
        """
        return None

    def on_watermark(self, watermark: int, ctx: Context) -> Awaitable[None] | None:
        """Take a new watermark (ms), after the timers it made due and before it is sent on."""
        return None

    def snapshot(self) -> Any:
        """Return what this instance must keep beside keyed state, as plain data; None for nothing.

        Called at each barrier; must be quick, and what it returns must not change afterwards.
        """
        return None

    def restore(self, data: list[Any]) -> None:
        """Take what the instances returned from `snapshot` (all of them, at any parallelism).

        Called before `open`, and only when there is something to restore.
        """

    def close(self) -> Awaitable[None] | None:
        """Let go of what `open` took; called once, also after an error."""
        return None


class CoOperator(Operator[Never, Out_co], Generic[Left_contra, Right_contra, Out_co]):
    """One step with two inputs: for `a.connect(b).process(...)`.

    `process_left` takes the records of `a`, `process_right` those of `b`, one at a time: neither
    begins while the other runs. Each input keeps its order, and between them there is none. State,
    timers, watermark and all the rest are as for any `Operator`, and shared by both.
    """

    def process_left(self, value: Left_contra, ctx: Context) -> Awaitable[None] | None:
        """Take one record of the first stream."""
        raise NotImplementedError(f"{type(self).__name__} has no process_left method")

    def process_right(self, value: Right_contra, ctx: Context) -> Awaitable[None] | None:
        """Take one record of the second stream; of a broadcast one, in every subtask."""
        raise NotImplementedError(f"{type(self).__name__} has no process_right method")
