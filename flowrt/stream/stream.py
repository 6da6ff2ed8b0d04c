"""Stream: what flows out of a source or a step, and what can be done with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from flowrt.contract.errors import GraphError
from flowrt.contract.on_error import OnError
from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.retry import RetryStrategy
from flowrt.contract.sink import Sink
from flowrt.contract.steps import Step
from flowrt.contract.time import Duration, WatermarkStrategy
from flowrt.graph.nodes import Output
from flowrt.operators.assign_timestamps import assign_timestamps
from flowrt.operators.calls import Cache
from flowrt.operators.filter import filter as filter_step
from flowrt.operators.flat_map import flat_map
from flowrt.operators.key_by import key_by
from flowrt.operators.map import map as map_step
from flowrt.operators.map_async import map_async
from flowrt.operators.map_async_batch import map_async_batch
from flowrt.operators.process import process
from flowrt.operators.static_join import join_static
from flowrt.runtime.output import JobOutput, Policy, When
from flowrt.stream.description import Description, check_on_error

if TYPE_CHECKING:
    from flowrt.stream.connected import BroadcastStream, ConnectedStreams
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


class CallOptions(TypedDict, total=False):
    """The options of `Stream.map_async` and `Stream.map_async_batch`."""

    capacity: int
    ordered: bool
    timeout: Duration | None
    retry: RetryStrategy | None
    cache: Cache | None
    type: Any


class Stream(Generic[T]):
    """The records that come out of a source or a step; each call describes one step more.

    A stream can be read by any number of steps and sinks: each gets every record. `name` is a
    step's stable id (see `Flow`), `parallelism` how many subtasks run it. Functions are plain or
    coroutine functions unless a method says otherwise; a coroutine is awaited before the next
    record is taken, so that order is kept. Values are handed on and not copied: a function makes a
    new one and leaves what it was given as it was, for others have it too. `on_error` says what
    becomes of a record that the step fails at; without it what the flow says, which is to fail.
    Made by `Flow.source`, not by hand.
    """

    def __init__(
        self,
        description: Description,
        outputs: tuple[Output, ...],
        *,
        new_chain: bool = False,
        rebalanced: tuple[Output, ...] = (),
    ) -> None:
        self._description = description
        self._outputs = outputs
        self._new_chain = new_chain
        self._rebalanced = rebalanced

    # ------------------------------------------------------------------------- record by record

    @overload
    def map(
        self,
        fn: Callable[[T], Awaitable[R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[R]: ...
    @overload
    def map(
        self,
        fn: Callable[[T], R],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[R]: ...
    def map(
        self,
        fn: Callable[[T], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]:
        """Replace each value by `fn(value)`."""
        return self._step("map", lambda: map_step(fn), name, parallelism, on_error)

    def filter(
        self,
        fn: Callable[[T], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[T]:
        """Keep the values for which `fn(value)` is true."""
        return self._step("filter", lambda: filter_step(fn), name, parallelism, on_error)

    @overload
    def flat_map(
        self,
        fn: Callable[[T], Awaitable[Iterable[R]]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[R]: ...
    @overload
    def flat_map(
        self,
        fn: Callable[[T], Iterable[R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[R]: ...
    def flat_map(
        self,
        fn: Callable[[T], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]:
        """Replace each value by those that `fn(value)` returns or, a generator function, yields."""
        return self._step("flat_map", lambda: flat_map(fn), name, parallelism, on_error)

    def map_async(
        self,
        fn: Callable[[T], Awaitable[R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
        **options: Unpack[CallOptions],
    ) -> Stream[R]:
        """Replace each value by what `await fn(value)` returns, many calls under way at once.

        Backpressure begins where `capacity` calls (default 100) are under way in a subtask. With
        `ordered` (the default) results keep the order of their records. Otherwise they leave as
        they come, but none passes a watermark.

        A call may take `timeout`; after an exception or a timeout `retry` says how often to try
        again, and `on_error` what becomes of the record then. `cache` keeps answers. Records in
        flight are part of snapshots, encoded by `type` if given, and their calls are made again
        after a restore: a snapshot waits for no answer, and a call may be made more than once.
        """
        policy = self._policy_of_calls("map_async", on_error, options)
        return self._step("map_async", lambda: map_async(fn, **options), name, parallelism, policy)

    def map_async_batch(
        self,
        fn: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        max_size: int,
        max_wait: Duration = "5ms",
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
        **options: Unpack[CallOptions],
    ) -> Stream[R]:
        """As `map_async`, for services that take many values: one answer for each, in their order.

        A call goes out when `max_size` values are there, or `max_wait` after the first of them.
        `capacity` (default 1,000) counts values; `timeout` and `retry` are for a whole call.
        """
        policy = self._policy_of_calls("map_async_batch", on_error, options)

        def make() -> Step:
            return map_async_batch(fn, max_size=max_size, max_wait=max_wait, **options)

        return self._step("map_async_batch", make, name, parallelism, policy)

    @overload
    def process(
        self,
        what: Operator[T, R] | Callable[[], Operator[T, R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[R]: ...
    @overload
    def process(
        self,
        what: Callable[[T, Context], Any],
        *,
        type: type[R],
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[R]: ...
    @overload
    def process(
        self,
        what: Callable[[T, Context], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]: ...
    def process(
        self,
        what: Any,
        *,
        type: Any = None,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]:
        """Run an operator: any number of values out for one in, and side outputs.

        `what` is an `Operator` instance (copied for each subtask: open clients and files in its
        `open`), an `Operator` class, a factory of one, or a function `fn(value, ctx)` that emits
        with `ctx.emit(value)`. `type` only tells a type checker what a function emits.
        """
        return self._step("process", lambda: process(what), name, parallelism, on_error)

    def side_output(self, tag: OutputTag[R]) -> Stream[R]:
        """Read what the operator before sent with `ctx.side(tag, value)`; only after `process`.

        After any step with `on_error=OnError.dead_letter(tag)`: its dead letters.
        """
        output = self._outputs[0]
        if not isinstance(tag, OutputTag):
            raise GraphError(
                f"side_output needs an OutputTag, such as OutputTag('late'): got {tag!r}"
            )
        if len(self._outputs) > 1 or not self._description.has_side(output, tag.name):
            raise GraphError(
                f"{self!r} has no side output {tag.name!r}: take it from what process(...) "
                "returns, or from a step with on_error=OnError.dead_letter(tag)"
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
        make = partial(assign_timestamps, strategy)
        return self._step("assign_timestamps", make, name, parallelism)

    # -------------------------------------------------------------------------- several streams

    def union(self, *others: Stream[T]) -> Stream[T]:
        """Read several streams as one; each keeps its order, and between them there is none."""
        united, rebalanced = self._united(others)
        return Stream(self._description, united, new_chain=self._new_chain, rebalanced=rebalanced)

    def connect(self, other: Stream[R] | BroadcastStream[R]) -> ConnectedStreams[T, R]:
        """Give the records of two streams to one operator, each to a method of its own.

        Both have keys or neither, and keys of one type; a broadcast stream goes with any.
        """
        from flowrt.stream.connected import connected

        return connected(self, other)

    def broadcast(self) -> BroadcastStream[T]:
        """Let every subtask get every record: `orders.connect(rules.broadcast())`."""
        from flowrt.stream.connected import BroadcastStream

        return BroadcastStream(self)

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
        on_error: OnError | None = None,
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
        on_error: OnError | None = None,
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
        on_error: OnError | None = None,
    ) -> Stream[Any]:
        """Replace each value by `merge(value, table[on(value)])`; the table does not change.

        `table` is a mapping, or a function that loads one when the flow starts. Where there is no
        such row, `how="inner"` drops the value and `"left"` gives `merge(value, None)`. `on` and
        `merge` are plain functions.
        """
        make = partial(join_static, table, on=on, merge=merge, how=how)
        return self._step("join_static", make, name, parallelism, on_error)

    # ------------------------------------------------------------------------------ where it goes

    def key_by(
        self, fn: Callable[[T], Key], *, name: str | None = None, on_error: OnError | None = None
    ) -> KeyedStream[Key, T]:
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
            on_error=on_error,
            rebalanced=self._rebalanced,
        )
        return KeyedStream(self._description, (output,))

    def start_new_chain(self) -> Self:
        """Let the next step start a task of its own, so that it runs beside the steps before it."""
        return type(self)(
            self._description, self._outputs, new_chain=True, rebalanced=self._rebalanced
        )

    def rebalance(self) -> Stream[T]:
        """Deal the records out in turn to the subtasks of the next step or sink.

        For load that is uneven or keeps one subtask busy; the step runs in a task of its own, also
        at equal parallelism. Order is lost, and so are keys.
        """
        return Stream(
            self._description,
            self._outputs,
            new_chain=self._new_chain,
            rebalanced=self._outputs,
        )

    def sink(
        self, sink: Sink[T], *, name: str | None = None, parallelism: int | None = None
    ) -> None:
        """Write the records to a sink."""
        if not isinstance(sink, Sink):
            raise GraphError(
                f"flow {self._description.flow!r} cannot write to {sink!r}: pass an instance of a "
                "Sink; for a function use ForeachSink(fn)"
            )
        self._description.add_sink(
            sink,
            self._outputs,
            name=name,
            parallelism=parallelism,
            rebalanced=self._rebalanced,
        )

    def output(
        self,
        name: str,
        *,
        capacity: int | None = None,
        policy: Policy = "wait",
        when: When = "at_once",
        parallelism: int | None = None,
    ) -> JobOutput[T]:
        """Let the service iterate: `async for value in job.output(name)`, see `JobOutput`.

        `capacity` (default 1,000) is how many values wait for each iterator; with `policy="wait"`
        the flow waits where there are more, also while nobody iterates. What is returned can stand
        for the name, and knows the values' type.
        """
        output: JobOutput[T] = JobOutput(name, capacity=capacity, policy=policy, when=when)
        self.sink(output, name=name, parallelism=parallelism)
        return output

    def __repr__(self) -> str:
        ids = ", ".join(repr(output.node) for output in self._outputs)
        return f"<{type(self).__name__} of {ids}>"

    def _step(
        self,
        kind: str,
        make: Callable[[], Step],
        name: str | None,
        parallelism: int | None,
        on_error: OnError | None = None,
        *,
        keyed: bool = False,
    ) -> Stream[Any]:
        output = self._description.add_step(
            kind,
            make,
            self._outputs,
            name=name,
            parallelism=parallelism,
            on_error=on_error,
            keyed=keyed,
            new_chain=self._new_chain,
            rebalanced=self._rebalanced,
        )
        return Stream(self._description, (output,))

    def _policy_of_calls(
        self, kind: str, on_error: OnError | None, options: CallOptions
    ) -> OnError | None:
        """Return the policy for calls; its tries become those of the call, which block nobody."""
        check_on_error(on_error, f"{kind} of flow {self._description.flow!r}")
        policy = on_error or self._description.default(self._outputs)
        if policy.strategy is None:
            return on_error
        if options.get("retry") is None:
            options["retry"] = policy.strategy
        elif on_error is not None:
            raise GraphError(
                f"{kind} of flow {self._description.flow!r} has retry=... and "
                "on_error=OnError.retry(...): give one of them"
            )
        return policy.after_tries()

    def _united(
        self, others: tuple[Stream[Any], ...]
    ) -> tuple[tuple[Output, ...], tuple[Output, ...]]:
        """Return what a union reads, and what of it is dealt out in turn."""
        flow = self._description.flow
        if not others:
            raise GraphError(f"{self!r} of flow {flow!r}: a union needs at least one other stream")
        outputs, rebalanced = list(self._outputs), list(self._rebalanced)
        for other in others:
            if not isinstance(other, Stream):
                raise GraphError(f"{self!r} of flow {flow!r}: {other!r} is no stream to unite with")
            if other._description is not self._description:
                raise GraphError(
                    f"{self!r} of flow {flow!r} and {other!r} of flow "
                    f"{other._description.flow!r} cannot be united: they belong to different flows"
                )
            outputs += other._outputs
            rebalanced += other._rebalanced
        twice = sorted({output.node for output in outputs if outputs.count(output) > 1})
        if twice:
            raise GraphError(
                f"flow {flow!r}: the union of {self!r} and others has {twice[0]!r} twice: a stream "
                "cannot be united with itself; use flat_map to double its records"
            )
        return tuple(outputs), tuple(rebalanced)
