"""User code that raises a cancellation nobody asked the flow for: an error, never a silent end.

It comes from awaiting something that somebody else cancelled: a task, a future, a connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import pytest

import flowrt
from flowrt import (
    DeadLetter,
    FixedDelay,
    Flow,
    IterableSource,
    MemorySink,
    OnError,
    Operator,
    OutputTag,
    PositionedSource,
    ValueState,
)
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


# ------------------------------------------------------------------------ by a step's policy


class Moody:
    """Awaits what was cancelled, for some records, as often as it is told."""

    def __init__(self, times: int) -> None:
        self.asked: list[int] = []
        self._times = times

    async def __call__(self, number: int) -> int:
        self.asked.append(number)
        if number == 2 and self.asked.count(2) <= self._times:
            await cancelled()
        return number


async def test_a_call_is_tried_again() -> None:
    flow, out, ask = Flow("stray"), MemorySink[int](), Moody(times=2)
    numbers = flow.source([1, 2, 3], name="numbers")
    numbers.map_async(ask, retry=FixedDelay("10ms"), timeout="1m", name="ask").sink(out)

    await Place().run(flow)

    assert out.rows == [1, 2, 3]
    assert sorted(ask.asked) == [1, 2, 2, 2, 3]


async def test_a_call_of_many_is_tried_again() -> None:
    flow, out, times = Flow("stray"), MemorySink[int](), [1, 2]

    async def ask(numbers: list[int]) -> list[int]:
        if times:
            times.pop()
            await cancelled()
        return numbers

    numbers = flow.source([1, 2, 3], name="numbers")
    numbers.map_async_batch(ask, max_size=3, retry=FixedDelay("10ms"), name="ask").sink(out)

    await Place().run(flow)

    assert out.rows == [1, 2, 3]
    assert not times


async def test_a_call_that_stays_so_is_left_out_or_becomes_a_letter() -> None:
    bad = OutputTag[DeadLetter]("bad")
    flow, skipped, lettered = Flow("stray"), MemorySink[int](), MemorySink[int]()
    letters = MemorySink[DeadLetter]()
    numbers, twice = flow.source([1, 2, 3], name="numbers"), FixedDelay("10ms", 2)
    for on_error, out in ((OnError.skip(), skipped), (OnError.dead_letter(bad), lettered)):
        numbers.map_async(Moody(9), retry=twice, on_error=on_error).sink(out)
    flow.dead_letters(bad).sink(letters)

    await Place().run(flow)

    assert skipped.rows == lettered.rows == [1, 3]
    [letter] = letters.rows
    assert (letter.value, letter.error, letter.attempts) == (2, "CancelledError", 3)


async def test_a_timer_is_tried_again() -> None:
    flow, tries = Flow("stray"), Counter[int]()

    class Late(Operator[int, int]):
        def process(self, value: int, ctx: flowrt.Context) -> None:
            ctx.timers.register_event_time(value)

        async def on_timer(self, timestamp: int, ctx: flowrt.Context) -> None:
            tries[timestamp] += 1
            if tries[timestamp] < timestamp:
                await cancelled()
            ctx.emit(timestamp)

    in_order = flowrt.WatermarkStrategy.monotonous().with_timestamps(lambda number: number)
    out = MemorySink[int]()
    again = OnError.retry(FixedDelay("10ms", 3))
    numbers = flow.source([1, 2, 3], name="numbers", watermarks=in_order)
    numbers.key_by(lambda number: number).process(Late, name="late", on_error=again).sink(out)

    await Place().run(flow)

    assert out.rows == [1, 2, 3]
    assert tries == {1: 1, 2: 2, 3: 3}


class Summing(Operator[int, int]):
    """Emits the sum so far, and then awaits what may be cancelled."""

    total = ValueState(int, default=0)

    def __init__(self, ask: Moody) -> None:
        self._ask = ask

    async def process(self, value: int, ctx: flowrt.Context) -> None:
        self.total.set(self.total.get() + value)
        ctx.emit(self.total.get())
        await self._ask(value)


def asking(numbers: Any, step: str, ask: Moody, on_error: OnError) -> Any:
    """Put a step that asks behind a stream, of a kind."""

    async def keep(number: int) -> bool:
        return bool(await ask(number))

    async def many(number: int) -> list[int]:
        return [await ask(number)]

    match step:
        case "map":
            return numbers.map(ask, on_error=on_error, name="ask")
        case "filter":
            return numbers.filter(keep, on_error=on_error, name="ask")
        case "flat_map":
            return numbers.flat_map(many, on_error=on_error, name="ask")
    keyed = numbers.key_by(lambda number: 0)
    return keyed.process(Summing(ask), on_error=on_error, name="ask")


STEPS = pytest.mark.parametrize("step", ["map", "filter", "flat_map", "process"])
TWICE = FixedDelay("10ms", 2)


@STEPS
@pytest.mark.parametrize("on_error", [OnError.skip(), OnError.retry(TWICE, then=OnError.skip())])
async def test_a_step_goes_on_without_the_record(step: str, on_error: OnError) -> None:
    flow, out = Flow("stray"), MemorySink[int]()
    numbers = flow.source([1, 2, 3], name="numbers")
    asking(numbers, step, Moody(times=9), on_error).sink(out)

    await Place().run(flow)

    assert out.rows == ([1, 4] if step == "process" else [1, 3])


@STEPS
async def test_a_step_tries_again(step: str) -> None:
    flow, out = Flow("stray"), MemorySink[int]()
    numbers = flow.source([1, 2, 3], name="numbers")
    asking(numbers, step, Moody(times=2), OnError.retry(TWICE)).sink(out)

    await Place().run(flow)

    assert out.rows == ([1, 3, 6] if step == "process" else [1, 2, 3])


@STEPS
async def test_a_step_fails_the_flow_after_its_last_try(step: str) -> None:
    flow = Flow("stray")
    numbers = flow.source([1, 2, 3], name="numbers")
    asking(numbers, step, Moody(times=9), OnError.retry(TWICE)).sink(MemorySink())

    text = await error_of(flow)

    for part in ("operator 'ask'", "CancelledError", "at each of 3 tries"):
        assert part in text


async def test_a_worker_that_is_cancelled_alone_fails_the_flow_whatever_the_policy() -> None:
    place, flow, begun = Place(), Flow("stray"), anyio.Event()

    async def ask(number: int) -> int:
        begun.set()
        workers.append(asyncio.current_task())
        await anyio.sleep_forever()
        return number

    workers: list[asyncio.Task[Any] | None] = []
    numbers = flow.source(ScriptedSource[int]([1, PAUSE]), name="numbers")
    again = FixedDelay("10ms", 9)
    numbers.map_async(ask, retry=again, on_error=OnError.skip(), name="ask").sink(MemorySink())
    with pytest.raises(flowrt.FlowrtError, match="operator 'ask' raised CancelledError"):
        async with place.start(flow) as job:
            await begun.wait()
            [worker] = workers
            assert worker is not None
            worker.cancel()
            await job.wait()


# --------------------------------------------------------------------------- sources and sinks


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
