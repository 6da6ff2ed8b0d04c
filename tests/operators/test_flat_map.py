"""flat_map: one value in, any number out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from flowrt.contract.errors import GraphError
from flowrt.operators.flat_map import flat_map


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
