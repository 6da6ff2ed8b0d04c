"""Limits change under a running flow, and the alerts follow them."""

from __future__ import annotations

import pytest

from examples.changing_rules import Alert, Order, OverLimit, main
from flowrt.testing import END, check_operator, left, record, right

pytestmark = pytest.mark.anyio


async def test_the_service_hears_of_alerts_until_the_new_limit_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await main()

    *before, last = capsys.readouterr().out.splitlines()
    spent = 120 + 10 * len(before)
    assert before == [f"ada spent {120 + 10 * n}, more than 100" for n in range(len(before))]
    assert last == f"ada spent {spent}, more than 50"


async def test_the_laws_hold_for_its_operator() -> None:
    given = [
        left(Order("ada", 90)),
        left(Order("ada", 20)),
        right({"ada": 200}),
        left(Order("ada", 20)),
        left(Order("bob", 500)),
        END,
    ]

    await check_operator(
        OverLimit,
        given,
        [record(Alert("ada", 110, 100)), END],
        key=lambda order: order.customer,
    )
