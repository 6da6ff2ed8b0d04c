"""filter: keeps some values, drops the others."""

from __future__ import annotations

from flowrt.contract.steps import Filter
from flowrt.operators.filter import filter as filter_step


async def wait(value: int) -> bool:
    return value > 0


def test_any_function_of_one_argument() -> None:
    assert filter_step(bool) == Filter(bool)
    assert filter_step(wait) == Filter(wait)
