"""aggregate: an accumulator of any kind for each key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from flowrt.contract.errors import GraphError
from flowrt.operators.aggregate import aggregate
from flowrt.testing import END, check_operator, record, records, watermark
from tests.operators.folding import folded


class Mean(msgspec.Struct):
    count: int = 0
    total: float = 0

    def plus(self, value: float) -> Mean:
        return Mean(self.count + 1, self.total + value)


def test_the_result_is_emitted() -> None:
    step = aggregate(Mean, Mean.plus, lambda mean: mean.total / mean.count)

    assert folded(step, [1, 2, 6]) == [1, 1.5, 3]


def test_without_a_result_it_is_the_accumulator() -> None:
    assert folded(aggregate(Mean, Mean.plus), [3, 4]) == [Mean(1, 3), Mean(2, 7)]


def test_an_accumulator_may_be_changed_in_place() -> None:
    def add(words: list[str], word: str) -> list[str]:
        words.append(word)
        return words

    step = aggregate(list, add, len)

    # Each key starts with a list of its own.
    assert folded(step, "ab") == [1, 2]
    assert folded(step, "abc") == [1, 2, 3]


def test_the_type_for_snapshots() -> None:
    assert aggregate(Mean, Mean.plus).type is Mean
    assert aggregate(Mean, lambda mean, value: mean).type is None
    assert aggregate(Mean, Mean.plus, type=dict).type is dict


@pytest.mark.anyio
async def test_laws() -> None:
    given = [record(1, at=3), *records(2, 3), watermark(5), *records(4, 8), END]

    expect = [
        record((1, 1.0), at=3),
        record((0, 2.0)),
        record((1, 2.0)),
        watermark(5),
        record((0, 3.0)),
        record((0, 14 / 3)),
        END,
    ]

    step = aggregate(Mean, Mean.plus, lambda mean: mean.total / mean.count)
    await check_operator(step, given, expect, key=lambda n: n % 2)


@pytest.mark.anyio
async def test_laws_of_an_accumulator_that_is_changed_in_place() -> None:
    def add(words: list[str], word: str) -> list[str]:
        words.append(word)
        return words

    given = records("to", "be", "too", "by", "bye")

    expect = records(("t", 1), ("b", 1), ("t", 2), ("b", 2), ("b", 3))

    await check_operator(aggregate(list, add, len), given, expect, key=lambda word: word[0])


def test_a_coroutine_function_does_not_migrate() -> None:
    async def migrate(plain: Any) -> Any:
        return plain

    with pytest.raises(GraphError, match="needs a plain function as migrate"):
        aggregate(int, lambda total, n: total + n, migrate=migrate)
