"""Flat map: one value in, any number out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.steps import FlatMap
from flowrt.operators.arguments import check_function, name_of


def flat_map(fn: Callable[[Any], Any]) -> FlatMap:
    """Replace each value by those of the iterable that `fn(value)` returns, awaited if need be.

    A generator function is fine; an asynchronous one is not: use process and `ctx.emit`.

    >>> step = flat_map(str.split)
    >>> [word for line in ["to be", "or not"] for word in step.fn(line)]
    ['to', 'be', 'or', 'not']
    """
    check_function(fn, "flat_map")
    if inspect.isasyncgenfunction(fn):
        raise GraphError(
            f"flat_map needs a function that returns an iterable, and {name_of(fn)} is an "
            "asynchronous generator: use process(fn) with ctx.emit(value) instead of yield"
        )
    return FlatMap(fn)
