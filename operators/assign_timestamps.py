"""Assign timestamps: gives a stream its event time."""

from __future__ import annotations

from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.steps import AssignTimestamps
from flowrt.contract.time import WatermarkStrategy
from flowrt.operators.arguments import check_plain


def assign_timestamps(strategy: WatermarkStrategy[Any]) -> AssignTimestamps:
    """Give each record its event time by `strategy`, and make watermarks from it.

    Watermarks from further up end here. Event time from a source is better, where the source can:
    there each split has a watermark of its own, so that one that is behind is not late.

    >>> strategy = WatermarkStrategy.bounded_out_of_orderness("2s")
    >>> step = assign_timestamps(strategy.with_timestamps(lambda event: event["at"]))
    >>> step.strategy.timestamp({"at": 1_000})
    1000
    """
    check_strategy(strategy, "assign_timestamps")
    return AssignTimestamps(strategy)


def check_strategy(strategy: object, operator: str) -> None:
    """Refuse what is not a watermark strategy, and one whose timestamps must be awaited."""
    if not isinstance(strategy, WatermarkStrategy):
        raise GraphError(
            f"{operator} needs a WatermarkStrategy and got {strategy!r}: for instance "
            "WatermarkStrategy.bounded_out_of_orderness('2s').with_timestamps(fn)"
        )
    if strategy.timestamp is not None:
        check_plain(strategy.timestamp, operator, argument="with_timestamps(...)")
