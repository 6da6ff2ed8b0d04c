"""Stream: what flows out of a source or a step, and what can be done with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, TypeVar, overload

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.sink import Sink
from flowrt.contract.steps import Step
from flowrt.contract.time import WatermarkStrategy
from flowrt.graph.nodes import Output
from flowrt.operators.assign_timestamps import assign_timestamps
from flowrt.operators.filter import filter as filter_step
from flowrt.operators.flat_map import flat_map
from flowrt.operators.key_by import key_by
from flowrt.operators.map import map as map_step
from flowrt.operators.process import process
from flowrt.operators.static_join import join_static
from flowrt.stream.description import Description

if TYPE_CHECKING:
    from flowrt.stream.keyed import KeyedStream

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")
V = TypeVar("V")
Key = TypeVar("Key", bound=Hashable)

StaticTable: TypeAlias = (
    Mapping[K, V] | Callable[[], Mapping[K, V]] | Callable[[], Awaitable[Mapping[K, V]]]
)
"""A table for `Stream.join_static`, or what loads it when the flow starts."""


class Stream(Generic[T]):
    """The records that come out of a source or a step; each call describes one step more.

    A stream can be read by any number of steps and sinks: each gets every record. `name` is a
    step's stable id (see `Flow`), `parallelism` how many subtasks run it. Functions are plain or
    coroutine functions unless a method says otherwise; a coroutine is awaited before the next
    record is taken, so that order is kept. Made by `Flow.source`, not by hand.
    """

    def __init__(
        self, description: Description, outputs: tuple[Output, ...], *, new_chain: bool = False
    ) -> None:
        self._description = description
        self._outputs = outputs
        self._new_chain = new_chain

    # ------------------------------------------------------------------------- record by record

    @overload
    def map(
        self,
        fn: Callable[[T], Awaitable[R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[R]: ...
    @overload
    def map(
        self, fn: Callable[[T], R], *, name: str | None = None, parallelism: int | None = None
    ) -> Stream[R]: ...
    def map(
        self, fn: Callable[[T], Any], *, name: str | None = None, parallelism: int | None = None
    ) -> Stream[Any]:
        """Replace each value by `fn(value)`."""
        return self._step("map", lambda: map_step(fn), name, parallelism)

    def filter(
        self, fn: Callable[[T], Any], *, name: str | None = None, parallelism: int | None = None
    ) -> Stream[T]:
        """Keep the values for which `fn(value)` is true."""
        return self._step("filter", lambda: filter_step(fn), name, parallelism)

    @overload
    def flat_map(
        self,
        fn: Callable[[T], Awaitable[Iterable[R]]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[R]: ...
    @overload
    def flat_map(
        self,
        fn: Callable[[T], Iterable[R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[R]: ...
    def flat_map(
        self, fn: Callable[[T], Any], *, name: str | None = None, parallelism: int | None = None
    ) -> Stream[Any]:
        """Replace each value by those that `fn(value)` returns or, a generator function, yields."""
        return self._step("flat_map", lambda: flat_map(fn), name, parallelism)

    @overload
    def process(
        self,
        what: Operator[T, R] | Callable[[], Operator[T, R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[R]: ...
    @overload
    def process(
        self,
        what: Callable[[T, Context], Any],
        *,
        type: type[R],
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[R]: ...
    @overload
    def process(
        self,
        what: Callable[[T, Context], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[Any]: ...
    def process(
        self,
        what: Any,
        *,
        type: Any = None,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[Any]:
        """Run an operator: any number of values out for one in, and side outputs.

        `what` is an `Operator` instance (copied for each subtask: open clients and files in its
        `open`), an `Operator` class, a factory of one, or a function `fn(value, ctx)` that emits
        with `ctx.emit(value)`. `type` only tells a type checker what a function emits.
        """
        return self._step("process", lambda: process(what), name, parallelism)

    def side_output(self, tag: OutputTag[R]) -> Stream[R]:
        """Read what the operator before sent with `ctx.side(tag, value)`; only after `process`."""
        output = self._outputs[0]
        if not isinstance(tag, OutputTag):
            raise GraphError(
                f"side_output needs an OutputTag, such as OutputTag('late'): got {tag!r}"
            )
        if len(self._outputs) > 1 or not self._description.has_sides(output):
            raise GraphError(
                f"{self!r} has no side output {tag.name!r}: take it from what process(...) returns"
            )
        return Stream(self._description, (Output(output.node, tag.name),))

    def assign_timestamps(
        self,
        strategy: WatermarkStrategy[T],
        *,
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[T]:
        """Give each record its event time; better done by a source, with `watermarks=`."""
        make = lambda: assign_timestamps(strategy)  # noqa: E731
        return self._step("assign_timestamps", make, name, parallelism)

    # -------------------------------------------------------------------------- several streams

    def union(self, *others: Stream[T]) -> Stream[T]:
        """Read several streams as one; each keeps its order, and between them there is none."""
        return Stream(self._description, self._united(others), new_chain=self._new_chain)

    @overload
    def join_static(
        self,
        table: StaticTable[K, V],
        *,
        on: Callable[[T], K],
        merge: Callable[[T, V], R],
        how: Literal["inner"] = "inner",
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[R]: ...
    @overload
    def join_static(
        self,
        table: StaticTable[K, V],
        *,
        on: Callable[[T], K],
        merge: Callable[[T, V | None], R],
        how: Literal["left"],
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[R]: ...
    def join_static(
        self,
        table: Any,
        *,
        on: Callable[[T], Any],
        merge: Callable[[Any, Any], Any],
        how: Literal["inner", "left"] = "inner",
        name: str | None = None,
        parallelism: int | None = None,
    ) -> Stream[Any]:
        """Replace each value by `merge(value, table[on(value)])`; the table does not change.

        `table` is a mapping, or a function that loads one when the flow starts. Where there is no
        such row, `how="inner"` drops the value and `"left"` gives `merge(value, None)`. `on` and
        `merge` are plain functions.
        """
        make = lambda: join_static(table, on=on, merge=merge, how=how)  # noqa: E731
        return self._step("join_static", make, name, parallelism)

    # ------------------------------------------------------------------------------ where it goes

    def key_by(self, fn: Callable[[T], Key], *, name: str | None = None) -> KeyedStream[Key, T]:
        """Give each record the key `fn(value)`, for state, timers and order by key.

        `fn` is a plain function, and its keys are hashable. It runs where its input runs; records
        then travel to the subtask that owns their key.
        """
        from flowrt.stream.keyed import KeyedStream

        output = self._description.add_step(
            "key_by",
            lambda: key_by(fn),
            self._outputs,
            name=name,
            parallelism=self._description.parallelism_of(self._outputs),
            new_chain=self._new_chain,
        )
        return KeyedStream(self._description, (output,))

    def start_new_chain(self) -> Self:
        """Let the next step start a task of its own, so that it runs beside the steps before it."""
        return type(self)(self._description, self._outputs, new_chain=True)

    def sink(
        self, sink: Sink[T], *, name: str | None = None, parallelism: int | None = None
    ) -> None:
        """Write the records to a sink."""
        if not isinstance(sink, Sink):
            raise GraphError(
                f"flow {self._description.flow!r} cannot write to {sink!r}: pass an instance of a "
                "Sink; for a function use ForeachSink(fn)"
            )
        self._description.add_sink(sink, self._outputs, name=name, parallelism=parallelism)

    def __repr__(self) -> str:
        ids = ", ".join(repr(output.node) for output in self._outputs)
        return f"<{type(self).__name__} of {ids}>"

    def _step(
        self,
        kind: str,
        make: Callable[[], Step],
        name: str | None,
        parallelism: int | None,
        *,
        keyed: bool = False,
    ) -> Stream[Any]:
        output = self._description.add_step(
            kind,
            make,
            self._outputs,
            name=name,
            parallelism=parallelism,
            keyed=keyed,
            new_chain=self._new_chain,
        )
        return Stream(self._description, (output,))

    def _united(self, others: tuple[Stream[Any], ...]) -> tuple[Output, ...]:
        flow = self._description.flow
        if not others:
            raise GraphError(f"{self!r} of flow {flow!r}: a union needs at least one other stream")
        outputs = list(self._outputs)
        for other in others:
            if not isinstance(other, Stream):
                raise GraphError(f"{self!r} of flow {flow!r}: {other!r} is no stream to unite with")
            if other._description is not self._description:
                raise GraphError(
                    f"{self!r} of flow {flow!r} and {other!r} of flow "
                    f"{other._description.flow!r} cannot be united: they belong to different flows"
                )
            outputs += other._outputs
        twice = sorted({output.node for output in outputs if outputs.count(output) > 1})
        if twice:
            raise GraphError(
                f"flow {flow!r}: the union of {self!r} and others has {twice[0]!r} twice: a stream "
                "cannot be united with itself; use flat_map to double its records"
            )
        return tuple(outputs)
