"""Count: how many records each key has had."""

from __future__ import annotations

from typing import Any

from flowrt.contract.steps import Fold


def count() -> Fold:
    """Emit `(key, n)` for the n-th record of a key.

    >>> step = count()
    >>> step.add(step.first("a"), "b")
    2
    """
    return Fold(_one, _one_more, type=int, name="count")


def _one(value: Any) -> int:
    return 1


def _one_more(number: int, value: Any) -> int:
    return number + 1
