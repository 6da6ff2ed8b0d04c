"""assign_timestamps: gives a stream its event time."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.errors import GraphError
from flowrt.contract.steps import AssignTimestamps
from flowrt.contract.time import WatermarkStrategy
from flowrt.operators.assign_timestamps import assign_timestamps

STRATEGY: WatermarkStrategy[Any] = WatermarkStrategy.monotonous()


async def wait(value: int) -> int:
    return value


@pytest.mark.parametrize("strategy", [STRATEGY, STRATEGY.with_timestamps(int)])
def test_with_or_without_timestamps_from_records(strategy: WatermarkStrategy[Any]) -> None:
    assert assign_timestamps(strategy) == AssignTimestamps(strategy)


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ("2s", "assign_timestamps needs a WatermarkStrategy and got '2s'"),
        (WatermarkStrategy.monotonous, "assign_timestamps needs a WatermarkStrategy and got"),
        (STRATEGY.with_timestamps(5), "as with_timestamps(...), and 5 cannot be called"),  # type: ignore[arg-type]
        (STRATEGY.with_timestamps(wait), "as with_timestamps(...), and wait is a corout"),  # type: ignore[arg-type]
    ],
)
def test_what_gives_no_timestamps_is_refused(strategy: Any, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        assign_timestamps(strategy)

    assert text in str(caught.value)
