"""Running a flow as the whole program: signals drain, then cancel."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from flowrt.connectors.iterables import IterableSource
from flowrt.connectors.memory import MemorySink
from flowrt.runtime.run import run
from flowrt.stream.flow import Flow

on_posix = pytest.mark.skipif(
    sys.platform == "win32", reason="os.kill ends a process of Windows, whatever the signal"
)


def numbers() -> Iterator[int]:
    return itertools.count()


def test_a_flow_runs_to_its_end() -> None:
    sink: MemorySink[int] = MemorySink()
    flow = Flow("three")
    flow.source(IterableSource([1, 2, 3])).sink(sink)

    status = run(flow)

    assert (status.state, sink.rows) == ("finished", [1, 2, 3])


def test_an_output_that_nobody_can_read_does_not_hold_it_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flow = Flow("alerts")
    flow.source(IterableSource(range(5_000))).output("alerts", capacity=1)

    assert run(flow).state == "finished"
    assert "nobody can iterate over output 'alerts' here" in caplog.text


def test_a_flow_runs_in_any_thread() -> None:
    sink: MemorySink[int] = MemorySink()
    flow = Flow("three")
    flow.source(IterableSource([1, 2, 3])).sink(sink)

    with ThreadPoolExecutor() as threads:
        status = threads.submit(run, flow).result()

    assert (status.state, sink.rows) == ("finished", [1, 2, 3])


@on_posix
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains(sent: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    def interrupted(number: int) -> int:
        if number == 100:
            os.kill(os.getpid(), sent)
        return number

    sink: MemorySink[int] = MemorySink()
    flow = Flow("endless")
    flow.source(IterableSource(numbers)).map(interrupted).sink(sink)

    with caplog.at_level(logging.INFO, "flowrt"):
        status = run(flow)

    assert status.state == "drained"
    assert sink.rows == [*range(len(sink.rows))]
    assert f"{sent.name}: draining, the last epoch commits; once more to cancel" in caplog.messages


@on_posix
def test_the_second_signal_cancels(caplog: pytest.LogCaptureFixture) -> None:
    async def hangs(number: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        await anyio.sleep_forever()
        return number

    flow = Flow("hangs")
    flow.source(IterableSource(numbers)).map(hangs).sink(MemorySink())

    with caplog.at_level(logging.INFO, "flowrt"):
        status = run(flow)

    assert status.state == "cancelled"
    assert [text.partition(":")[0] for text in caplog.messages] == ["SIGINT", "SIGTERM again"]
