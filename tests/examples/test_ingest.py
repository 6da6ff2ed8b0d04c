"""The shop: what its customers were thanked for is in the figures, once, over several lives."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import flowrt
from examples.ingest import CUSTOMERS, Order, Spent, flow, handle, main, report

pytestmark = pytest.mark.anyio


async def test_each_life_goes_on_where_the_one_before_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for life in (1, 2):
        await main(tmp_path, count=10)

        assert report(tmp_path / "spent") == [
            Spent(customer, 10 * life, 1_045 * life) for customer in CUSTOMERS
        ]
    assert capsys.readouterr().out.splitlines()[-1] == "dan: 20 orders, 20.90"


async def test_a_life_that_is_cut_short_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    orders = flowrt.Ingest("orders", type=Order, journal=tmp_path / "journal")
    shop = flow(orders, tmp_path / "spent")
    async with flowrt.start(shop, checkpoints=tmp_path / "checkpoints") as job:
        async with anyio.create_task_group() as handlers:
            for number in range(20):
                handlers.start_soon(handle, orders, Order(f"ada-{number}", "ada", 5))
        await job.cancel()  # no epoch has covered them

    await main(tmp_path, count=1)

    assert report(tmp_path / "spent")[0] == Spent("ada", 21, 200)
