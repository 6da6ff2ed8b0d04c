"""Map: one value in, one value out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.steps import Map
from flowrt.operators.arguments import check_function


def map(fn: Callable[[Any], Any]) -> Map:
    """Replace each value by `fn(value)`; what a coroutine function returns is awaited, in order.

    >>> step = map(str.upper)
    >>> [step.fn(word) for word in ["a", "b"]]
    ['A', 'B']
    """
    check_function(fn, "map")
    return Map(fn)
