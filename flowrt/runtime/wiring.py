"""Builds the tasks of one attempt from the plan: channels, chains with their state, tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.contract.errors import CheckpointError
from flowrt.contract.sink import SinkContext, Writer
from flowrt.contract.snapshot import (
    Block,
    BroadcastBackend,
    KeyedBackend,
    OperatorSnapshot,
    Send,
    SnapshotWriter,
    StateFile,
    ValueCodec,
)
from flowrt.contract.source import SourceContext
from flowrt.contract.state import group_range
from flowrt.contract.steps import Connect, Fold, MapAsync, Process
from flowrt.contract.tracing import Tracer
from flowrt.contract.world import World
from flowrt.dataflow.chains.broadcast_snapshot import holds_states
from flowrt.dataflow.chains.chain import Chain
from flowrt.dataflow.chains.judge import Judge
from flowrt.dataflow.chains.part import StepSetup
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.outputs import KeyGroup, Outputs, Partitioner, partitioner
from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot
from flowrt.dataflow.sources.source_task import SourceTask
from flowrt.dataflow.tasks.acknowledge import Desk
from flowrt.dataflow.tasks.async_task import AsyncSetup, AsyncTask
from flowrt.dataflow.tasks.in_flight_snapshot import SnapshotForm, holds_calls, share_of
from flowrt.dataflow.tasks.operator_task import OperatorTask
from flowrt.dataflow.tasks.sink_task import SinkTask
from flowrt.dataflow.tasks.traces import Traces
from flowrt.graph.nodes import Edge, Plan, SinkNode, StepNode, TaskPlan
from flowrt.runtime.errors import asked

AnyTask = SourceTask | OperatorTask | AsyncTask | SinkTask


class Memory(Protocol):
    """Where an attempt's state comes from and goes: the checkpoint folder, or nowhere."""

    @property
    def keeps(self) -> bool:
        """Whether snapshots are kept."""
        ...

    def parts(self, operator: str) -> Sequence[OperatorSnapshot]:
        """Return what all former subtasks of an operator left in the snapshot restored."""
        ...

    def files(self, operator: str, groups: range) -> Sequence[StateFile]:
        """Return an operator's state files cut to key groups, oldest first."""
        ...

    def blocks(self, files: Sequence[StateFile]) -> AsyncGenerator[list[Block], None]:
        """Read state files, oldest first, piece by piece."""
        ...

    def writer(
        self, operator: str, subtask: int, groups: range, restored: Sequence[StateFile]
    ) -> SnapshotWriter | None:
        """Return what makes an operator subtask's snapshots durable; None where nothing is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every task of an attempt gets."""

    world: World
    memory: Memory
    send: Send
    generation: int
    channel_capacity: int
    blocking: bool
    """Whether barriers hold inputs back (exactly once)."""
    backend: Callable[[str], KeyedBackend]
    key_group: KeyGroup
    codec: Callable[[str, str, Any], ValueCodec]
    """Makes what encodes values beside keyed state, from operator, what they are, and type."""
    broadcast: Callable[[str], BroadcastBackend]
    tracer: Tracer | None = None


@dataclass(slots=True)
class _Ports:
    """The channels of the whole plan, made before any task."""

    spots: dict[tuple[str, int], ParkingSpot] = field(default_factory=dict)
    inputs: dict[tuple[str, int], list[Channel]] = field(default_factory=lambda: defaultdict(list))
    outputs: dict[tuple[str, int], list[tuple[Edge, Partitioner]]] = field(
        default_factory=lambda: defaultdict(list)
    )


async def build_tasks(plan: Plan, around: Surroundings) -> AsyncIterator[AnyTask]:
    """Build the tasks of a plan, upstream first; state is loaded, nothing is opened yet."""
    ports = _ports(plan, around)
    for task in plan.tasks:
        for subtask in range(task.parallelism):
            built = await _build(plan, task, subtask, ports, around)
            if around.tracer is not None:
                _trace(built, around.tracer)
            yield built


