"""flat_map: one value in, any number out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from flowrt.contract.errors import GraphError
from flowrt.operators.flat_map import flat_map
from flowrt.testing import END, check_operator, record, watermark


def test_a_generator_function_will_do() -> None:
    def letters(word: str) -> Iterator[str]:
        yield from word

    assert list(flat_map(letters).fn("ab")) == ["a", "b"]


def test_an_asynchronous_generator_will_not() -> None:
    async def letters(word: str) -> AsyncIterator[str]:
        yield word

    with pytest.raises(
        GraphError, match=r"letters is an asynchronous generator: use process\(fn\)"
    ):
        flat_map(letters)


async def letters_later(word: str) -> list[str]:
    return list(word)


@pytest.mark.anyio
@pytest.mark.parametrize("fn", [list, iter, letters_later])
async def test_laws(fn: Any) -> None:
    given = [record("ab", at=3), record(""), watermark(10), record("c", at=11), END]

    expect = [
        record("a", at=3),
        record("b", at=3),
        watermark(10),
        record("c", at=11),
        END,
    ]

    await check_operator(flat_map(fn), given, expect)
