"""KeyedStream: a stream whose records have keys, and what can be kept for each key."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from flowrt.contract.on_error import OnError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.steps import Step
from flowrt.operators.aggregate import aggregate
from flowrt.operators.count import count
from flowrt.operators.max import max as max_step
from flowrt.operators.min import min as min_step
from flowrt.operators.process import process
from flowrt.operators.reduce import reduce
from flowrt.operators.sum import sum as sum_step
from flowrt.stream.stream import Stream

if TYPE_CHECKING:
    from flowrt.stream.connected import BroadcastStream, ConnectedStreams

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")
Acc = TypeVar("Acc")


class KeyedStream(Stream[T], Generic[K, T]):
    """A stream after `key_by`: the records of one key go to one subtask, in their order.

    What is kept for each key is part of snapshots. Running figures emit a pair `(key, figure)` for
    each record. `map`, `filter` and the others of `Stream` give a stream without keys. The
    functions of running figures are plain ones.
    """

    def reduce(
        self,
        fn: Callable[[T, T], T],
        *,
        migrate: Callable[[Any], T] | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, T]]:
        """Fold the values of each key: first the value itself, then `fn(so_far, value)`.

        Snapshots are read back with the type that `fn` is annotated to return, where it is;
        `migrate` makes values of that type from those of another one, as for any state.
        """
        return self._fold("reduce", lambda: reduce(fn, migrate), name, parallelism, on_error)

    @overload
    def aggregate(
        self,
        create: Callable[[], Acc],
        add: Callable[[Acc, T], Acc],
        result: Callable[[Acc], R],
        type: type[Acc] | None = None,
        *,
        migrate: Callable[[Any], Acc] | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, R]]: ...
    @overload
    def aggregate(
        self,
        create: Callable[[], Acc],
        add: Callable[[Acc, T], Acc],
        result: None = None,
        type: type[Acc] | None = None,
        *,
        migrate: Callable[[Any], Acc] | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, Acc]]: ...
    def aggregate(
        self,
        create: Callable[[], Any],
        add: Callable[[Any, T], Any],
        result: Callable[[Any], Any] | None = None,
        type: Any = None,
        *,
        migrate: Callable[[Any], Any] | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, Any]]:
        """Fold the values of each key into an accumulator and emit its result.

        `create()` makes the accumulator of a new key; `add(accumulator, value)` returns it with the
        value added; `result(accumulator)` is emitted, without it the accumulator. Snapshots read
        accumulators back as `type`, else as what `add` is annotated to return, else builtins as
        they were; `migrate` makes them from accumulators of another type, as for any state.
        """
        make = partial(aggregate, create, add, result, type, migrate)
        return self._fold("aggregate", make, name, parallelism, on_error)

    def count(
        self,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, int]]:
        """Count the records of each key."""
        return self._fold("count", count, name, parallelism, on_error)

    @overload
    def sum(
        self,
        of: None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, T]]: ...
    @overload
    def sum(
        self,
        of: Callable[[T], R],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, R]]: ...
    def sum(
        self,
        of: Callable[[T], Any] | None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, Any]]:
        """Add up the values of each key, or `of(value)`."""
        return self._fold("sum", lambda: sum_step(of), name, parallelism, on_error)

    @overload
    def min(
        self,
        of: None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, T]]: ...
    @overload
    def min(
        self,
        of: Callable[[T], R],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, R]]: ...
    def min(
        self,
        of: Callable[[T], Any] | None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, Any]]:
        """Keep the smallest value of each key, or the smallest `of(value)`."""
        return self._fold("min", lambda: min_step(of), name, parallelism, on_error)

    @overload
    def max(
        self,
        of: None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, T]]: ...
    @overload
    def max(
        self,
        of: Callable[[T], R],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, R]]: ...
    def max(
        self,
        of: Callable[[T], Any] | None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[tuple[K, Any]]:
        """Keep the largest value of each key, or the largest `of(value)`."""
        return self._fold("max", lambda: max_step(of), name, parallelism, on_error)

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
        """Run an operator with state and timers for each key; see `Stream.process`."""
        return self._step("process", lambda: process(what), name, parallelism, on_error, keyed=True)

    @overload
    def union(self, *others: KeyedStream[K, T]) -> KeyedStream[K, T]: ...
    @overload
    def union(self, *others: Stream[T]) -> Stream[T]: ...
    def union(self, *others: Stream[T]) -> Stream[T]:
        """Read several streams as one, with keys where all of them have: records bring theirs."""
        united, rebalanced = self._united(others)
        all_keyed = all(isinstance(other, KeyedStream) for other in others)
        kind: Callable[..., Stream[T]] = KeyedStream if all_keyed else Stream
        return kind(self._description, united, new_chain=self._new_chain, rebalanced=rebalanced)

    # A keyed stream connects with fewer streams than any: a checker shall see a mix, or keys of two
    # types, before the flow is built.
    def connect(  # type: ignore[override]
        self, other: KeyedStream[K, R] | BroadcastStream[R]
    ) -> ConnectedStreams[T, R]:
        """Give the records of two streams to one operator, each to a method of its own.

        The records of one key, from either, go to one subtask and share its state and timers. The
        keys of both are of one type; a broadcast stream has none.
        """
        return super().connect(other)

    def _fold(
        self,
        kind: str,
        make: Callable[[], Step],
        name: str | None,
        parallelism: int | None,
        on_error: OnError | None,
    ) -> Stream[Any]:
        return self._step(kind, make, name, parallelism, on_error, keyed=True)
