"""Folds values as the runtime does for the records of one key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowrt.contract.steps import Fold


def folded(step: Fold, values: Iterable[Any]) -> list[Any]:
    """Return what is emitted for each value."""
    results = []
    accumulator: Any = None
    for number, value in enumerate(values):
        accumulator = step.add(accumulator, value) if number else step.first(value)
        results.append(accumulator if step.result is None else step.result(accumulator))
    return results
