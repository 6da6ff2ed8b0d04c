"""Who may ask a job: not the flow itself for what waits for it, and nobody from another loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import flowrt
from flowrt import FlowrtError, Job, MemorySink, Operator, ValueState
from flowrt.testing.recording_sink import RecordingSink
from flowrt.testing.script import FAIL, PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio

Ask = Callable[[Job], Awaitable[Any]]

WAITING: dict[str, Ask] = {
    "wait": lambda job: job.wait(),
    "drain": lambda job: job.drain(),
    "savepoint": lambda job: job.savepoint("/savepoint"),
}


class Asking:
    """Asks its job at the record 2, in whatever part of the flow it is called."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.job: Job | None = None

    async def value(self, value: int) -> int:
        if value == 2:
            await self.now()
        return value

    async def values(self, values: list[int]) -> list[int]:
        return [await self.value(value) for value in values]

    async def each(self, value: int) -> None:
        await self.value(value)

    async def now(self) -> None:
        if self.job is not None:
            await self.ask(self.job)


def asking(asks: Asking, part: str, source: ScriptedSource[int]) -> flowrt.Flow:
    """A flow in which one part asks: "a" is its name."""
    flow = flowrt.Flow("asking")
    numbers = flow.source(source, name="in")

    class Step(Operator[int, int]):
        async def process(self, value: int, ctx: flowrt.Context) -> None:
            ctx.emit(await asks.value(value))

    class Sink(RecordingSink[int]):
        async def commit(self, *arguments: Any) -> None:
            await asks.now()
            await super().commit(*arguments)

    if part == "map":
        numbers.map(lambda n: n).map(asks.value, name="a").sink(MemorySink())
    elif part == "process":
        numbers.key_by(lambda n: n).process(Step, name="a").sink(MemorySink())
    elif part == "map_async":
        numbers.map_async(asks.value, name="a").map(lambda n: n).sink(MemorySink())
    elif part == "map_async_batch":
        numbers.map_async_batch(asks.values, max_size=2, name="a").sink(MemorySink())
    elif part == "sink":
        numbers.sink(flowrt.ForeachSink(asks.each), name="a")
    else:
        numbers.sink(Sink(), name="a")
    return flow


PARTS = ["map", "process", "map_async", "map_async_batch", "sink", "commit"]


@pytest.mark.parametrize("method", WAITING)
@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_the_flow_that_waits_for_its_job_is_refused_by_name(
    part: str, method: str
) -> None:
    place, asks = Place(), Asking(WAITING[method])
    source = ScriptedSource[int]([1, PAUSE, 2, 3, PAUSE])
    kind = "sink" if part in ("sink", "commit") else "operator"
    refused = (
        rf"{method}\(\) of job 'asking' was called from within {kind} 'a' of the same flow, which "
        "would wait for itself: start it in a task outside of the flow"
    )
    with pytest.raises(FlowrtError, match=refused):
        async with place.start(asking(asks, part, source)) as job:
            asks.job = job
            await source.paused()
            source.release()
            if part == "commit":
                place.clock.advance(1_000)
            await until(lambda: job.status().state == "failed")

    assert await place.files.names("/savepoint") == []


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_the_flow_may_cancel_its_job_and_is_cancelled_with_it(part: str) -> None:
    place, asks = Place(), Asking(lambda job: job.cancel())
    source = ScriptedSource[int]([1, PAUSE, 2, 3, PAUSE])

    async with place.start(asking(asks, part, source)) as job:
        asks.job = job
        await source.paused()
        source.release()
        if part == "commit":
            place.clock.advance(1_000)
        await job.wait()

    assert job.status().state == "cancelled"
    assert job.status().error is None


async def test_what_is_being_closed_may_cancel_its_job_and_holds_nothing_up() -> None:
    jobs: list[Job] = []

    class Step(Operator[int, int]):
        def process(self, value: int, ctx: flowrt.Context) -> None:
            ctx.emit(value)

        async def close(self) -> None:
            await jobs[0].cancel()
            closed.append("closed")

    closed: list[str] = []
    source = ScriptedSource[int]([1, PAUSE])
    flow = flowrt.Flow("closing")
    flow.source(source).process(Step).sink(MemorySink())
    async with Place().start(flow) as job:
        jobs.append(job)
        await source.paused()

    assert closed == ["closed"]


async def test_a_part_of_the_flow_may_ask_for_a_drain_without_waiting() -> None:
    async def request(job: Job) -> None:
        job.request_drain()

    place, asks = Place(), Asking(request)
    source = ScriptedSource[int]([1, PAUSE, 2, PAUSE])
    async with place.start(asking(asks, "map", source)) as job:
        asks.job = job
        await source.paused()
        source.release()
        await job.wait()

    assert job.status().state == "drained"


