"""Max: the largest of a figure for each key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.steps import Fold
from flowrt.operators.arguments import check_plain


def max(of: Callable[[Any], Any] | None = None) -> Fold:
    """Emit `(key, largest so far)` for each record: of the values, or of `of(value)`.

    Of equals the first is kept.

    >>> step = max(of=len)
    >>> step.add(step.first("not"), "be")
    3
    """
    if of is None:
        return Fold(lambda value: value, _largest, name="max")
    check_plain(of, "max", argument="of")
    return Fold(of, lambda largest, value: _largest(largest, of(value)), name="max")


def _largest(largest: Any, value: Any) -> Any:
    return value if value > largest else largest
