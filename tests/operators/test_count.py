"""count: how many records each key has had."""

from __future__ import annotations

import pytest

from flowrt.operators.count import count
from flowrt.testing import END, check_operator, record, records, watermark
from tests.operators.folding import folded


def test_count() -> None:
    assert folded(count(), "abc") == [1, 2, 3]
    assert count().type is int


@pytest.mark.anyio
async def test_laws() -> None:
    given = [*records(*"aba"), watermark(5), record("a", at=9), record("c"), END]

    expect = [
        *records(("a", 1), ("b", 1), ("a", 2)),
        watermark(5),
        record(("a", 3), at=9),
        record(("c", 1)),
        END,
    ]

    await check_operator(count(), given, expect, key=lambda letter: letter)
