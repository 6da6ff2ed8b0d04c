"""min: the smallest of a figure for each key."""

from __future__ import annotations

import pytest

from flowrt.operators.min import min as min_step
from flowrt.testing import END, check_operator, record, records, watermark
from tests.operators.folding import folded


def test_of_values() -> None:
    assert folded(min_step(), [3, 4, 1, 2]) == [3, 3, 1, 1]


def test_of_a_figure() -> None:
    assert folded(min_step(of=len), ["or not", "to", "question"]) == [6, 2, 2]


def test_of_equals_the_first_is_kept() -> None:
    assert [str(value) for value in folded(min_step(), [1, 1.0, True])] == ["1", "1", "1"]


@pytest.mark.anyio
async def test_laws() -> None:
    given = [*records(3, 4, 1), watermark(5), record(2, at=9), record(5), END]

    expect = [
        *records((1, 3), (0, 4), (1, 1)),
        watermark(5),
        record((0, 2), at=9),
        record((1, 1)),
        END,
    ]

    await check_operator(min_step(), given, expect, key=lambda n: n % 2)


@pytest.mark.anyio
async def test_laws_of_a_figure() -> None:
    given = records("be", "bye", "b")

    await check_operator(
        min_step(of=len), given, records(("b", 2), ("b", 2), ("b", 1)), key=lambda word: word[0]
    )
