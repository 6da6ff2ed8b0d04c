"""filter: keeps some values, drops the others."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.steps import Filter
from flowrt.operators.filter import filter as filter_step
from flowrt.testing import END, IDLE, check_operator, record, records, watermark


async def wait(value: int) -> bool:
    return value > 0


def test_any_function_of_one_argument() -> None:
    assert filter_step(bool) == Filter(bool)
    assert filter_step(wait) == Filter(wait)


@pytest.mark.anyio
@pytest.mark.parametrize("fn", [lambda value: value > 0, wait])
async def test_laws(fn: Any) -> None:
    given = [record(1, at=3), record(-2, at=4), watermark(10), *records(-3, 4, -5), IDLE, END]

    expect = [record(1, at=3), watermark(10), record(4), IDLE, END]

    await check_operator(filter_step(fn), given, expect)


@pytest.mark.anyio
async def test_watermarks_pass_where_no_record_does() -> None:
    given = [record(1), watermark(5), record(2), watermark(6), END]

    await check_operator(filter_step(lambda _: False), given, [watermark(5), watermark(6), END])
