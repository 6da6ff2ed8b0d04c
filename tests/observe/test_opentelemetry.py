"""Metrics and traces, read back from the SDK's exporters in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowrt import ConfigError, Flow, LiveSink, MemorySink, start
from flowrt.observe.figures import FIGURES
from flowrt.observe.opentelemetry import RunTracer, instrument
from flowrt.testing import ManualClock, ScriptedSource, manual_world
from tests.dataflow.kit import FedSource, Feed, settle

pytestmark = pytest.mark.anyio


class Spans:
    """A provider whose spans stay in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def children(self, parent: ReadableSpan) -> list[str]:
        assert parent.context is not None
        id = parent.context.span_id
        return [s.name for s in self.all if s.parent is not None and s.parent.span_id == id]


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()


def read(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: [
            (dict(point.attributes or {}), point.value)
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        ]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


# ------------------------------------------------------------------------------------ metrics


async def test_metrics_are_those_of_the_job() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    flow = Flow("orders")
    flow.source([1, 2, 3], name="in").map(str, name="text").sink(MemorySink(), name="out")

    async with start(flow) as job:
        stop = instrument(job, meter_provider=provider)
        await job.wait()
        seen = read(reader)
        stop()
        stop()
        after = read(reader)
    provider.shutdown()

    assert ({"flow": "orders", "operator": "text", "subtask": "0"}, 3) in seen["flowrt.records_in"]
    assert seen["flowrt.epochs"] == [({"flow": "orders"}, 1)]
    assert set(seen) <= {f"flowrt.{figure.name}" for figure in FIGURES}
    assert after == {}


async def test_what_a_sink_counts_by_itself_is_among_them() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    flow = Flow("orders")
    flow.source([1, 2, 3]).sink(LiveSink(), name="page")

    async with start(flow) as job:
        instrument(job, meter_provider=provider)
        await job.wait()
        seen = read(reader)
    provider.shutdown()

    labels = {"flow": "orders", "operator": "page", "counter": "missed_events"}
    assert seen["flowrt.own_counts"] == [(labels, 0)]


# ------------------------------------------------------------------------------------ epochs


async def test_an_epoch_is_a_span_with_its_phases(spans: Spans) -> None:
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    wait = clock.advance

    class Slow(MemorySink[int]):
        async def commit(self, epoch: int, prepared: Sequence[Any]) -> None:
            wait(30)
            await super().commit(epoch, prepared)

    flow = Flow("orders")
    flow.source(FedSource({"a": Feed(1)}), name="in").sink(Slow(), name="out")
    async with start(flow, world=world) as job:
        await settle()
        instrument(job, tracer_provider=spans.provider, meter_provider=MeterProvider())
        clock.advance(1_000)
        await settle()
        await job.cancel()

    [epoch] = spans.named("epoch")
    assert epoch.attributes is not None
    assert (epoch.attributes["flow"], epoch.attributes["flowrt.epoch"]) == ("orders", 1)
    assert (epoch.start_time, epoch.end_time) == (1_000_000_000, 1_030_000_000)
    assert epoch.parent is None
    [commit] = spans.named("commit")
    assert (commit.start_time, commit.end_time) == (1_000_000_000, 1_030_000_000)
    assert spans.children(epoch) == ["commit"]  # all else took no time


# ------------------------------------------------------------------------------------ runs


async def test_a_trace_goes_from_the_source_to_the_sinks(spans: Spans) -> None:
    inside: list[trace.SpanContext] = []

    def look(value: int) -> int:
        inside.append(trace.get_current_span().get_span_context())
        return value

    flow = Flow("orders")
    numbers = flow.source([7], name="in").start_new_chain().map(look, name="look")
    numbers.sink(MemorySink(), name="a")
    numbers.filter(lambda value: value > 7, name="none").sink(MemorySink(), name="b")

    async with start(flow, tracer=RunTracer(1, spans.provider)) as job:
        await job.wait()

    [source], [look_span] = spans.named("in"), spans.named("look")
    assert source.parent is None
    assert spans.children(source) == ["look"]
    # Nothing came to b: no span either.
    assert sorted(spans.children(look_span)) == ["a", "none"]
    assert spans.named("b") == []
    assert len({span.context.trace_id for span in spans.all if span.context}) == 1
    assert inside == [look_span.get_span_context()]
    assert look_span.attributes == {
        "flow": "orders",
        "flowrt.task": "look",
        "flowrt.subtask": 0,
        "flowrt.records": 1,
    }


async def test_one_run_in_so_many_is_traced_and_only_what_came_of_it(spans: Spans) -> None:
    feed = Feed()
    sink: MemorySink[int] = MemorySink()
    flow = Flow("orders")
    flow.source(FedSource({"a": feed}), name="in").sink(sink, name="out")
    async with start(flow, tracer=RunTracer(3, spans.provider)) as job:
        for number in range(7):
            feed.give(number)
            feed.give(number)
        await settle()
        await job.cancel()

    assert len(spans.named("in")) == 5
    assert len(spans.named("out")) == 5
    for span in spans.all:
        assert span.attributes is not None
        assert span.attributes["flowrt.records"] == 1


async def test_an_error_is_on_the_span(spans: Spans) -> None:
    flow = Flow("orders")
    flow.source(ScriptedSource([1]), name="in").start_new_chain().map(
        lambda value: 1 // 0, name="fails"
    ).sink(MemorySink(), name="out")

    with pytest.raises(Exception, match="fails"):
        async with start(flow, tracer=RunTracer(1, spans.provider)) as job:
            await job.wait()

    [span] = spans.named("fails")
    assert [event.name for event in span.events] == ["exception"]


async def test_a_trace_ends_where_answers_leave_one_by_one(spans: Spans) -> None:
    async def same(value: int) -> int:
        return value

    flow = Flow("orders")
    flow.source([1], name="in").map_async(same, name="calls").sink(MemorySink(), name="out")
    async with start(flow, tracer=RunTracer(1, spans.provider)) as job:
        await job.wait()

    assert [span.name for span in spans.all] == ["in", "calls"]


def test_one_in_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="one_in must be at least 1"):
        RunTracer(0)
