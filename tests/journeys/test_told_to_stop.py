"""A job that is told to stop while a record is tried again and again: it stops, and at once."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowrt import FixedDelay, Flow, MemorySink, OnError
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, until

pytestmark = pytest.mark.anyio

OFTEN = FixedDelay("0s", attempts=1_000)


@pytest.mark.parametrize("step", ["a coroutine", "a call"])
async def test_no_policy_holds_up_a_job_that_is_cancelled(step: str) -> None:
    asked: list[int] = []

    async def ask(number: int) -> int:
        asked.append(number)
        await anyio.sleep_forever()
        return number

    place, flow, out = Place(), Flow("stopped"), MemorySink[int]()
    numbers: Any = flow.source(ScriptedSource[int]([1, PAUSE]), name="numbers")
    if step == "a call":
        answers = numbers.map_async(ask, retry=OFTEN, on_error=OnError.skip())
    else:
        answers = numbers.map(ask, on_error=OnError.retry(OFTEN, then=OnError.skip()))
    answers.sink(out)

    async with place.start(flow) as job:
        await until(lambda: bool(asked))
        with anyio.fail_after(30):
            await job.cancel()

    assert job.status().state == "cancelled"
    assert asked == [1]
    assert out.rows == []
    assert not any(job.metrics().skipped.values())
