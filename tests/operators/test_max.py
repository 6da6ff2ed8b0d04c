"""max: the largest of a figure for each key."""

from __future__ import annotations

from flowrt.operators.max import max as max_step
from tests.operators.folding import folded


def test_of_values() -> None:
    assert folded(max_step(), [3, 4, 1, 5]) == [3, 4, 4, 5]


def test_of_a_figure() -> None:
    assert folded(max_step(of=len), ["to", "or not", "be"]) == [2, 6, 6]


def test_of_equals_the_first_is_kept() -> None:
    assert [str(value) for value in folded(max_step(), [1, 1.0, True])] == ["1", "1", "1"]
