"""Outputs: a service iterates over what its flow makes, in its own time."""

from __future__ import annotations

import gc
import logging
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from flowrt.contract.errors import ConfigError, OperatorError
from flowrt.contract.retry import FixedDelay
from flowrt.runtime.job import start
from flowrt.runtime.output import JobOutput, OutputIterator, Policy, When
from flowrt.stream.flow import Flow
from flowrt.testing import FAIL, PAUSE, ScriptedSource, check_sink, manual_world
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio


def numbers(count: int, **options: Any) -> Flow:
    flow = Flow("numbers")
    flow.source(range(count)).output("numbers", **options)
    return flow


def scripted(*script: Any, **options: Any) -> tuple[Flow, ScriptedSource[int]]:
    flow, source = Flow("numbers"), ScriptedSource[int](script)
    flow.source(source).output("numbers", **options)
    return flow, source


async def taken(iterator: OutputIterator[Any], count: int) -> list[Any]:
    return [await anext(iterator) for _ in range(count)]


async def rest(iterator: OutputIterator[Any]) -> list[Any]:
    return [value async for value in iterator]


# ------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("when", ["at_once", "committed"])
@pytest.mark.parametrize("policy", ["wait", "drop_oldest"])
async def test_an_iteration_gets_everything_and_ends_with_the_job(
    when: When, policy: Policy
) -> None:
    async with start(numbers(100, when=when, policy=policy), world=manual_world()) as job:
        got = await rest(job.output("numbers"))

        assert got == list(range(100))
        assert await rest(job.output("numbers")) == []
    assert job.metrics().dropped == {}


