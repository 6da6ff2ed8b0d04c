"""Process: any number of values out for one in, with state, timers and side outputs at hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.steps import Process
from flowrt.operators.arguments import name_of, takes


def process(what: object) -> Process:
    """Run an operator: an instance (it is copied), a class, a factory, or `fn(value, ctx)`.

    A function is plain or a coroutine function, emits with `ctx.emit(value)`, and gets its state
    from `ctx.state(ValueState(...))`. A class or factory is called without arguments.

    >>> def twice(value, ctx):
    ...     ctx.emit(value)
    ...     ctx.emit(value)
    >>> process(twice).make()
    FunctionOperator(twice)
    """
    if isinstance(what, Operator):
        return Process(_copies_of(what))
    if isinstance(what, partial) and isinstance(what.func, type):
        return Process(what)  # whatever its class would take beside what is bound
    if isinstance(what, type):
        return Process(_instances_of(what))
    if not callable(what):
        raise GraphError(
            f"process needs an Operator or a function of (value, ctx), and got {what!r}"
        )
    if inspect.isasyncgenfunction(what) or inspect.isgeneratorfunction(what):
        raise GraphError(
            f"process needs a function that emits with ctx.emit(value), and {name_of(what)} "
            "yields: use ctx.emit, or flat_map for a plain generator"
        )
    if takes(what, 2):
        return Process(lambda: FunctionOperator(what))
    if takes(what, 0):
        return Process(what)
    raise GraphError(
        f"process calls a function with (value, ctx) and a factory without arguments, and "
        f"{name_of(what)} takes neither"
    )


class FunctionOperator(Operator[Any, Any]):
    """A function `fn(value, ctx)`, plain or coroutine, as an operator."""

    def __init__(self, fn: Callable[[Any, Context], Any]) -> None:
        self._fn = fn
        # In place of the method: a call less for each record, and whoever looks whether it must be
        # awaited sees the user's function.
        self.process = fn  # type: ignore[method-assign, assignment]

    def __repr__(self) -> str:
        return f"FunctionOperator({name_of(self._fn)})"


def _copies_of(prototype: Operator[Any, Any]) -> Callable[[], Operator[Any, Any]]:
    def copy() -> Operator[Any, Any]:
        try:
            return deepcopy(prototype)
        except Exception as error:
            raise GraphError(
                f"a {type(prototype).__name__} cannot be copied for each subtask "
                f"({type(error).__name__}: {error}): open clients and files in open(), or pass the "
                "class or a factory instead of an instance"
            ) from error

    # What the caller does with the instance afterwards must not change the flow.
    prototype = copy()
    return copy


def _instances_of(cls: type) -> Callable[[], Operator[Any, Any]]:
    if not issubclass(cls, Operator):
        raise GraphError(
            f"process needs an Operator class, and {cls.__name__} is none: derive it from "
            "flowrt.Operator"
        )
    if not takes(cls, 0):
        raise GraphError(
            f"process makes {cls.__name__} without arguments, and it needs some: pass an instance, "
            f"or a factory such as lambda: {cls.__name__}(...)"
        )
    return cls
