"""map: one value in, one value out."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.steps import Map
from flowrt.operators.map import map as map_step
from flowrt.testing import END, IDLE, check_operator, record, watermark


async def wait(value: int) -> int:
    return value


def test_any_function_of_one_argument() -> None:
    assert map_step(str) == Map(str)
    assert map_step(wait) == Map(wait)


@pytest.mark.anyio
@pytest.mark.parametrize("fn", [lambda value: value * 10, wait])
async def test_laws(fn: Any) -> None:
    given = [record(1, at=3), record(2), watermark(10), record(3, at=12), IDLE, record(4), END]
    factor = 1 if fn is wait else 10

    expect = [
        record(1 * factor, at=3),
        record(2 * factor),
        watermark(10),
        record(3 * factor, at=12),
        IDLE,
        record(4 * factor),
        END,
    ]

    await check_operator(map_step(fn), given, expect)