@pytest.mark.parametrize("part", ["map", "map_async"])
async def test_a_task_that_a_part_of_the_flow_starts_may_wait(part: str) -> None:
    place, source = Place(), ScriptedSource[int]([1, PAUSE, 2, PAUSE])
    epochs: list[int] = []

    async with anyio.create_task_group() as service:

        async def take(job: Job) -> None:
            epochs.append(await job.savepoint("/savepoint"))
            await job.drain()

        async def begin(job: Job) -> None:
            service.start_soon(take, job)

        asks = Asking(begin)
        async with place.start(asking(asks, part, source)) as job:
            asks.job = job
            await source.paused()
            source.release()
            await job.wait()

    assert epochs == [1]
    assert job.status().state == "drained"


async def test_a_job_within_another_jobs_operator_may_be_waited_for() -> None:
    place = Place()

    async def run_another(value: int) -> str:
        flow = flowrt.Flow("inner")
        flow.source([value]).sink(MemorySink())
        async with place.start(flow, checkpoints=f"/inner-{value}") as job:
            await job.wait()
        return job.status().state

    sink = MemorySink[str]()
    flow = flowrt.Flow("outer")
    flow.source([1, 2]).map(run_another).sink(sink)
    await place.run(flow)

    assert sink.rows == ["finished"] * 2


async def test_an_operator_that_is_opened_cannot_wait_for_its_own_state() -> None:
    asks = Asking(lambda job: job.state("reads").get(1))

    class Reads(Operator[int, int]):
        total = ValueState(int, default=0)

        async def open(self, ctx: flowrt.Context) -> None:
            await asks.now()

        def process(self, value: int, ctx: flowrt.Context) -> None:
            ctx.emit(value)

    place, source = Place(), ScriptedSource[int]([1, PAUSE, FAIL, 2])
    flow = flowrt.Flow("reading")
    flow.source(source).key_by(lambda n: n).process(Reads, name="reads").sink(MemorySink())
    restart = flowrt.FixedDelay("1s", attempts=1)

    with pytest.raises(FlowrtError, match="was called from within operator 'reads'"):
        async with place.start(flow, restart=restart) as job:
            await source.paused()
            asks.job = job
            source.release()
            await place.finish(job)


# ------------------------------------------------------------------------- other threads and loops

FROM_OUTSIDE: dict[str, Ask] = {
    **WAITING,
    "cancel": lambda job: job.cancel(),
    "lag": lambda job: job.lag(),
    r"state\(...\).get": lambda job: job.state("counts").get(1),
    r"state\(...\).get ": lambda job: job.state("counts").get(1, as_of="committed"),
    r"state\(...\).scan": lambda job: anext(aiter(job.state("counts").scan())),
}


def counting(source: ScriptedSource[int]) -> flowrt.Flow:
    flow = flowrt.Flow("counting")
    flow.source(source).key_by(lambda n: n).count(name="counts").output("out", policy="latest")
    return flow


def in_a_loop_of_its_own(ask: Ask, job: Job) -> BaseException | None:
    async def main() -> None:
        await ask(job)

    try:
        asyncio.run(main())
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("method", FROM_OUTSIDE)
async def test_another_threads_loop_is_refused_and_the_job_goes_on(method: str) -> None:
    place, source = Place(), ScriptedSource[int]([1, PAUSE, 2])
    async with place.start(counting(source)) as job:
        await source.paused()
        await place.epoch(job)

        error = await anyio.to_thread.run_sync(in_a_loop_of_its_own, FROM_OUTSIDE[method], job)

        assert type(error) is FlowrtError
        assert re.match(
            rf"{method.strip()}\(\) of job 'counting' was called from outside of the event loop",
            str(error),
        )
        assert "anyio.from_thread.run" in str(error)
        assert "asyncio.run_coroutine_threadsafe" in str(error)
        await turns()
        assert job.status().state == "running"
        source.release()
        await job.wait()
    assert job.status().state == "finished"


@pytest.mark.parametrize("method", ["request_drain", "output"])
async def test_so_is_a_thread_without_a_loop(method: str) -> None:
    place, source = Place(), ScriptedSource[int]([1, PAUSE, 2])
    async with place.start(counting(source)) as job:
        await source.paused()
        call = job.request_drain if method == "request_drain" else lambda: job.output("out")
        with pytest.raises(
            FlowrtError, match=rf"{method}\(\) of job .* anyio.from_thread.run_sync"
        ):
            await anyio.to_thread.run_sync(call)
        assert job.status().state == "running"


async def test_a_thread_may_look_and_have_the_loop_ask() -> None:
    place, source = Place(), ScriptedSource[int]([1, PAUSE, 2])

    def look_and_stop() -> tuple[str, int]:
        seen = job.status().state, job.metrics().records_in
        anyio.from_thread.run_sync(job.request_drain)
        return seen

    async with place.start(counting(source)) as job:
        await source.paused()
        assert await anyio.to_thread.run_sync(look_and_stop) == ("running", 1)
        await job.wait()
    assert job.status().state == "drained"


async def test_when_the_job_has_ended_everybody_may_ask() -> None:
    place, source = Place(), ScriptedSource[int]([1])
    async with place.start(counting(source)) as job:
        await job.wait()

    def ask() -> None:
        assert in_a_loop_of_its_own(lambda job: job.wait(), job) is None
        job.request_drain()

    await anyio.to_thread.run_sync(ask)
