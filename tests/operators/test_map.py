"""map: one value in, one value out."""

from __future__ import annotations

from flowrt.contract.steps import Map
from flowrt.operators.map import map as map_step


async def wait(value: int) -> int:
    return value


def test_any_function_of_one_argument() -> None:
    assert map_step(str) == Map(str)
    assert map_step(wait) == Map(wait)
