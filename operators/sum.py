"""Sum: the total of a figure for each key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.steps import Fold
from flowrt.operators.arguments import check_plain


def sum(of: Callable[[Any], Any] | None = None) -> Fold:
    """Emit `(key, total)` for each record: the total of the values, or of `of(value)`.

    Anything that can be added will do. Totals of floats depend on the order of the records, and
    that is kept within a key.

    >>> step = sum(of=len)
    >>> step.add(step.first("to"), "question")
    10
    """
    if of is None:
        return Fold(lambda value: value, lambda total, value: total + value, name="sum")
    check_plain(of, "sum", argument="of")
    # No type: a total may begin as an int and become a float.
    return Fold(of, lambda total, value: total + of(value), name="sum")
