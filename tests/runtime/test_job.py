"""What a job says about itself before it runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowrt.connectors.iterables import IterableSource
from flowrt.connectors.memory import MemorySink
from flowrt.contract.errors import FlowrtError
from flowrt.contract.on_error import OnError
from flowrt.runtime.job import Job, start
from flowrt.stream.flow import Flow

pytestmark = pytest.mark.anyio


def numbers() -> Iterator[int]:
    yield from range(3)


def flow_of(source: IterableSource[int]) -> Flow:
    flow = Flow("f")
    flow.source(source, name="numbers").sink(MemorySink())
    return flow


async def warnings_of(
    source: IterableSource[int], folder: Path | None, caplog: pytest.LogCaptureFixture
) -> list[str]:
    with caplog.at_level(logging.WARNING, "flowrt"):
        async with start(flow_of(source), checkpoints=folder) as job:
            await job.wait()
    return [record.getMessage() for record in caplog.records]


async def test_a_source_that_is_read_once_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [warning] = await warnings_of(IterableSource(numbers()), tmp_path, caplog)

    assert warning == (
        "flow f: source 'numbers' cannot be read again, so its records are at-most-once in spite "
        "of delivery='exactly_once': what came after the last epoch is lost in a crash"
    )


async def test_a_source_that_can_be_read_again_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await warnings_of(IterableSource([1, 2]), tmp_path, caplog) == []


async def test_nothing_is_promised_without_checkpoints(caplog: pytest.LogCaptureFixture) -> None:
    assert await warnings_of(IterableSource(numbers()), None, caplog) == []


# ------------------------------------------------------------------------- what ends the program


class EndsError(BaseException):
    """What no `except Exception` catches."""


async def ends(value: int) -> int:
    if value == 2:
        raise EndsError("the end")
    return value


async def ends_many(values: list[int]) -> list[int]:
    return [await ends(value) for value in values]


def ending(part: str) -> Flow:
    flow = Flow("ending")
    numbers = flow.source([1, 2, 3])
    if part == "map":
        numbers.map(ends, on_error=OnError.skip()).sink(MemorySink())
    elif part == "map_async":
        numbers.map_async(ends, on_error=OnError.skip()).sink(MemorySink())
    else:
        numbers.map_async_batch(ends_many, max_size=2, on_error=OnError.skip()).sink(MemorySink())
    return flow


@pytest.mark.parametrize("on_failure", ["cancel", "keep"])
@pytest.mark.parametrize("part", ["map", "map_async", "map_async_batch"])
async def test_what_is_no_exception_comes_out_as_it_is_and_the_job_has_failed(
    part: str, on_failure: Any
) -> None:
    told = r"flow 'ending' was ended by EndsError\('the end'\)"
    with pytest.raises(EndsError, match="the end"):
        async with start(ending(part), on_failure=on_failure) as job:
            await anyio.sleep_forever()

    assert job.status().state == "failed"
    assert re.match(told, job.status().error or "")
    with pytest.raises(FlowrtError, match=told) as error:
        await job.wait()
    assert isinstance(error.value.__cause__, EndsError)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_reaches_the_caller_of_the_event_loop(
    anyio_backend: Any, kind: type[BaseException]
) -> None:
    jobs: list[Job] = []
    left: list[str] = []

    def end(value: int) -> int:
        raise kind(3)

    async def main() -> None:
        flow = Flow("ending")
        flow.source([1]).map(end).sink(MemorySink())
        async with start(flow) as job:
            jobs.append(job)
            try:
                await anyio.sleep_forever()
            finally:
                left.append("left")

    backend, options = anyio_backend
    with pytest.raises(kind, match="3"):
        anyio.run(main, backend=backend, backend_options=options)

    assert left == ["left"], "what the service has to put away it does"
    assert jobs[0].status().state == "failed"
    assert f"flow 'ending' was ended by {kind.__name__}(3)" in (jobs[0].status().error or "")