def _trace(task: AnyTask, tracer: Tracer) -> None:
    outputs = None if isinstance(task, SinkTask | AsyncTask) else task.outputs
    traces = Traces(tracer, task.desk.task, task.desk.subtask, outputs)
    if isinstance(task, SourceTask):
        task.trace(traces)
    else:
        task.loop.traces = traces


def _ports(plan: Plan, around: Surroundings) -> _Ports:
    ports = _Ports()
    parallelism = {task.id: task.parallelism for task in plan.tasks}
    # Where many records take hardly longer than few, there is no number that is done in time.
    adapts = {task.id: task.sink is None or not task.sink.sink.takes_many for task in plan.tasks}
    for task in plan.tasks:
        for subtask in range(task.parallelism):
            ports.spots[task.id, subtask] = parking_spot()
    for edge in plan.edges:
        for sender in range(parallelism[edge.source]):
            everyone = range(parallelism[edge.target])
            receivers = [sender] if edge.partition == "forward" else list(everyone)
            channels = []
            for receiver in receivers:
                where = edge.target, receiver
                channel = Channel(
                    around.channel_capacity,
                    ports.spots[where],
                    adapts=adapts[edge.target],
                    now_ns=around.world.clock.monotonic_ns,
                )
                ports.inputs[where].append(channel)
                channels.append(channel)
            reader = partitioner(edge.partition, channels, around.key_group)
            ports.outputs[edge.source, sender].append((edge, reader))
    return ports


async def _build(
    plan: Plan, task: TaskPlan, subtask: int, ports: _Ports, around: Surroundings
) -> AnyTask:
    desk = Desk(task.id, subtask, around.send, around.world.clock)
    where = task.id, subtask
    first = _async_setup(task, subtask, around)
    # While an epoch is open calls take in all that comes: that must end at the barrier.
    inputs = Inputs(
        ports.inputs[where],
        blocking=around.blocking or first is not None,
        timed=_left(plan, task, broadcast=True),
    )
    if task.sink is not None:
        writer = await _writer(task.sink, subtask, around)
        return SinkTask(desk, inputs, task.sink.id, writer, ports.spots[where])
    outputs = _outputs(ports.outputs[where])
    steps = task.steps if first is None else task.steps[1:]
    setups = [await _setup(plan, step, subtask, around) for step in steps]
    chain = Chain(
        setups, outputs, world=around.world, subtask=subtask, parallelism=task.parallelism
    )
    if first is not None:
        policy = task.steps[0].on_error
        if not policy.fails_at_once:
            first.judge = Judge(first.id, policy, around.world, outputs.emit_side)
        return AsyncTask(desk, inputs, first, chain, outputs, ports.spots[where])
    if task.source is None:
        left = _left(plan, task)
        return OperatorTask(desk, inputs, chain, outputs, ports.spots[where], left)
    node = task.source
    parts = around.memory.parts(node.id)
    return SourceTask(
        desk,
        node.source,
        SourceContext(node.id, subtask, task.parallelism, around.world),
        chain,
        outputs,
        strategy=node.watermarks or node.source.watermarks,
        max_rate=None if node.max_rate is None else node.max_rate / task.parallelism,
        restored=[split for part in parts for split in part.splits],
    )


def _left(plan: Plan, task: TaskPlan, *, broadcast: bool = False) -> int | None:
    """Return how many of a subtask's channels are those of the first of two inputs.

    None where there are no two, or with `broadcast` where the second is not broadcast.
    """
    node = task.steps[0] if task.source is None and task.steps else None
    if node is None or not isinstance(node.step, Connect):
        return None
    if broadcast and not node.step.broadcast:
        return None
    senders = {sender.id: sender.parallelism for sender in plan.tasks}
    left = [e for e in plan.edges if e.target == task.id and e.output not in node.right]
    return sum(1 if edge.partition == "forward" else senders[edge.source] for edge in left)


