"""Waiting for the job's clock."""

from __future__ import annotations

import pytest
from anyio import create_task_group

from flowrt.contract.waiting import sleep_ms, wait_until
from flowrt.testing import ManualClock
from tests.dataflow.kit import settle

pytestmark = pytest.mark.anyio


async def test_until_a_time_and_for_a_while() -> None:
    clock, done = ManualClock(1_000), list[str]()

    async def wait() -> None:
        await wait_until(clock, 1_010)
        done.append("until")
        await sleep_ms(clock, 5)
        done.append("for")

    async with create_task_group() as group:
        group.start_soon(wait)
        for at, expected in [(1_009, []), (1_010, ["until"]), (1_014, ["until"])]:
            await settle()
            clock.set_to(at)
            await settle()
            assert done == expected
        clock.set_to(1_015)
    assert done == ["until", "for"]


async def test_what_is_past_takes_no_time() -> None:
    await wait_until(ManualClock(1_000), 999)
    await sleep_ms(ManualClock(1_000), 0)


async def test_a_wait_that_is_cancelled_leaves_no_alarm() -> None:
    clock = ManualClock()
    async with create_task_group() as group:
        group.start_soon(sleep_ms, clock, 10)
        await settle()
        group.cancel_scope.cancel()
    assert clock.next_alarm_ms() is None
