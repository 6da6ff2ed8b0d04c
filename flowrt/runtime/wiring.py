"""Builds the tasks of one attempt from the plan: channels, chains with their state, tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.contract.sink import SinkContext, Writer
from flowrt.contract.snapshot import (
    Block,
    KeyedBackend,
    OperatorSnapshot,
    Send,
    SnapshotWriter,
    StateFile,
)
from flowrt.contract.source import SourceContext
from flowrt.contract.state import group_range
from flowrt.contract.steps import Fold, Process
from flowrt.contract.world import World
from flowrt.dataflow.acknowledge import Desk
from flowrt.dataflow.chain import Chain, StepSetup
from flowrt.dataflow.channel import Channel
from flowrt.dataflow.inputs import Inputs
from flowrt.dataflow.operator_task import OperatorTask
from flowrt.dataflow.outputs import KeyGroup, Outputs, Partitioner, partitioner
from flowrt.dataflow.parking import ParkingSpot, parking_spot
from flowrt.dataflow.sink_task import SinkTask
from flowrt.dataflow.source_task import SourceTask
from flowrt.graph.nodes import Edge, Plan, SinkNode, StepNode, TaskPlan

AnyTask = SourceTask | OperatorTask | SinkTask


class Memory(Protocol):
    """Where an attempt's state comes from and goes: the checkpoint folder, or nowhere."""

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
            yield await _build(plan, task, subtask, ports, around)


def _ports(plan: Plan, around: Surroundings) -> _Ports:
    ports = _Ports()
    parallelism = {task.id: task.parallelism for task in plan.tasks}
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
                channel = Channel(around.channel_capacity, ports.spots[where])
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
    inputs = Inputs(ports.inputs[where], blocking=around.blocking)
    if task.sink is not None:
        writer = await _writer(task.sink, subtask, around)
        return SinkTask(desk, inputs, task.sink.id, writer, ports.spots[where])
    outputs = _outputs(ports.outputs[where])
    setups = [await _setup(plan, step, subtask, around) for step in task.steps]
    chain = Chain(
        setups, outputs, world=around.world, subtask=subtask, parallelism=task.parallelism
    )
    if task.source is None:
        return OperatorTask(desk, inputs, chain, outputs, ports.spots[where])
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


async def _writer(node: SinkNode, subtask: int, around: Surroundings) -> Writer[Any]:
    context = SinkContext(node.id, subtask, node.parallelism, around.generation, around.world)
    return await node.sink.writer(context, committables(around.memory.parts(node.id)))


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
    )
    if node.keyed and isinstance(node.step, Fold | Process):
        groups = group_range(subtask, node.parallelism)
        files = around.memory.files(node.id, groups)
        setup.backend = around.backend(node.id)
        async with aclosing(around.memory.blocks(files)) as pieces:
            async for piece in pieces:
                setup.backend.load(piece)
        setup.writer = around.memory.writer(node.id, subtask, groups, files)
    return setup


def _taken_tags(plan: Plan, operator: str) -> frozenset[str]:
    outputs = (edge.output for edge in plan.edges)
    return frozenset(o.tag for o in outputs if o.node == operator and o.tag is not None)
