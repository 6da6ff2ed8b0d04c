"""min: the smallest of a figure for each key."""

from __future__ import annotations

from flowrt.operators.min import min as min_step
from tests.operators.folding import folded


def test_of_values() -> None:
    assert folded(min_step(), [3, 4, 1, 2]) == [3, 3, 1, 1]


def test_of_a_figure() -> None:
    assert folded(min_step(of=len), ["or not", "to", "question"]) == [6, 2, 2]


def test_of_equals_the_first_is_kept() -> None:
    assert [str(value) for value in folded(min_step(), [1, 1.0, True])] == ["1", "1", "1"]
