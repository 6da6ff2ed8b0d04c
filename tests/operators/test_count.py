"""count: how many records each key has had."""

from __future__ import annotations

from flowrt.operators.count import count
from tests.operators.folding import folded


def test_count() -> None:
    assert folded(count(), "abc") == [1, 2, 3]
    assert count().type is int
