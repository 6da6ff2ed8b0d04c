"""Connect: one operator for the records of two streams, with state and timers for both."""

from __future__ import annotations

from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import CoOperator, Operator
from flowrt.contract.steps import Connect, FlatMap, Map
from flowrt.operators.arguments import check_function, name_of, takes
from flowrt.operators.flat_map import flat_map
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
        for argument, fn in (("left", what), ("right", right)):
            check_function(fn, "process of connected streams", 2, argument)
        return Connect(lambda: TwoFunctions(what, right), broadcast)
    if not isinstance(what, Operator | type) and not takes(what, 0):
        raise GraphError(
            f"process of connected streams needs a CoOperator, or one function of (value, ctx) for "
            f"each stream, and got {name_of(what)}"
        )
    make: Any = process(what).make
    return Connect(make, broadcast)


def connect_map(left: Any, right: Any, *, broadcast: bool = False) -> Connect:
    """Replace each value by `left(value)` or `right(value)`, plain or coroutine functions.

    >>> connect_map(str, len).make()
    map(str, len)
    """
    check_function(left, "map of connected streams", argument="left")
    check_function(right, "map of connected streams", argument="right")
    return _two_steps(Map(left), Map(right), broadcast)


def connect_flat_map(left: Any, right: Any, *, broadcast: bool = False) -> Connect:
    """Replace each value by those that `left(value)` or `right(value)` returns or yields.

    >>> connect_flat_map(str.split, list).make()
    flat_map(str.split, list)
    """
    check_function(left, "flat_map of connected streams", argument="left")
    check_function(right, "flat_map of connected streams", argument="right")
    return _two_steps(flat_map(left), flat_map(right), broadcast)


class TwoFunctions(CoOperator[Any, Any, Any]):
    """A function `fn(value, ctx)` for each input, plain or coroutine, as an operator."""

    def __init__(self, left: Any, right: Any) -> None:
        self._functions = left, right
        # In place of the methods, as in `FunctionOperator`.
        self.process_left = left  # type: ignore[method-assign]
        self.process_right = right  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"TwoFunctions({', '.join(map(name_of, self._functions))})"


class TwoSteps(CoOperator[Any, Any, Any]):
    """Stands for a simple step for each input; it is these that run, fused with what follows."""

    def __init__(self, left: Map | FlatMap, right: Map | FlatMap) -> None:
        self._steps = left, right

    def __repr__(self) -> str:
        kind = "map" if isinstance(self._steps[0], Map) else "flat_map"
        return f"{kind}({', '.join(name_of(step.fn) for step in self._steps)})"


def _two_steps(left: Map | FlatMap, right: Map | FlatMap, broadcast: bool) -> Connect:
    return Connect(lambda: TwoSteps(left, right), broadcast, (left, right))
