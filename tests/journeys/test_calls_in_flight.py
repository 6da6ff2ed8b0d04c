"""Whole jobs that ask a service: epochs, restarts, drains and savepoints with calls under way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

import flowrt
from flowrt import CheckpointError, FixedDelay, Flow, MemorySink, OperatorError, OutputTag
from flowrt.testing.script import FAIL, PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.dataflow.async_kit import Service
from tests.journeys.kit import FOLDER, Place, turns, until

pytestmark = pytest.mark.anyio

ODD: OutputTag[int] = OutputTag("odd")


def asking(source: flowrt.Source[Any], service: Service, sink: Any, **options: Any) -> Flow:
    flow = Flow("asking")
    options = {"capacity": 2, "name": "ask", **options}
    flow.source(source, name="in").map_async(service.call, **options).sink(sink, name="out")
    return flow


async def to_the_end(place: Place, job: flowrt.Job, service: Service) -> None:
    """Answer whatever is asked until the job ended."""
    async with place.passing_time():
        while job.status().state == "running":
            service.answer_soon(*service.under_way)
            await turns(1)
    await job.wait()


async def epoch_without_answers(place: Place, job: flowrt.Job) -> None:
    """Let an epoch commit that waits for room first, until it is clear that no answer comes."""
    before = job.status().epoch
    async with place.passing_time():
        await until(lambda: job.status().epoch != before)


async def test_epochs_commit_while_no_answer_comes_and_answers_come_once() -> None:
    place, sink, service = Place(), MemorySink[str](), Service()
    source = ScriptedSource[int]([*range(10), PAUSE, *range(10, 20)])
    async with place.start(asking(source, service, sink), channel_capacity=4) as job:
        await until(lambda: service.under_way == [0, 1])
        for _ in range(3):
            await epoch_without_answers(place, job)
        assert sink.rows == []
        source.release()
        await to_the_end(place, job, service)
    assert sink.rows == [str(number) for number in range(20)]
    assert service.asked == list(range(20))


async def test_a_restart_asks_again_for_what_was_in_flight() -> None:
    place, sink, service = Place(), MemorySink[str](), Service()
    source = ScriptedSource[int]([1, 2, 3, PAUSE, FAIL, 4])
    async with place.start(asking(source, service, sink), restart=FixedDelay("1s")) as job:
        await source.paused()
        await until(lambda: service.under_way == [1, 2])
        service.answer_soon(1)
        await until(lambda: service.under_way == [2, 3])
        await place.epoch(job)
        service.answer_soon(2)  # and what comes of it is lost with the attempt
        await until(lambda: service.under_way == [3])
        source.release()
        await until(lambda: job.status().state == "restarting")
        place.clock.advance(1_000)
        await until(lambda: service.asked == [1, 2, 3, 2, 3])
        await to_the_end(place, job, service)
    assert sink.rows == ["1", "2", "3", "4"]


async def test_a_call_that_fails_restarts_the_job_and_is_made_again() -> None:
    place, sink = Place(), MemorySink[int]()
    asked: Counter[int] = Counter()

    async def shaky(number: int) -> int:
        asked[number] += 1
        if number == 3 and asked[number] == 1:
            raise OSError("connection refused")
        return number

    flow = Flow("shaky")
    flow.source(range(5)).map_async(shaky).sink(sink)
    await place.run(flow, restart=FixedDelay("1s"))
    assert sink.rows == list(range(5))


async def test_a_call_that_fails_ends_a_job_that_does_not_restart() -> None:
    async def refuses(number: int) -> int:
        raise OSError("connection refused")

    flow = Flow("refused")
    flow.source([7]).map_async(refuses, name="ask").sink(MemorySink())
    with pytest.raises(OperatorError, match=r"operator 'ask' raised OSError.* at the record 7"):
        async with Place().start(flow) as job:
            await job.wait()


async def test_a_drain_waits_for_answers_and_a_cancel_does_not() -> None:
    place, sink, service = Place(), MemorySink[str](), Service()
    source = ScriptedSource[int]([1, 2, 3, PAUSE, 4])
    async with place.start(asking(source, service, sink)) as job:
        await until(lambda: service.under_way == [1, 2])
        await place.epoch(job)
        await job.cancel()
    assert service.under_way == []

    async with place.start(asking(source, service, sink)) as job:
        await until(lambda: service.under_way == [1, 2])
        drained: list[bool] = []

        async def drain() -> None:
            await job.drain()
            drained.append(True)

        async with anyio.create_task_group() as group:
            group.start_soon(drain)
            await turns()
            assert not drained
            while not drained:
                service.answer_soon(*service.under_way)
                await turns(1)
    assert job.status().state == "drained"
    assert sink.rows == ["1", "2", "3"]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 2)])
@pytest.mark.parametrize("ordered", [True, False])
async def test_records_in_flight_come_along_to_any_parallelism(
    before: int, after: int, ordered: bool
) -> None:
    place, sink, service = Place(), MemorySink[str](), Service()
    source = ScriptedSource[int]([*range(20), PAUSE, *range(20, 30)])
    options: Any = {"ordered": ordered, "capacity": 3}
    flow = asking(source, service, sink, parallelism=before, **options)
    async with place.start(flow) as job:
        await until(lambda: len(service.under_way) >= 3)
        await epoch_without_answers(place, job)
        async with place.passing_time():
            await job.savepoint("/savepoint")
        await job.cancel()
    again = Service()
    flow = asking(source, again, sink, parallelism=after, **options)
    source.release()
    async with place.start(flow, checkpoints="/other", restore="/savepoint") as job:
        await to_the_end(place, job, again)
    assert sorted(sink.rows, key=int) == [str(number) for number in range(30)]
    if ordered and after == 1:
        first = [row for row in sink.rows if int(row) >= 20]
        assert sink.rows[-10:] == first == [str(number) for number in range(20, 30)]


async def test_another_step_of_that_name_does_not_swallow_what_is_in_flight() -> None:
    place, service = Place(), Service()
    source = ScriptedSource[int]([1, 2, PAUSE, 3])
    async with place.start(asking(source, service, MemorySink())) as job:
        await source.paused()
        await until(lambda: service.under_way == [1, 2])
        await place.epoch(job)
        await job.cancel()
    changed = Flow("asking")
    changed.source(source, name="in").map(str, name="ask").sink(MemorySink(), name="out")
    with pytest.raises(CheckpointError, match="records in flight for operator 'ask'"):
        async with place.start(changed) as job:
            await job.wait()

    # Once all is answered there is nothing to lose.
    async with place.start(asking(source, service, MemorySink())) as job:
        source.release()
        await to_the_end(place, job, service)
    await place.run(changed)


async def test_a_type_without_a_form_is_refused_only_where_something_is_kept() -> None:
    class Thing:
        pass

    async def same(thing: Thing) -> Thing:
        return thing

    def things() -> tuple[Flow, MemorySink[Thing]]:
        flow, sink = Flow("things"), MemorySink[Thing]()
        flow.source([Thing(), Thing()]).map_async(same, name="ask").sink(sink)
        return flow, sink

    flow, sink = things()
    await Place().run(flow, checkpoints=None)
    assert len(sink.rows) == 2
    flow, _ = things()
    with pytest.raises(flowrt.StateError, match="operator 'ask', a record in flight"):
        await Place().run(flow, checkpoints=FOLDER)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once", "at_most_once"])
async def test_among_other_steps(delivery: str) -> None:
    def part(number: int, ctx: flowrt.Context) -> None:
        if number % 2:
            ctx.side(ODD, number)
        else:
            ctx.emit(number)

    async def tenfold(number: int) -> int:
        return number * 10

    async def halves(numbers: list[int]) -> list[int]:
        return [number // 2 for number in numbers]

    place, sink = Place(), MemorySink[Any]()
    flow = Flow("many", parallelism=2)
    parted = flow.source(list(range(40)), name="in").process(part)
    odd = parted.side_output(ODD).map_async(tenfold, ordered=False)
    even = parted.key_by(lambda number: number % 4).map_async(tenfold)
    both = odd.union(even).map_async(tenfold).map_async_batch(halves, max_size=3)
    both.key_by(lambda number: number % 100).count().sink(sink)
    folder = None if delivery == "at_most_once" else FOLDER
    await place.run(flow, checkpoints=folder, delivery=delivery)

    counts = Counter(dict(sink.rows))
    assert counts == Counter(number * 50 % 100 for number in range(40))
    assert len(sink.rows) == 40
