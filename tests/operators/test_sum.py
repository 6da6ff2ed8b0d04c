"""sum: the total of a figure for each key."""

from __future__ import annotations

from flowrt.operators.sum import sum as sum_step
from tests.operators.folding import folded


def test_of_values() -> None:
    assert folded(sum_step(), [1, 2.5, 3]) == [1, 3.5, 6.5]


def test_of_a_figure() -> None:
    assert folded(sum_step(of=len), ["to", "be", "or not"]) == [2, 4, 10]


def test_the_total_may_change_from_int_to_float() -> None:
    assert sum_step().type is None
    assert sum_step(of=len).type is None
