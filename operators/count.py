"""Count: how many records each key has had."""

from __future__ import annotations

from flowrt.contract.steps import Fold, one, one_more


def count() -> Fold:
    """Emit `(key, n)` for the n-th record of a key.

    >>> step = count()
    >>> step.add(step.first("a"), "b")
    2
    """
    return Fold(one, one_more, type=int, name="count")
