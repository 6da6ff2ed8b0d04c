"""A user's own test, with pytest-asyncio and nothing of ours but the job."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import flowrt


@pytest.mark.asyncio
async def test_a_flow_inside_an_asyncio_test(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    sink: flowrt.MemorySink[int] = flowrt.MemorySink()
    flow = flowrt.Flow("squares")
    flow.source(range(5)).map(lambda n: n * n).sink(sink)

    async with flowrt.start(flow, checkpoints=tmp_path / "checkpoints") as job:
        await job.wait()

    assert sink.rows == [0, 1, 4, 9, 16]
    assert asyncio.all_tasks() == before


@pytest.mark.asyncio
async def test_asyncio_timeouts_and_task_groups_around_a_job_work_as_ever() -> None:
    async def slow(n: int) -> int:
        await asyncio.sleep(3600)
        return n

    flow = flowrt.Flow("forever")
    flow.source([1]).map(slow).sink(flowrt.MemorySink())
    before = asyncio.all_tasks()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), flowrt.start(flow) as job:
            await job.wait()

    assert asyncio.all_tasks() == before
    assert job.status().state == "cancelled"
