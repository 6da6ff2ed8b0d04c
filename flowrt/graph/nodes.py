"""A flow as data: sources, steps and sinks, and the outputs they read from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from flowrt.contract.on_error import OnError
from flowrt.contract.sink import Sink
from flowrt.contract.source import Source
from flowrt.contract.steps import Connect, Step
from flowrt.contract.time import WatermarkStrategy

Partition: TypeAlias = Literal["forward", "hash", "rebalance", "broadcast"]
"""How records are spread over the subtasks of the reader: subtask n to subtask n, by the key's
group, one record to each in turn, or every record to every subtask."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a node can be read from: its main output, or the side output of a tag."""

    node: str
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class SourceNode:
    """Where records enter. `id` is unique and stable: the user's name, else from its place."""

    id: str
    source: Source[Any]
    watermarks: WatermarkStrategy[Any] | None = None
    parallelism: int = 1
    max_rate: float | None = None
    """Records a second at most, over all subtasks; None for as many as come."""


@dataclass(frozen=True, slots=True)
class StepNode:
    """One step. `keyed`: it reads a keyed stream; `new_chain`: it starts a task of its own.

    Several inputs are a union: their records are read as they come. A `Connect` tells those in
    `right`, which are the last of `inputs`, from the others. Those in `rebalanced` are dealt out in
    turn.
    """

    id: str
    step: Step
    inputs: tuple[Output, ...]
    keyed: bool = False
    parallelism: int = 1
    new_chain: bool = False
    right: tuple[Output, ...] = ()
    rebalanced: tuple[Output, ...] = ()
    on_error: OnError = field(default_factory=OnError)

    @property
    def letters(self) -> Output | None:
        """Its dead letters, where it sends any."""
        tag = self.on_error.tag
        return None if tag is None else Output(self.id, tag.name)


@dataclass(frozen=True, slots=True)
class SinkNode:
    """Where results leave."""

    id: str
    sink: Sink[Any]
    inputs: tuple[Output, ...]
    parallelism: int = 1
    rebalanced: tuple[Output, ...] = ()


Node: TypeAlias = SourceNode | StepNode | SinkNode


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked flow, in an order in which every node follows its inputs."""

    name: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """From an output of one task to another task; each edge of an output gets every record."""

    output: Output
    source: str
    """Id of the task that sends."""
    target: str
    """Id of the task that receives."""
    partition: Partition


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What runs as one task, times `parallelism`: a source or channels, steps, channels or a sink.

    `id` is that of its first node. A sink is a task of its own, so that its waiting stops nobody
    before the channel is full. The steps form a line: each reads the main output of the one before.
    """

    id: str
    source: SourceNode | None
    steps: tuple[StepNode, ...]
    sink: SinkNode | None
    parallelism: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a flow, upstream first, and the edges between them."""

    graph: Graph
    tasks: tuple[TaskPlan, ...]
    edges: tuple[Edge, ...]


def inputs_of(node: Node) -> tuple[Output, ...]:
    """Return the outputs that a node reads; () for a source."""
    return () if isinstance(node, SourceNode) else node.inputs


def broadcast_to(node: Node) -> tuple[Output, ...]:
    """Return the outputs of which every subtask of a node gets every record."""
    if isinstance(node, StepNode) and isinstance(node.step, Connect) and node.step.broadcast:
        return node.right
    return ()


def readers_of(nodes: Iterable[Node]) -> dict[Output, list[Node]]:
    """Return who reads each output that is read, in the order of `nodes`."""
    readers: dict[Output, list[Node]] = {}
    for node in nodes:
        for output in inputs_of(node):
            readers.setdefault(output, []).append(node)
    return readers
