"""Connect: one operator for the records of two streams, with state and timers for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, CoOperator, Operator
from flowrt.contract.steps import Connect
from flowrt.operators.arguments import check_function, is_coroutine_function, name_of, takes
from flowrt.operators.process import process


def connect(what: object, right: object = None, *, broadcast: bool = False) -> Connect:
    """Run an operator of two inputs: an instance (it is copied), a class, a factory of one.

    Or two functions `left(value, ctx)` and `right(value, ctx)`, plain or coroutine, which emit with
    `ctx.emit(value)`. `broadcast`: every subtask gets all records of the second input.

    >>> def order(value, ctx):
    ...     ctx.emit(("order", value))
    >>> def payment(value, ctx):
    ...     ctx.emit(("payment", value))
    >>> connect(order, payment).make()
    TwoFunctions(order, payment)
    """
    if right is not None:
        return Connect(_pair_of(what, right, "process"), broadcast)
    if not isinstance(what, Operator | type) and not takes(what, 0):
        raise GraphError(
            f"process of connected streams needs a CoOperator, or one function of (value, ctx) for "
            f"each stream, and got {name_of(what)}"
        )
    make: Any = process(what).make
    return Connect(make, broadcast)


def connect_map(left: object, right: object, *, broadcast: bool = False) -> Connect:
    """Replace each value by `left(value)` or `right(value)`, plain or coroutine functions.

    >>> connect_map(str, len).make()
    TwoFunctions(str, len)
    """
    check_function(left, "map of connected streams", argument="left")
    check_function(right, "map of connected streams", argument="right")
    return Connect(lambda: TwoFunctions(left, right, _emits), broadcast)


def connect_flat_map(left: object, right: object, *, broadcast: bool = False) -> Connect:
    """Replace each value by those that `left(value)` or `right(value)` returns or yields.

    >>> connect_flat_map(str.split, list).make()
    TwoFunctions(str.split, list)
    """
    check_function(left, "flat_map of connected streams", argument="left")
    check_function(right, "flat_map of connected streams", argument="right")
    return Connect(lambda: TwoFunctions(left, right, _emits_all), broadcast)


class TwoFunctions(CoOperator[Any, Any, Any]):
    """A function for each input as an operator; `around` makes `process` methods of others."""

    def __init__(
        self, left: Any, right: Any, around: Callable[[Any], Callable[[Any, Context], Any]]
    ) -> None:
        self._functions = left, right
        # In place of the methods, as in `FunctionOperator`.
        self.process_left = around(left)  # type: ignore[method-assign, assignment]
        self.process_right = around(right)  # type: ignore[method-assign, assignment]

    def __repr__(self) -> str:
        return f"TwoFunctions({', '.join(map(name_of, self._functions))})"


def _pair_of(left: object, right: object, operator: str) -> Callable[[], TwoFunctions]:
    for argument, fn in (("left", left), ("right", right)):
        check_function(fn, f"{operator} of connected streams", 2, argument)
    return lambda: TwoFunctions(left, right, _as_it_is)


def _as_it_is(fn: Any) -> Callable[[Any, Context], Any]:
    method: Callable[[Any, Context], Any] = fn
    return method


def _emits(fn: Any) -> Callable[[Any, Context], Any]:
    if is_coroutine_function(fn):

        async def process_later(value: Any, ctx: Context) -> None:
            ctx.emit(await fn(value))

        return process_later
    return lambda value, ctx: ctx.emit(fn(value))


def _emits_all(fn: Any) -> Callable[[Any, Context], Any]:
    if is_coroutine_function(fn):

        async def process_later(value: Any, ctx: Context) -> None:
            for one in await fn(value):
                ctx.emit(one)

        return process_later

    def process_now(value: Any, ctx: Context) -> None:
        for one in fn(value):
            ctx.emit(one)

    return process_now
