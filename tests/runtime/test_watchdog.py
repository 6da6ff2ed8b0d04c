"""The watchdog names what blocks the event loop, and what waits for long.

It looks at real time from a thread of its own, so here what blocks does so until it was told of.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

import flowrt
from flowrt import ConfigError, Context, Flow, MemorySink, Operator, Watchdog

pytestmark = pytest.mark.anyio

QUICK = Watchdog(blocks="20ms", waits="20ms")
PATIENCE_S = 20


class Told(logging.Handler):
    """Collects what the watchdog says, and lets whoever waits for it go on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.records: list[logging.LogRecord] = []
        self._came = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._came:
            self.records.append(record)
            self.lines.append(record.getMessage())
            self._came.notify_all()

    def block(self, *texts: str) -> None:
        """Block this thread until a line with all the texts was told."""
        self.block_until(lambda: self.has(*texts))

    def block_until(self, enough: Callable[[], bool]) -> None:
        with self._came:
            assert self._came.wait_for(enough, PATIENCE_S)

    async def wait(self, *texts: str) -> None:
        await anyio.to_thread.run_sync(self.block, *texts, abandon_on_cancel=True)

    def has(self, *texts: str) -> bool:
        return any(all(text in line for text in texts) for line in self.lines)


@pytest.fixture
def told() -> Iterator[Told]:
    handler, logger = Told(), logging.getLogger("flowrt")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def run(flow: Flow, watchdog: Watchdog = QUICK) -> None:
    async with flowrt.start(flow, watchdog=watchdog) as job:
        await job.wait()


def on_this_line_of(function: Callable[..., Any]) -> str:
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno + 1} in {code.co_name}"


async def test_a_function_that_blocks_is_named_with_its_line_and_how_long(told: Told) -> None:
    def slow(value: int) -> int:
        told.block("operator 'slow' blocks")
        return value

    flow = Flow("flow")
    flow.source([1]).map(str).map(slow, name="slow").sink(MemorySink())  # type: ignore[arg-type]
    await run(flow)
    await told.wait("operator 'slow' blocked the event loop for ")

    # A machine with much to do may also stand still elsewhere.
    first, last = (line for line in told.lines if "'slow'" in line)
    assert first.startswith("flow flow: operator 'slow' blocks the event loop, for ")
    assert first.endswith(f" ms now, at {on_this_line_of(slow)}")
    assert last.endswith(" ms")
    named = next(record for record in told.records if "'slow'" in record.getMessage())
    assert {"operator": "slow", "flow": "flow"}.items() <= vars(named).items()


async def test_a_timer_and_a_watermark_that_block_are_named(told: Told) -> None:
    class Slow(Operator[int, int]):
        def process(self, value: int, ctx: Context) -> None:
            ctx.timers.register_processing_time(0)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            told.block("operator 'slow' blocks", "in on_timer")

        def on_watermark(self, watermark: int, ctx: Context) -> None:
            told.block("operator 'slow' blocks", "in on_watermark")

    flow = Flow("flow")
    flow.source([1]).key_by(lambda value: value).process(Slow, name="slow").sink(MemorySink())
    await run(flow)


async def test_a_sink_that_blocks_is_named(told: Told) -> None:
    def slow(value: int) -> None:
        told.block("sink 'out' blocks", on_this_line_of(slow))

    flow = Flow("flow")
    flow.source([1]).sink(flowrt.ForeachSink(slow), name="out")
    await run(flow)


async def test_a_source_that_blocks_is_named(told: Told) -> None:
    def numbers() -> Iterator[int]:
        told.block("source 'in' blocks", "in numbers")
        yield 1

    flow = Flow("flow")
    flow.source(numbers(), name="in").sink(MemorySink())
    await run(flow)


async def test_a_call_that_blocks_is_named(told: Told) -> None:
    async def ask(value: int) -> int:
        told.block("operator 'ask' blocks", "in ask")
        return value

    flow = Flow("flow")
    flow.source([1]).map_async(ask, name="ask").sink(MemorySink())
    await run(flow)


async def test_what_blocks_outside_of_the_flow_is_told_as_such(told: Told) -> None:
    flow = Flow("flow")
    flow.source([1]).sink(MemorySink())
    async with flowrt.start(flow, watchdog=QUICK) as job:
        told.block("code outside of its operators blocks", "in block")
        await job.wait()


async def test_an_operator_that_waits_is_named(told: Told) -> None:
    async def patient(value: int) -> int:
        await told.wait("operator 'patient' waits for longer than 0.02 s, at ", "in patient")
        return value

    flow = Flow("flow")
    flow.source([1]).map(patient, name="patient").sink(MemorySink())
    await run(flow, Watchdog(blocks=None, waits="20ms"))

    assert len([line for line in told.lines if "waits" in line]) == 1, "once for each wait"


async def test_calls_that_wait_are_counted(told: Told) -> None:
    def three() -> bool:
        # Together, unless it looked while they began.
        waits = r"'ask' waits for longer than 0.02 s(?: in (\d))?"
        found = [re.search(waits, line) for line in told.lines]
        return sum(int(match[1] or 1) for match in found if match) == 3

    async def ask(value: int) -> int:
        await anyio.to_thread.run_sync(told.block_until, three, abandon_on_cancel=True)
        return value

    flow = Flow("flow")
    flow.source([1, 2, 3]).map_async(ask, name="ask", timeout="1m").sink(MemorySink())
    await run(flow, Watchdog(blocks=None, waits="20ms"))


async def test_a_sink_that_waits_is_named_and_what_waits_for_it_is_not(told: Told) -> None:
    async def patient(value: int) -> None:
        await told.wait("operator 'out' waits for longer", "in patient")

    flow = Flow("flow")
    stream = flow.source(range(10_000)).map(str).start_new_chain().map(int)
    stream.sink(flowrt.ForeachSink(patient), name="out")
    async with flowrt.start(flow, watchdog=QUICK, channel_capacity=10) as job:
        await told.wait("'out' waits for longer")
        assert all("'out'" in line for line in told.lines if "waits" in line)
        await job.cancel()


async def test_its_thread_ends_with_the_job() -> None:
    flow = Flow("watched")
    flow.source([1]).sink(MemorySink())
    await run(flow, Watchdog())

    for thread in threading.enumerate():
        if "watchdog watched" in thread.name:
            raise AssertionError("it outlives the job")


async def test_nothing_is_watched_where_both_are_off(told: Told) -> None:
    flow = Flow("flow")
    flow.source([1]).sink(MemorySink())
    await run(flow, Watchdog(blocks=None, waits=None))

    assert told.lines == []


def test_limits_are_durations() -> None:
    with pytest.raises(ConfigError, match="Watchdog has blocks='0ms'"):
        Watchdog(blocks="0ms")
    with pytest.raises(ConfigError, match="is not a duration"):
        Watchdog(waits="soon")
