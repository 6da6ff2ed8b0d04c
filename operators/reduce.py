"""Reduce: folds the values of each key into one of their own kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.steps import Fold
from flowrt.operators.arguments import check_plain, state_type


def reduce(fn: Callable[[Any, Any], Any], migrate: Callable[[Any], Any] | None = None) -> Fold:
    """Emit `(key, folded)` for each record: first the value itself, then `fn(folded, value)`.

    What `fn` is annotated to return is the type that snapshots are read back with; `migrate` makes
    it of values with another type (see `StateSpec`).

    >>> step = reduce(lambda longest, word: max(longest, word, key=len))
    >>> step.add(step.first("to"), "question")
    'question'
    """
    check_plain(fn, "reduce", arguments=2)
    if migrate is not None:
        check_plain(migrate, "reduce", argument="migrate")
    return Fold(_itself, fn, type=state_type(fn), name="reduce", migrate=migrate)


def _itself(value: Any) -> Any:
    return value
