"""A drawn flow as a real one: each life of the job has parallelisms of its own."""

from __future__ import annotations

from typing import Any, Final

from flowrt import FileSink, Flow, Operator, Sink, WatermarkStrategy
from flowrt.stream.stream import Stream
from tests.simulate.ends import Event, ShelfSource, TableSink
from tests.simulate.machine import Process
from tests.simulate.operators import ODD, TICKS, Delayed, Running, Same, Tally, Windows
from tests.simulate.spec import NUMBERED, BranchSpec, SinkSpec, SourceSpec, Spec, Stage

OUTPUT: Final = "/out"
SIDE_TAGS: Final = {"odd": ODD, "ticks": TICKS}


def build_flow(spec: Spec, process: Process) -> Flow:
    """Return the flow that a process runs."""
    # The way to the exchange has one parallelism, so that the records of a key stay in order.
    front = process.chance.choice([1, 1, 2, 3, 4])
    flow = Flow("simulated", parallelism=spec.front if spec.has_calls else front)
    in_time = any(branch.kind in ("windows", "delayed", "tally") for branch in spec.branches)
    streams = [_source(flow, source, process, in_time) for source in spec.sources]
    for branch in spec.branches:
        first, *others = [streams[number] for number in branch.sources]
        _branch(branch, first.union(*others) if others else first, process)
    return flow


def _source(flow: Flow, source: SourceSpec, process: Process, in_time: bool) -> Stream[Event]:
    watermarks = WatermarkStrategy.bounded_out_of_orderness(f"{source.disorder_ms}ms")
    watermarks = watermarks.with_timestamps(lambda event: event.at)
    # A split that is not open yet holds nothing back: its records may come late.
    open_splits = 0 if in_time else source.open_splits
    name = source.shelf.name
    stream = flow.source(ShelfSource(source.shelf, process, watermarks, open_splits), name=name)
    for number, stage in enumerate(source.stages):
        stream = _stage(stream, stage, f"{name}-{number}", process)
    return stream


def _stage(stream: Stream[Event], stage: Stage, name: str, process: Process) -> Stream[Event]:
    if stage.new_chain:
        stream = stream.start_new_chain()
    if stage.kind == "filter":
        return stream.filter(stage.apply, name=name)
    if stage.kind == "map":
        return stream.map(lambda event: stage.apply(event)[0], name=name)
    if stage.kind == "double":
        return stream.flat_map(stage.apply, name=name)

    async def slowly(event: Event) -> Event:
        await process.dawdle()
        return stage.apply(event)[0]

    async def slowly_together(events: list[Event]) -> list[Event]:
        return [await slowly(event) for event in events]

    capacity = process.chance.choice([1, 3, 100])
    if stage.kind == "calls":
        return stream.map_async(slowly, name=name, capacity=capacity, type=Event)
    if stage.kind == "batched calls":
        return stream.map_async_batch(
            slowly_together, max_size=min(capacity, 5), name=name, capacity=capacity, type=Event
        )
    return stream.map(slowly, name=name)


def _branch(branch: BranchSpec, stream: Stream[Event], process: Process) -> None:
    parallelism = process.chance.randint(1, 4)
    out = _steps(branch, stream, process, parallelism)
    for sink in branch.sinks:
        ordered = branch.kind in NUMBERED
        subtasks = parallelism if ordered else process.chance.randint(1, 4)
        taken = out if sink.takes == "main" else out.side_output(SIDE_TAGS[sink.takes])
        taken.sink(_sink(sink, process), name=sink.name, parallelism=subtasks)


def _steps(
    branch: BranchSpec, stream: Stream[Event], process: Process, parallelism: int
) -> Stream[Any]:
    name: dict[str, Any] = {"name": branch.name, "parallelism": parallelism}
    if branch.kind == "tally":
        return stream.process(lambda: Tally(process), **name)
    if branch.kind in ("same", "windows", "delayed"):
        by_key = stream.key_by(lambda event: event.key, name=f"{branch.name}-key")
        kinds: dict[str, type[Operator[Any, Any]]] = {
            "same": Same,
            "windows": Windows,
            "delayed": Delayed,
        }
        make: Any = kinds[branch.kind]
        return by_key.process(lambda: make(process), **name)
    by_split = stream.key_by(lambda e: (e.split, e.key, e.copy), name=f"{branch.name}-key")
    if branch.kind == "running":
        return by_split.process(lambda: Running(process), **name)
    if branch.kind == "count":
        return by_split.count(**name)
    if branch.kind == "max":
        return by_split.max(lambda event: event.number % 13, **name)
    if branch.kind == "reduce":
        return by_split.reduce(lambda one, two: two if two.number % 3 else one, **name)
    counted = by_split.count(name=f"{branch.name}-first", parallelism=process.chance.randint(1, 4))
    return counted.key_by(lambda row: row[1] % 3, name=f"{branch.name}-again").count(**name)


def _sink(sink: SinkSpec, process: Process) -> Sink[Any]:
    if sink.kind == "file":
        return FileSink(f"{OUTPUT}/{sink.name}", roll_epochs=sink.roll_epochs)
    return TableSink(sink.table, process, sink.kind)
