"""Aggregate: folds the values of each key into an accumulator of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.steps import Fold
from flowrt.operators.arguments import check_plain, state_type


def aggregate(
    create: Callable[[], Any],
    add: Callable[[Any, Any], Any],
    result: Callable[[Any], Any] | None = None,
    type: Any = None,
    migrate: Callable[[Any], Any] | None = None,
) -> Fold:
    """Emit `(key, result(accumulator))` for each record; without `result` the accumulator itself.

    `create()` makes a key's accumulator, and `add(accumulator, value)` returns it with the value
    added: a new one, or the same one changed. Snapshots read it back as `type`, else as what `add`
    is annotated to return; `migrate` makes it of one with another type (see `StateSpec`).

    >>> step = aggregate(lambda: (0, 0), lambda mean, x: (mean[0] + 1, mean[1] + x))
    >>> step.add(step.first(10), 20)
    (2, 30)
    """
    check_plain(create, "aggregate", arguments=0, argument="create")
    check_plain(add, "aggregate", arguments=2, argument="add")
    if result is not None:
        check_plain(result, "aggregate", argument="result")
    declared = state_type(add) if type is None else type
    if migrate is not None:
        check_plain(migrate, "aggregate", argument="migrate")
    return Fold(lambda value: add(create(), value), add, result, declared, "aggregate", migrate)
