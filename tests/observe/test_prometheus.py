"""What Prometheus reads, read with its own parser."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from flowrt import ConfigError, FileSource, Flow, Job, MemorySink, WatermarkStrategy, start
from flowrt.observe.figures import FIGURES
from flowrt.observe.prometheus import CONTENT_TYPE, FlowCollector, exposition, serve
from flowrt.testing import ManualClock, manual_world
from tests.dataflow.kit import FedSource, Feed, settle

pytestmark = pytest.mark.anyio


def orders(name: str = "orders") -> Flow:
    flow = Flow(name)
    times = WatermarkStrategy.monotonous().with_timestamps(lambda value: value)
    flow.source([100, 201, 302], name="in", watermarks=times).filter(
        lambda value: value > 150, name="large"
    ).sink(MemorySink(), name="out")
    return flow


def parsed(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def values(family: Metric, **labels: str) -> list[float]:
    return [s.value for s in family.samples if labels.items() <= s.labels.items()]


async def finished(flow: Flow) -> Job:
    async with start(flow) as job:
        await job.wait()
    return job


async def test_records_by_operator() -> None:
    families = parsed(exposition(await finished(orders())))

    came, left = families["flowrt_records_in"], families["flowrt_records_out"]
    assert came.type == "counter"
    assert came.documentation.startswith("Records that came to an operator")
    assert {sample.name for sample in came.samples} == {"flowrt_records_in_total"}
    for operator, in_, out in (("in", 3, 3), ("large", 3, 2), ("out", 2, 2)):
        labels = {"flow": "orders", "operator": operator, "subtask": "0"}
        assert (values(came, **labels), values(left, **labels)) == ([in_], [out])


async def test_names_follow_the_conventions() -> None:
    families = parsed(exposition(await finished(orders())))

    assert {figure.name for figure in FIGURES if figure.unit}
    for figure in FIGURES:
        name = f"flowrt_{figure.name}" + (f"_{figure.unit}" if figure.unit else "")
        assert families[name].type == figure.kind, name
        assert families[name].documentation == figure.help
        assert not name.endswith("_ms")
        for sample in families[name].samples:
            assert sample.name == name + ("_total" if figure.kind == "counter" else "")
            assert sample.labels["flow"] == "orders"


async def test_times_queues_watermarks_and_epochs() -> None:
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    feed = Feed()
    feed.give(1_500, at=[1_500])
    flow = Flow("orders")
    times = WatermarkStrategy.monotonous()
    flow.source(FedSource({"a": feed}), name="in", watermarks=times).sink(MemorySink(), name="out")

    async with start(flow, world=world) as job:
        await settle()
        clock.advance(2_000)
        await settle()
        families = parsed(exposition(job))
        await job.cancel()

    out = {"task": "out", "subtask": "0"}
    assert values(families["flowrt_task_idle_seconds"], **out) == [2.0]
    assert values(families["flowrt_task_busy_seconds"], **out) == [0.0]
    assert values(families["flowrt_task_blocked_seconds"], **out) == [0.0]
    assert values(families["flowrt_queue_records"], **out) == [0]
    assert values(families["flowrt_queue_capacity_records"], **out) == [2_048]
    sink = {"operator": "out", "subtask": "0"}
    assert values(families["flowrt_watermark_timestamp_seconds"], **sink) == [1.499]
    assert values(families["flowrt_watermark_lag_seconds"], **sink) == [0.501]
    assert values(families["flowrt_epochs"]) == [1]
    assert values(families["flowrt_last_epoch"]) == [1]
    assert values(families["flowrt_last_epoch_age_seconds"]) == [0.0]
    phases = [s.labels["phase"] for s in families["flowrt_last_epoch_phase_seconds"].samples]
    assert phases == ["align", "freeze", "write", "commit"]
    assert values(families["flowrt_up"]) == [1]
    assert values(families["flowrt_bottleneck"]) == []


async def test_several_jobs_beside_a_services_own_metrics() -> None:
    registry = CollectorRegistry()
    registry.register(FlowCollector(await finished(orders("a")), await finished(orders("b"))))

    read: Mapping[str, Any] = {"operator": "in", "subtask": "0"}
    assert registry.get_sample_value("flowrt_records_in_total", {"flow": "a", **read}) == 3
    assert registry.get_sample_value("flowrt_records_in_total", {"flow": "b", **read}) == 3
    assert registry.get_sample_value("flowrt_up", {"flow": "a"}) == 0


async def test_it_can_be_served_from_a_thread() -> None:
    job = await finished(orders())
    port, stop = serve(0, job)
    try:
        text, kind = await anyio.to_thread.run_sync(_get, f"http://127.0.0.1:{port}/metrics")
        with pytest.raises(ConfigError, match=rf"metrics cannot be served on 127\.0\.0\.1:{port}"):
            serve(port, job)
    finally:
        stop()

    assert values(parsed(text)["flowrt_records_in"], operator="in") == [3]
    assert kind.split(";")[0] == CONTENT_TYPE.split(";")[0]


def _get(url: str) -> tuple[bytes, str]:
    with urllib.request.urlopen(url) as answer:
        return answer.read(), answer.headers["Content-Type"]


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="metrics cannot be served on"):
        serve(70_000)


async def test_what_a_source_counts_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text("1\nx\n2\n")
    flow = Flow("numbers")
    flow.source(FileSource(path, on_error="skip"), name="in").sink(MemorySink(), name="out")

    families = parsed(exposition(await finished(flow)))

    labels = {"flow": "numbers", "operator": "in", "counter": "skipped_lines"}
    assert values(families["flowrt_own_counts"], **labels) == [1]
    assert families["flowrt_own_counts"].type == "counter"
