"""reduce: the values of a key folded into one of their own kind."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.errors import GraphError
from flowrt.operators.reduce import reduce
from flowrt.testing import END, check_operator, record, records, watermark
from tests.operators.folding import folded


def longest(one: str, other: str) -> str:
    return max(one, other, key=len)


def test_the_first_value_stands_for_itself() -> None:
    assert folded(reduce(longest), ["to", "be", "or not", "to"]) == ["to", "to", "or not", "or not"]


def test_the_type_for_snapshots_is_what_the_function_says() -> None:
    untyped: Any = lambda one, other: one  # noqa: E731

    assert reduce(longest).type is str
    assert reduce(untyped).type is None
    assert reduce(max).name == "reduce"


@pytest.mark.anyio
async def test_laws() -> None:
    given = [record("to", at=3), *records("be", "or not"), watermark(5), *records("too", "b"), END]

    expect = [
        record(("t", "to"), at=3),
        record(("b", "be")),
        record(("o", "or not")),
        watermark(5),
        record(("t", "too")),
        record(("b", "be")),
        END,
    ]

    await check_operator(reduce(longest), given, expect, key=lambda word: word[0])


def test_a_coroutine_function_does_not_migrate() -> None:
    async def migrate(plain: Any) -> Any:
        return plain

    with pytest.raises(GraphError, match="needs a plain function as migrate"):
        reduce(max, migrate)
