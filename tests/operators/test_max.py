"""max: the largest of a figure for each key."""

from __future__ import annotations

import pytest

from flowrt.operators.max import max as max_step
from flowrt.testing import END, check_operator, record, records, watermark
from tests.operators.folding import folded


def test_of_values() -> None:
    assert folded(max_step(), [3, 4, 1, 5]) == [3, 4, 4, 5]


def test_of_a_figure() -> None:
    assert folded(max_step(of=len), ["to", "or not", "be"]) == [2, 6, 6]


def test_of_equals_the_first_is_kept() -> None:
    assert [str(value) for value in folded(max_step(), [1, 1.0, True])] == ["1", "1", "1"]


@pytest.mark.anyio
async def test_laws() -> None:
    given = [*records(3, 4, 1), watermark(5), record(2, at=9), record(5), END]

    expect = [
        *records((1, 3), (0, 4), (1, 3)),
        watermark(5),
        record((0, 4), at=9),
        record((1, 5)),
        END,
    ]

    await check_operator(max_step(), given, expect, key=lambda n: n % 2)


@pytest.mark.anyio
async def test_laws_of_a_figure() -> None:
    given = records("be", "bye", "b")

    await check_operator(
        max_step(of=len), given, records(("b", 2), ("b", 3), ("b", 3)), key=lambda word: word[0]
    )
