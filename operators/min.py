"""Min: the smallest of a figure for each key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.steps import Fold
from flowrt.operators.arguments import check_plain


def min(of: Callable[[Any], Any] | None = None) -> Fold:
    """Emit `(key, smallest so far)` for each record: of the values, or of `of(value)`.

    Of equals the first is kept.

    >>> step = min(of=len)
    >>> step.add(step.first("not"), "be")
    2
    """
    if of is None:
        return Fold(lambda value: value, _smallest, name="min")
    check_plain(of, "min", argument="of")
    return Fold(of, lambda smallest, value: _smallest(smallest, of(value)), name="min")


def _smallest(smallest: Any, value: Any) -> Any:
    return value if value < smallest else smallest