def _async_setup(task: TaskPlan, subtask: int, around: Surroundings) -> AsyncSetup | None:
    if task.source is not None or task.sink is not None:
        return None
    node = task.steps[0]
    if not isinstance(node.step, MapAsync):
        return None
    parts = [part.data for part in around.memory.parts(node.id)]
    # Made in any case: a type that has no form is refused at the start.
    codec = around.codec(node.id, "a record in flight", node.step.type)
    return AsyncSetup(
        node.id,
        node.step.make(around.world),
        node.step.capacity,
        node.step.ordered,
        SnapshotForm(codec, around.key_group) if around.memory.keeps else None,
        share_of(parts, subtask, task.parallelism) if parts else [],
    )


async def _writer(node: SinkNode, subtask: int, around: Surroundings) -> Writer[Any]:
    context = SinkContext(node.id, subtask, node.parallelism, around.generation, around.world)
    writer = node.sink.writer(context, committables(around.memory.parts(node.id)))
    return await asked(node.id, f"open its writer {subtask}", writer)


def committables(parts: Sequence[OperatorSnapshot]) -> list[Any]:
    """Return what a sink's writers prepared for the epoch of a snapshot."""
    return [part.committable for part in parts if part.committable is not None]


def _outputs(readers: Sequence[tuple[Edge, Partitioner]]) -> Outputs:
    main = [reader for edge, reader in readers if edge.output.tag is None]
    sides: Mapping[tuple[str, str], list[Partitioner]] = defaultdict(list)
    for edge, reader in readers:
        if edge.output.tag is not None:
            sides[edge.output.node, edge.output.tag].append(reader)
    return Outputs(main, sides)


async def _setup(plan: Plan, node: StepNode, subtask: int, around: Surroundings) -> StepSetup:
    parts = around.memory.parts(node.id)
    if any(holds_calls(part.data) for part in parts):
        raise CheckpointError(
            f"the snapshot has records in flight for operator {node.id!r}, which is no map_async: "
            "run the flow as it was and drain it first, or give the new operator another name"
        )
    # Where the input had ended and there is more of it now, event time begins anew with that.
    watermarks = [part.watermark for part in parts if part.watermark not in (None, MAX_TIMESTAMP)]
    setup = StepSetup(
        node.id,
        node.step,
        keyed=node.keyed,
        restored=[part.data for part in parts if part.data is not None],
        # At another parallelism the slowest of the former subtasks decides what is late.
        watermark=min(watermarks, default=MIN_TIMESTAMP),
        taken_tags=_taken_tags(plan, node.id),
        on_error=node.on_error,
        check_key=around.key_group,
    )
    is_broadcast = isinstance(node.step, Connect) and node.step.broadcast
    if not is_broadcast and any(holds_states(part.data) for part in parts):
        raise CheckpointError(
            f"the snapshot has broadcast state for operator {node.id!r}, which reads no broadcast "
            "stream: give it another name, or connect(rules.broadcast()) before it"
        )
    if is_broadcast:
        setup.broadcast = around.broadcast(node.id)
        for part in parts:
            setup.broadcast.written_as(part.shapes)
    if node.keyed and isinstance(node.step, Fold | Process | Connect):
        groups = group_range(subtask, node.parallelism)
        files = around.memory.files(node.id, groups)
        setup.backend = around.backend(node.id)
        for part in parts:
            setup.backend.written_as(group_range(part.subtask, len(parts)), part.shapes)
        async with aclosing(around.memory.blocks(files)) as pieces:
            async for piece in pieces:
                setup.backend.load(piece)
        setup.writer = around.memory.writer(node.id, subtask, groups, files)
    return setup


def _taken_tags(plan: Plan, operator: str) -> frozenset[str]:
    outputs = (edge.output for edge in plan.edges)
    return frozenset(o.tag for o in outputs if o.node == operator and o.tag is not None)
