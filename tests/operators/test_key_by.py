"""key_by: says what a record is about."""

from __future__ import annotations

import pytest

from flowrt.contract.errors import GraphError
from flowrt.contract.steps import KeyBy
from flowrt.operators.key_by import key_by
from flowrt.testing import END, check_operator, record, watermark


async def wait(value: str) -> str:
    return value


def test_a_plain_function() -> None:
    assert key_by(str.lower) == KeyBy(str.lower)


def test_a_key_cannot_be_waited_for() -> None:
    with pytest.raises(
        GraphError, match="key_by needs a plain function as fn, and wait is a corou"
    ):
        key_by(wait)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_laws() -> None:
    given = [record("A", at=3), record("b"), watermark(10), record("a"), END]

    expect = [
        record("A", at=3, key="a"),
        record("b", key="b"),
        watermark(10),
        record("a", key="a"),
        END,
    ]

    await check_operator(key_by(str.lower), given, expect)
