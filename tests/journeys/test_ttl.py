"""A job whose state has a time to live: memory and files are given back, nothing comes again."""

from __future__ import annotations

from typing import Any

import pytest

import flowrt
from flowrt import (
    ConfigError,
    Flow,
    MemorySink,
    Operator,
    StateError,
    Ttl,
    ValueState,
    WatermarkStrategy,
)
from flowrt.testing.script import PAUSE, record
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio


def counting(source: flowrt.Source[Any], sink: flowrt.Sink[Any], ttl: Ttl) -> Flow:
    class Count(Operator[str, tuple[str, int]]):
        """Counts each word, as long as it comes again in time."""

        count = ValueState(int, default=0, ttl=ttl)

        def process(self, word: str, ctx: flowrt.Context) -> None:
            self.count.set(self.count.get() + 1)
            ctx.emit((word, self.count.get()))

    flow = Flow("counting")
    keyed = flow.source(source, name="words").key_by(str)
    keyed.process(Count, name="count", parallelism=2).sink(sink, name="out", parallelism=1)
    return flow


def entries(job: flowrt.Job) -> int:
    """How many entries the job's state holds in memory."""
    return sum(backend.size() for backend in job._live._backends["count"])


async def test_by_the_clock_memory_is_given_back_without_a_record() -> None:
    place, sink = Place(), MemorySink[Any]()
    words = [f"word {number}" for number in range(700)]
    source = ScriptedSource[str](
        [*words, "again", PAUSE, "again", PAUSE, "again", PAUSE, "again", PAUSE]
    )
    async with place.start(counting(source, sink, Ttl("10s"))) as job:
        counts = job.state("count")
        await source.paused()
        await until(lambda: entries(job) == 701)
        await place.epoch(job)
        place.clock.advance(6_000)
        source.release()
        await until(lambda: job.metrics().records_in == 702)
        await turns(50)
        assert await counts.get("again") == 2
        place.clock.advance(4_000)
        await until(lambda: entries(job) == 1)
        assert await counts.get("word 1", as_of="committed") is None
        assert [pair async for pair in counts.scan()] == [("again", 2)]
        source.release()
        await until(lambda: job.metrics().records_in == 703)
        await turns(50)
        assert await counts.get("again") == 3
        place.clock.advance(10_000)
        assert await counts.get("again") is None, "also before its memory is given back"
        await until(lambda: entries(job) == 0)
        source.release()
        await until(lambda: job.metrics().records_in == 704)
        await turns(50)
        assert await counts.get("again") == 1


async def test_a_restore_brings_nothing_back_that_had_expired_or_has_since() -> None:
    place, sink = Place(), MemorySink[Any]()
    script = ["old", PAUSE, "new", PAUSE, "old", "new", "between", PAUSE]
    source = ScriptedSource[str](script)
    async with place.start(counting(source, sink, Ttl("10s"))) as job:
        await source.paused()
        await turns()
        place.clock.advance(9_000)
        source.release()
        await until(lambda: job.metrics().records_in == 2)
        await turns()
    place.clock.advance(2_000)
    source = ScriptedSource[str](script)
    async with place.start(counting(source, sink, Ttl("10s"))) as job:
        counts = job.state("count")
        assert await counts.get("old") is None
        assert await counts.get("new") == 1
        source.release()
        source.release()
        await until(lambda: job.metrics().records_in == 5)
        await turns()
        assert await counts.get("old") == 1
        assert await counts.get("new") == 2


async def test_in_event_time_the_watermark_counts_and_the_end_of_the_input_does_not() -> None:
    place, sink = Place(), MemorySink[Any]()
    ttl = Ttl("10s", time="event")
    source = ScriptedSource[str](
        [record("a", at=1_000), record("b", at=9_000), PAUSE, record("c", at=11_001), PAUSE,
         record("a", at=12_000), record("late", at=100), PAUSE]
    )  # fmt: skip
    source.watermarks = WatermarkStrategy.monotonous()
    async with place.start(counting(source, sink, ttl)) as job:
        counts = job.state("count")
        await source.paused()
        await turns()
        assert await counts.get("a") == 1
        await place.epoch(job)
        source.release()
        await until(lambda: job.metrics().records_in == 3)
        await turns()
        assert await counts.get("a") is None
        assert await counts.get("a", as_of="committed") == 1
        assert await counts.get("b") == 1
        place.clock.advance(100_000)
        await turns()
        source.release()
        await until(lambda: job.metrics().records_in == 5)
        await turns()
        assert await counts.get("a") == 1
        assert await counts.get("late") == 1, "it has its whole life before it"
        source.release()
        await place.finish(job)
        left = {pair async for pair in counts.scan(as_of="committed")}
        assert left == {("a", 1), ("b", 1), ("c", 1), ("late", 1)}


async def test_event_time_without_any_is_refused() -> None:
    source = ScriptedSource[str](["a"])
    with pytest.raises(StateError, match="give the source watermarks"):
        await Place().run(counting(source, MemorySink[Any](), Ttl("10s", time="event")))


def test_a_wrong_ttl_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 ms"):
        ValueState(int, ttl="0s")
    with pytest.raises(ConfigError, match="not a duration"):
        ValueState(int, ttl="soon")
    with pytest.raises(ConfigError, match="choose 'processing' or 'event'"):
        Ttl("1s", time="other")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="choose 'write' or 'read'"):
        Ttl("1s", refresh="never")  # type: ignore[arg-type]
    assert ValueState(int, ttl="1s").ttl == Ttl("1s")
