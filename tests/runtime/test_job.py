"""What a job says about itself before it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrt.connectors.iterables import IterableSource
from flowrt.connectors.memory import MemorySink
from flowrt.runtime.job import start
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
