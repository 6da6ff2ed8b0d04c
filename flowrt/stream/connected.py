"""Two streams with one operator: connected, or one of them broadcast to every subtask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar, overload

from flowrt.contract.errors import GraphError
from flowrt.contract.on_error import OnError
from flowrt.contract.operator import Context, CoOperator
from flowrt.contract.steps import Step
from flowrt.operators.connect import connect, connect_flat_map, connect_map
from flowrt.stream.keyed import KeyedStream
from flowrt.stream.stream import Stream

L = TypeVar("L")
R = TypeVar("R")
T = TypeVar("T")
Out = TypeVar("Out")


class BroadcastStream(Generic[T]):
    """A stream of which every subtask gets every record: `orders.connect(rules.broadcast())`.

    Made by `Stream.broadcast`, not by hand.
    """

    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<BroadcastStream of {self._stream!r}>"


class ConnectedStreams(Generic[L, R]):
    """Two streams whose records go to one operator, each to its own method or function.

    Each stream keeps its order, and between them there is none. With keys both have them, and the
    records of one key, from either, go to one subtask and share its state and timers. Made by
    `Stream.connect`, not by hand.
    """

    def __init__(self, left: Stream[L], right: Stream[R], *, broadcast: bool) -> None:
        self._left = left
        self._right = right
        self._broadcast = broadcast

    @overload
    def process(
        self,
        what: CoOperator[L, R, Out] | Callable[[], CoOperator[L, R, Out]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Out]: ...
    @overload
    def process(
        self,
        what: Callable[[L, Context], Any],
        right: Callable[[R, Context], Any],
        *,
        type: type[Out],
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Out]: ...
    @overload
    def process(
        self,
        what: Callable[[L, Context], Any],
        right: Callable[[R, Context], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]: ...
    def process(
        self,
        what: Any,
        right: Any = None,
        *,
        type: Any = None,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]:
        """Run an operator: any number of values out for one in, and side outputs.

        `what` is a `CoOperator` instance (copied for each subtask: open clients and files in its
        `open`), a class, a factory of one; or `what` and `right` are functions `fn(value, ctx)`,
        one for each stream, that emit with `ctx.emit(value)`. `type` only tells a type checker what
        functions emit.
        """
        make = partial(connect, what, right, broadcast=self._broadcast)
        return self._step(make, name, parallelism, on_error)

    @overload
    def map(
        self,
        left: Callable[[L], Awaitable[Out]],
        right: Callable[[R], Awaitable[Out]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Out]: ...
    @overload
    def map(
        self,
        left: Callable[[L], Out],
        right: Callable[[R], Out],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Out]: ...
    def map(
        self,
        left: Callable[[L], Any],
        right: Callable[[R], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]:
        """Replace each value by `left(value)` or `right(value)`, so that both are of one kind."""
        make = partial(connect_map, left, right, broadcast=self._broadcast)
        return self._step(make, name, parallelism, on_error)

    @overload
    def flat_map(
        self,
        left: Callable[[L], Awaitable[Iterable[Out]]],
        right: Callable[[R], Awaitable[Iterable[Out]]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Out]: ...
    @overload
    def flat_map(
        self,
        left: Callable[[L], Iterable[Out]],
        right: Callable[[R], Iterable[Out]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Out]: ...
    def flat_map(
        self,
        left: Callable[[L], Any],
        right: Callable[[R], Any],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        on_error: OnError | None = None,
    ) -> Stream[Any]:
        """Replace each value by those that `left(value)` or `right(value)` returns or yields."""
        make = partial(connect_flat_map, left, right, broadcast=self._broadcast)
        return self._step(make, name, parallelism, on_error)

    def __repr__(self) -> str:
        return f"<ConnectedStreams of {self._left!r} with {self._right!r}>"

    def _step(
        self,
        make: Callable[[], Step],
        name: str | None,
        parallelism: int | None,
        on_error: OnError | None,
    ) -> Stream[Any]:
        left, right = self._left, self._right
        output = left._description.add_step(
            "connect",
            make,
            left._outputs + right._outputs,
            name=name,
            parallelism=parallelism,
            on_error=on_error,
            keyed=isinstance(left, KeyedStream),
            right=right._outputs,
            rebalanced=left._rebalanced + (() if self._broadcast else right._rebalanced),
        )
        return Stream(left._description, (output,))


def connected(left: Stream[L], other: Stream[R] | BroadcastStream[R]) -> ConnectedStreams[L, R]:
    """Return two streams as one input each; `GraphError` where they cannot be connected."""
    what = f"{left!r} of flow {left._description.flow!r}"
    broadcast = isinstance(other, BroadcastStream)
    right = other._stream if isinstance(other, BroadcastStream) else other
    if not isinstance(right, Stream):
        raise GraphError(f"{what}: {right!r} is no stream to connect with")
    if right._description is not left._description:
        raise GraphError(
            f"{what} and {right!r} of flow {right._description.flow!r} cannot be connected: they "
            "belong to different flows"
        )
    twice = [output.node for output in left._outputs if output in right._outputs]
    if twice:
        raise GraphError(
            f"{what} is connected with itself, by {twice[0]!r}: process(...) alone sees each record"
        )
    if not broadcast and isinstance(left, KeyedStream) != isinstance(right, KeyedStream):
        keyed, other_one = (left, right) if isinstance(left, KeyedStream) else (right, left)
        raise GraphError(
            f"{what} cannot be connected with {right!r}: {keyed!r} has keys and {other_one!r} has "
            "none; put key_by(...) before both or before neither, or broadcast() the second"
        )
    return ConnectedStreams(left, right, broadcast=broadcast)
