"""Filter: keeps some values, drops the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.steps import Filter
from flowrt.operators.arguments import check_function


def filter(fn: Callable[[Any], Any]) -> Filter:
    """Keep the values for which `fn(value)` is true; a coroutine function's answer is awaited.

    >>> step = filter(lambda number: number % 2 == 0)
    >>> [number for number in [1, 2, 3, 4] if step.fn(number)]
    [2, 4]
    """
    check_function(fn, "filter")
    return Filter(fn)
