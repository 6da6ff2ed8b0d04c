"""sum: the total of a figure for each key."""

from __future__ import annotations

import pytest

from flowrt.operators.sum import sum as sum_step
from flowrt.testing import END, check_operator, record, records, watermark
from tests.operators.folding import folded


def test_of_values() -> None:
    assert folded(sum_step(), [1, 2.5, 3]) == [1, 3.5, 6.5]


def test_of_a_figure() -> None:
    assert folded(sum_step(of=len), ["to", "be", "or not"]) == [2, 4, 10]


def test_the_total_may_change_from_int_to_float() -> None:
    assert sum_step().type is None
    assert sum_step(of=len).type is None


@pytest.mark.anyio
async def test_laws() -> None:
    given = [*records(1, 2, 3.5), watermark(5), record(4, at=9), END]

    expect = [
        *records((False, 1), (False, 3), (True, 3.5)),
        watermark(5),
        record((True, 7.5), at=9),
        END,
    ]

    await check_operator(sum_step(), given, expect, key=lambda n: n > 2)


@pytest.mark.anyio
async def test_laws_of_a_figure() -> None:
    given = records("to", "be", "or not")

    await check_operator(sum_step(of=len), given, records((2, 2), (2, 4), (6, 6)), key=len)