async def test_it_raises_what_the_job_failed_with_behind_the_last_value() -> None:
    flow, source = Flow("f"), ScriptedSource[int]([1, 2, PAUSE, 0])
    flow.source(source).map(lambda value: 10 // value).output("numbers")

    with pytest.raises(OperatorError, match="ZeroDivisionError"):  # on leaving, as for any job
        async with start(flow, on_failure="keep", world=manual_world()) as job:
            iterator = job.output("numbers")
            assert await taken(iterator, 1) == [10]
            source.release()
            assert await taken(iterator, 1) == [5]
            for late in (iterator, job.output("numbers")):
                with pytest.raises(OperatorError, match="ZeroDivisionError"):
                    await anext(late)


async def test_the_body_that_hears_of_a_failure_raises_it_once() -> None:
    flow = Flow("f")
    flow.source([0]).map(lambda value: 10 // value).output("numbers")

    with pytest.raises(OperatorError, match="ZeroDivisionError"):
        async with start(flow, world=manual_world()) as job:
            await rest(job.output("numbers"))


async def test_it_ends_when_the_job_is_cancelled() -> None:
    flow, _ = scripted(1, 2, PAUSE)

    async with start(flow, world=manual_world()) as job:
        iterator = job.output("numbers")
        assert await taken(iterator, 2) == [1, 2]
        await job.cancel()
        assert await rest(iterator) == []


# --------------------------------------------------------------------------- several iterators


async def test_each_iterator_gets_every_value_from_when_it_was_made() -> None:
    flow, source = scripted(1, 2, PAUSE, 3, 4)

    async with start(flow, world=manual_world()) as job:
        first = job.output("numbers")
        assert await taken(first, 2) == [1, 2]
        second = job.output("numbers")
        source.release()

        assert await rest(second) == await rest(first) == [3, 4]


async def test_values_wait_for_the_first_iterator_and_for_the_next_after_the_last() -> None:
    async with start(numbers(10, capacity=4), world=manual_world()) as job:
        await turns()
        got = []
        async for value in job.output("numbers"):
            got.append(value)
            if value == 2:
                break
        gc.collect()
        await turns()
        async with aclosing(job.output("numbers")) as second:
            got += await taken(second, 3)
        assert await rest(second) == []
        got += await rest(job.output("numbers"))

    assert got == list(range(10))


# --------------------------------------------------------------------------------- backpressure


async def test_the_flow_waits_for_the_slowest_iterator() -> None:
    async with start(numbers(50_000, capacity=10), channel_capacity=4, world=manual_world()) as job:
        fast, slow = job.output("numbers"), job.output("numbers")
        assert await taken(fast, 10) == list(range(10))
        await turns()
        assert job.metrics().records_in < 10_000
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(fast)
        assert await taken(slow, 5) == list(range(5))
        assert await taken(fast, 5) == list(range(10, 15))
        del slow
        gc.collect()

        assert await rest(fast) == list(range(15, 50_000))


async def test_the_flow_waits_while_nobody_iterates_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "flowrt"):
        async with start(numbers(30_000, capacity=5), world=manual_world()) as job:
            await turns()
            assert job.status().state == "running"
            assert job.metrics().dropped == {}
            for _ in range(3):
                async with aclosing(job.output("numbers")) as iterator:
                    await anext(iterator)
                await turns()

    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == (
        "output 'numbers' is full and the flow waits: iterate over job.output('numbers'), or "
        "declare it with a policy that drops"
    )


@pytest.mark.parametrize("when", ["at_once", "committed"])
async def test_leaving_does_not_wait_for_who_stopped_iterating(when: When) -> None:
    place = Place()
    flow = numbers(1_000_000, capacity=3, when=when)

    async with place.passing_time(), place.start(flow) as job:
        iterator = job.output("numbers")
        assert await taken(iterator, 3) == [0, 1, 2]

    assert job.status().state == "drained"
    # What was on its way is there for who still wants it, and nothing is missing.
    got = await rest(iterator)
    assert got == list(range(3, 3 + len(got)))
    assert job.metrics().records_in == 3 + len(got)


async def test_the_body_of_an_iteration_can_drain() -> None:
    got = []
    async with start(numbers(1_000_000, capacity=1), world=manual_world()) as job:
        async for value in job.output("numbers"):
            got.append(value)
            if value == 5:
                await job.drain()

    assert got == list(range(len(got)))
    assert job.status().state == "drained"


# ------------------------------------------------------------------------------------- dropping


@pytest.mark.parametrize(
    ("policy", "capacity", "kept"),
    [
        ("drop_oldest", 3, [7, 8, 9]),
        ("drop_newest", 3, [0, 1, 2]),
        ("latest", None, [9]),
        ("wait", None, list(range(10))),
    ],
)
@pytest.mark.parametrize("when", ["at_once", "committed"])
async def test_what_has_no_room_is_dropped_and_counted(
    policy: Policy, capacity: int | None, kept: list[int], when: When
) -> None:
    flow = numbers(10, policy=policy, capacity=capacity, when=when)

    async with start(flow, world=manual_world()) as job:
        iterator = job.output("numbers")
        await job.wait()

        assert await rest(iterator) == kept
    assert job.metrics().dropped == ({} if policy == "wait" else {"numbers": 10 - len(kept)})


async def test_each_iterator_loses_for_itself() -> None:
    flow, source = scripted(1, 2, PAUSE, 3, 4, policy="drop_newest", capacity=2)

    async with start(flow, world=manual_world()) as job:
        slow, quick = job.output("numbers"), job.output("numbers")
        assert await taken(quick, 2) == [1, 2]
        source.release()
        assert await rest(quick) == [3, 4]
        assert await rest(slow) == [1, 2]

    assert job.metrics().dropped == {"numbers": 2}


# ------------------------------------------------------------------------------------- restarts


async def test_at_once_values_since_the_last_epoch_come_again_after_a_restart() -> None:
    place = Place()
    flow, source = scripted(1, 2, PAUSE, 3, FAIL, 4)

    async with place.start(flow, restart=FixedDelay("1ms")) as job:
        iterator = job.output("numbers")
        assert await taken(iterator, 2) == [1, 2]
        await place.epoch(job)
        source.release()
        async with place.passing_time():
            got = await rest(iterator)

    assert got in ([3, 3, 4], [3, 4])


async def test_committed_values_come_once_whatever_fails_in_the_process() -> None:
    place = Place()
    flow, source = scripted(1, FAIL, 2, PAUSE, 3, FAIL, 4, when="committed")

    async with place.start(flow, restart=FixedDelay("1ms")) as job:
        iterator = job.output("numbers")
        await until(lambda: job.status().state == "restarting")
        async with place.passing_time():
            assert await taken(iterator, 2) == [1, 2]
            source.release()
            assert await rest(iterator) == [3, 4]

    assert job.status().restarts == 2


@pytest.mark.parametrize("when", ["at_once", "committed"])
async def test_laws(when: When) -> None:
    # A process that ends takes its iterators with it: here only the job dies.
    outputs: dict[str, JobOutput[str]] = {}

    def make(place: str) -> JobOutput[str]:
        return outputs.setdefault(place, JobOutput("letters", when=when))

    await check_sink(make, list("abcdefg"), lambda place: list(outputs[place]._unclaimed.values))


# ------------------------------------------------------------------------------- what is refused


async def test_outputs_are_found_by_name_or_by_what_declared_them() -> None:
    flow = Flow("f")
    stream = flow.source([1])
    one = stream.output("one")
    stream.map(str).output("two")
    other = Flow("g").source([1]).output("one")

    async with start(flow, world=manual_world()) as job:
        assert await rest(job.output(one)) == [1]
        assert await rest(job.output("two")) == ["1"]
        with pytest.raises(ConfigError, match="has no output 'three'; its outputs are: 'one', 'tw"):
            job.output("three")
        with pytest.raises(ConfigError, match="has no output 'one' of another flow"):
            job.output(other)


async def test_an_output_belongs_to_one_job_at_a_time() -> None:
    flow = numbers(3)
    async with start(flow, world=manual_world()) as job:
        with pytest.raises(ConfigError, match="'numbers' belongs to a job that runs"):
            async with start(flow, world=manual_world()):
                pass
        first = job.output("numbers")
        assert await rest(first) == [0, 1, 2]

    async with start(flow, world=manual_world()) as job:
        assert await rest(job.output("numbers")) == [0, 1, 2]
        assert await rest(first) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"policy": "drop"}, "has policy='drop': choose one of wait, drop_oldest, drop_newest, la"),
        ({"when": "later"}, "has when='later': choose 'at_once' or 'committed'"),
        ({"capacity": 0}, "has capacity=0: it is in values, at least 1"),
        ({"policy": "latest", "capacity": 5}, "'latest' keeps one value, so it takes no capacity"),
    ],
)
async def test_options_are_checked_when_the_flow_is_described(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        numbers(1, **options)

    assert text in str(caught.value)


async def test_outputs_are_explained() -> None:
    assert JobOutput("a").describe() == "output of the job (at once; wait, 1000 values)"
    assert (
        JobOutput("a", policy="latest", when="committed").describe()
        == "output of the job (by epochs; latest, 1 value)"
    )


async def test_an_iterator_that_was_closed_gives_nothing() -> None:
    async with start(numbers(3), world=manual_world()) as job:
        iterator = job.output("numbers")
        assert aiter(iterator) is iterator
        await iterator.aclose()
        await iterator.aclose()
        assert await rest(iterator) == []
        assert await rest(job.output("numbers")) == [0, 1, 2]


async def test_where_nobody_can_iterate_values_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with start(numbers(5_000, capacity=1), world=manual_world()) as job:
        with caplog.at_level(logging.WARNING, "flowrt"):
            job.discard_outputs()
        await job.wait()

    assert "nobody can iterate over output 'numbers' here" in caplog.text
    assert job.metrics().dropped["numbers"] > 4_990
