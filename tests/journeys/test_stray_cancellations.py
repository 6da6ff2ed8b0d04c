"""User code that raises a cancellation nobody asked the flow for: an error, never a silent end.

It comes from awaiting something that somebody else cancelled: a task, a future, a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import pytest

import flowrt
from flowrt import Flow, IterableSource, MemorySink, Operator, PositionedSource, ValueState
from flowrt.contract.sink import Committable, SinkContext, Writer
from flowrt.contract.source import Chunk, Position, Reader, SourceContext, Split
from flowrt.testing.recording_sink import RecordingSink
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place

# Under trio nobody but its own scopes can raise a cancellation.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend",
        [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
        ids=["asyncio", "uvloop"],
    ),
]


async def cancelled() -> None:
    """Await a task that was cancelled, as a client does whose connection is torn down."""
    task = asyncio.ensure_future(asyncio.sleep(0))
    task.cancel()
    await task


async def in_map(number: int) -> int:
    await cancelled()
    return number


class Failing(Operator[int, int]):
    """Awaits what was cancelled in the method it is told."""

    kept = ValueState(int)

    def __init__(self, method: str) -> None:
        self._method = method

    async def _reached(self, method: str) -> None:
        if method == self._method:
            await cancelled()

    async def open(self, ctx: flowrt.Context) -> None:
        await self._reached("open")

    async def process(self, value: int, ctx: flowrt.Context) -> None:
        ctx.timers.register_event_time(value)
        await self._reached("process")

    async def on_timer(self, timestamp: int, ctx: flowrt.Context) -> None:
        await self._reached("on_timer")

    async def on_watermark(self, watermark: int, ctx: flowrt.Context) -> None:
        await self._reached("on_watermark")


async def read_once() -> AsyncIterator[int]:
    yield 1
    await cancelled()


async def pairs(position: int | None) -> AsyncIterator[tuple[int, int]]:
    yield 1, 1
    await cancelled()


class FailingSource(flowrt.Source[int]):
    """Awaits what was cancelled in the method it is told."""

    def __init__(self, method: str) -> None:
        self._method = method

    async def reached(self, method: str) -> None:
        if method == self._method:
            await cancelled()

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        await self.reached("splits")
        return [Split("0")]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[int]:
        await self.reached("reader")
        return FailingReader(self)


class FailingReader:
    def __init__(self, source: FailingSource) -> None:
        self._source = source

    async def read(self, limit: int) -> Chunk[int] | None:
        await self._source.reached("read")
        return None

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return None

    async def close(self) -> None:
        await self._source.reached("close")


class FailingSink(RecordingSink[Any]):
    """Awaits what was cancelled in the step it is told."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self._step = step

    async def _reached(self, step: str) -> None:
        if step == self._step:
            await cancelled()

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        await self._reached("recover")
        await super().recover(epoch, committables, ctx)

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        await self._reached("writer")
        return FailingWriter(await super().writer(ctx, prepared), self._reached)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        await self._reached("commit")
        await super().commit(epoch, committables)


class FailingWriter:
    def __init__(self, writer: Writer[Any], reached: Callable[[str], Any]) -> None:
        self._writer = writer
        self._reached = reached

    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        await self._reached("write")
        await self._writer.write(values, timestamps)

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        await self._reached("prepare")
        return await self._writer.prepare(epoch, final)

    async def close(self) -> None:
        await self._writer.close()


async def error_of(flow: Flow) -> str:
    """Run a flow that must fail; return what its error says."""
    with pytest.raises(flowrt.FlowrtError) as error, anyio.fail_after(30):
        await Place().run(flow)
    return str(error.value)


def flow_of(source: flowrt.Source[int]) -> Flow:
    flow = Flow("stray")
    flow.source(source, name="numbers").sink(MemorySink(), name="out")
    return flow


@pytest.mark.parametrize("keyed", [False, True], ids=["beside the source", "in a task of its own"])
async def test_in_a_function_it_fails_the_flow_and_names_step_and_record(keyed: bool) -> None:
    flow = Flow("stray")
    numbers = flow.source([1, 2], name="numbers")
    if keyed:
        numbers = numbers.key_by(lambda number: number).map(lambda number: number, parallelism=2)
    numbers.map(in_map, name="ask").sink(MemorySink(), name="out")

    text = await error_of(flow)

    for part in ("operator 'ask'", "CancelledError", "the record"):
        assert part in text


@pytest.mark.parametrize("method", ["open", "process", "on_timer", "on_watermark"])
async def test_in_an_operator_it_fails_the_flow_and_names_it(method: str) -> None:
    flow = Flow("stray")
    in_order = flowrt.WatermarkStrategy.monotonous().with_timestamps(lambda number: number)
    numbers = flow.source([1, 2], name="numbers", watermarks=in_order)
    numbers.key_by(lambda number: number).process(Failing(method), name="ask").sink(MemorySink())

    text = await error_of(flow)

    assert "operator 'ask' raised CancelledError" in text


@pytest.mark.parametrize("method", ["splits", "reader", "read", "close"])
async def test_in_a_source_it_fails_the_flow_and_names_it(method: str) -> None:
    text = await error_of(flow_of(FailingSource(method)))

    assert "source 'numbers'" in text
    assert "CancelledError" in text


@pytest.mark.parametrize(
    "source",
    [lambda: IterableSource(read_once()), lambda: PositionedSource(pairs)],
    ids=["read once", "positioned"],
)
async def test_in_an_iterable_it_fails_the_flow(source: Callable[[], flowrt.Source[int]]) -> None:
    text = await error_of(flow_of(source()))

    assert "the iterable raised CancelledError" in text


@pytest.mark.parametrize("step", ["recover", "writer", "write", "prepare", "commit"])
async def test_in_a_sink_it_fails_the_flow_and_names_it(step: str) -> None:
    flow = Flow("stray")
    flow.source([1, 2], name="numbers").sink(FailingSink(step), name="out")

    text = await error_of(flow)

    assert "sink 'out'" in text
    assert "CancelledError" in text


async def test_a_task_that_is_cancelled_alone_fails_the_flow() -> None:
    place, sink = Place(), RecordingSink[int]()
    flow = Flow("stray")
    source = ScriptedSource[int]([1, PAUSE, 2])
    flow.source(source, name="numbers").sink(sink, name="out")
    with pytest.raises(flowrt.FlowrtError, match="was cancelled from outside"):
        async with place.start(flow) as job:
            await source.paused()
            name = f"flowrt {job.metrics().tasks[-1].task}"
            [task] = [task for task in asyncio.all_tasks() if task.get_name() == name]
            task.cancel()
            await job.wait()

    assert job.status().state == "failed"
