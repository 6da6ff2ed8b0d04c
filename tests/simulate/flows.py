"""A drawn flow as a real one: each life of the job has parallelisms of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from flowrt import DeadLetter, FileSink, Flow, Operator, OutputTag, Sink, WatermarkStrategy
from flowrt.stream.stream import Stream
from tests.simulate.ageing import Ageing
from tests.simulate.calls import add_calls
from tests.simulate.ends import Event, ShelfSource, TableSink
from tests.simulate.failing import SHARED, Failing, Mishaps
from tests.simulate.machine import Process
from tests.simulate.operators import (
    ODD,
    TICKS,
    Delayed,
    Joined,
    Marked,
    Ruled,
    Running,
    Same,
    Tally,
    Windows,
)
from tests.simulate.spec import BROADCAST, BranchSpec, SinkSpec, SourceSpec, Spec, Stage

OUTPUT: Final = "/out"
SIDE_TAGS: Final = {"odd": ODD, "ticks": TICKS}


def build_flow(spec: Spec, process: Process) -> Flow:
    """Return the flow that a process runs."""
    # The way to the exchange has one parallelism, so that the records of a key stay in order.
    front = process.chance.choice([1, 1, 2, 3, 4])
    flow = Flow("simulated", parallelism=spec.front if spec.keeps_front else front)
    in_time = any(branch.kind in ("windows", "delayed", "tally") for branch in spec.branches)
    streams = [_source(flow, source, process, in_time) for source in spec.sources]
    for branch in spec.branches:
        first, *others = [streams[number] for number in branch.sources]
        right = None
        if branch.right is not None:
            one = 1 if branch.kind in BROADCAST else None  # rules come one after the other
            right = _source(flow, branch.right, process, parallelism=one)
        _branch(branch, first.union(*others) if others else first, right, process)
    for sink in spec.letters:
        tag: OutputTag[DeadLetter] = OutputTag(sink.takes)
        taken = flow.dead_letters(tag) if sink.takes == SHARED else process.letters[sink.takes]
        taken.sink(_sink(sink, process), name=sink.name, parallelism=process.chance.randint(1, 4))
    return flow


def _note_letters(stream: Stream[Any], failing: Failing | None, process: Process) -> None:
    if failing is not None and failing.action == "dead_letter" and failing.tag != SHARED:
        process.letters[failing.tag] = stream.side_output(failing.output())


def _source(
    flow: Flow,
    source: SourceSpec,
    process: Process,
    in_time: bool = False,
    parallelism: int | None = None,
) -> Stream[Event]:
    watermarks = WatermarkStrategy.bounded_out_of_orderness(f"{source.disorder_ms}ms")
    watermarks = watermarks.with_timestamps(lambda event: event.at)
    # A split that is not open yet holds nothing back: its records may come late.
    open_splits = 0 if in_time else source.open_splits
    name = source.shelf.name
    shelf = ShelfSource(source.shelf, process, watermarks, open_splits)
    stream = flow.source(shelf, name=name, parallelism=parallelism)
    for number, stage in enumerate(source.stages):
        stream = _stage(stream, stage, f"{name}-{number}", process)
        _note_letters(stream, stage.failing, process)
    return stream


def _stage(stream: Stream[Event], stage: Stage, name: str, process: Process) -> Stream[Event]:
    if stage.new_chain:
        stream = stream.start_new_chain()
    if stage.kind == "calls":
        answer: Any = lambda event: stage.apply(event)[0]  # noqa: E731
        more: dict[str, Any] = {"failing": stage.failing, "name": name, "type": Event}
        return add_calls(stream, stage.calls, answer, process, **more)

    mishaps = Mishaps(process, stage.failing)
    on_error = mishaps.on_error

    def apply_half(event: Event) -> Iterator[Event]:
        first, *others = stage.apply(event)
        yield first
        mishaps.fail_at(event)
        yield from others

    def apply(event: Event) -> list[Event]:
        mishaps.fail_at(event)
        return stage.apply(event)

    async def slowly(event: Event) -> Event:
        await process.dawdle()
        return apply(event)[0]

    if stage.kind == "filter":
        return stream.filter(apply, name=name, on_error=on_error)
    if stage.kind == "map":
        return stream.map(lambda event: apply(event)[0], name=name, on_error=on_error)
    if stage.kind == "double":
        return stream.flat_map(apply_half, name=name, on_error=on_error)
    return stream.map(slowly, name=name, on_error=on_error)


def _branch(
    branch: BranchSpec,
    stream: Stream[Event],
    right: Stream[Event] | None,
    process: Process,
) -> None:
    # Rows keep their order where they stay in their subtask up to the sink.
    parallelism = process.chance.randint(1, 4)
    if branch.calls is not None and branch.is_numbered:
        parallelism = branch.calls_parallelism
    out = main = _steps(branch, stream, right, process, parallelism)
    if branch.calls is not None:
        name, subtasks = f"{branch.name}-calls", branch.calls_parallelism
        if not branch.is_numbered:
            subtasks = process.chance.randint(1, 4)
        main = add_calls(out, branch.calls, _as_it_is, process, name=name, parallelism=subtasks)
    for sink in branch.sinks:
        subtasks = parallelism if branch.is_numbered else process.chance.randint(1, 4)
        taken = main if sink.takes == "main" else out.side_output(SIDE_TAGS[sink.takes])
        taken.sink(_sink(sink, process), name=sink.name, parallelism=subtasks)
    for output in branch.outputs:
        process.outputs[output.name] = main.output(
            output.name,
            capacity=output.capacity,
            policy=output.policy,
            when=output.when,
            parallelism=process.chance.randint(1, 4),
        )


def _as_it_is(row: Any) -> Any:
    return row


def _steps(
    branch: BranchSpec,
    stream: Stream[Event],
    right: Stream[Event] | None,
    process: Process,
    parallelism: int,
) -> Stream[Any]:
    mishaps = Mishaps(process, branch.failing)
    name: dict[str, Any] = {"name": branch.name, "parallelism": parallelism}
    if branch.kind in ("count", "recount"):
        return _counted(branch, stream, process, mishaps, name)
    name["on_error"] = mishaps.on_error
    if right is not None:
        out = _connected(branch, stream, right, mishaps, name)
    elif branch.kind in ("max", "reduce"):
        out = _folded(branch, stream, mishaps, name)
    else:
        out = _processed(branch, stream, mishaps, name)
    _note_letters(out, branch.failing, process)
    return out


def _counted(
    branch: BranchSpec,
    stream: Stream[Event],
    process: Process,
    mishaps: Mishaps,
    name: dict[str, Any],
) -> Stream[Any]:
    def key(event: Event) -> Any:
        mishaps.fail_at(event)
        return split_key(event)

    by_split = stream.key_by(key, name=f"{branch.name}-key", on_error=mishaps.on_error)
    _note_letters(by_split, branch.failing, process)
    if branch.kind == "count":
        return by_split.count(**name)
    counted = by_split.count(name=f"{branch.name}-first", parallelism=process.chance.randint(1, 4))
    return counted.key_by(lambda row: row[1] % 3, name=f"{branch.name}-again").count(**name)


def _folded(
    branch: BranchSpec, stream: Stream[Event], mishaps: Mishaps, name: dict[str, Any]
) -> Stream[Any]:
    by_split = stream.key_by(split_key, name=f"{branch.name}-key")

    def small(event: Event) -> int:
        mishaps.fail_at(event)
        return event.number % 13

    def not_third(one: Event, two: Event) -> Event:
        mishaps.fail_at(two)
        return two if two.number % 3 else one

    if branch.kind == "max":
        return by_split.max(small, **name)
    return by_split.reduce(not_third, **name)


def _processed(
    branch: BranchSpec, stream: Stream[Event], mishaps: Mishaps, name: dict[str, Any]
) -> Stream[Any]:
    if branch.kind == "tally":
        return stream.process(lambda: Tally(mishaps), **name)
    life = branch.life
    if life is not None:
        by_split = stream.key_by(split_key, name=f"{branch.name}-key")
        return by_split.process(lambda: Ageing(mishaps, life), **name)
    if branch.kind == "running":
        by_split = stream.key_by(split_key, name=f"{branch.name}-key")
        return by_split.process(lambda: Running(mishaps), **name)
    kinds: dict[str, type[Operator[Any, Any]]] = {
        "same": Same,
        "windows": Windows,
        "delayed": Delayed,
    }
    make: Any = kinds[branch.kind]
    by_key = stream.key_by(lambda event: event.key, name=f"{branch.name}-key")
    return by_key.process(lambda: make(mishaps), **name)


def _connected(
    branch: BranchSpec,
    stream: Stream[Event],
    right: Stream[Event],
    mishaps: Mishaps,
    name: dict[str, Any],
) -> Stream[Any]:
    if branch.kind == "marked":
        return stream.connect(right.broadcast()).process(lambda: Marked(mishaps), **name)
    if branch.kind == "ruled":
        by_split = stream.key_by(split_key, name=f"{branch.name}-key")
        return by_split.connect(right.broadcast()).process(lambda: Ruled(mishaps), **name)
    left = stream.key_by(lambda event: event.key, name=f"{branch.name}-key")
    other = right.key_by(lambda event: event.key, name=f"{branch.name}-right-key")
    return left.connect(other).process(lambda: Joined(mishaps), **name)


def split_key(event: Event) -> Any:
    """Return a key whose records come in one order: that of their split."""
    return event.split, event.key, event.copy


def _sink(sink: SinkSpec, process: Process) -> Sink[Any]:
    if sink.kind == "file":
        return FileSink(f"{OUTPUT}/{sink.name}", roll_epochs=sink.roll_epochs)
    return TableSink(sink.table, process, sink.kind)
