"""The plan: which steps run in one task, and how records get from task to task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from flowrt.contract.steps import Connect, KeyBy, MapAsync
from flowrt.graph.nodes import (
    Edge,
    Graph,
    Node,
    Output,
    Partition,
    Plan,
    SinkNode,
    SourceNode,
    StepNode,
    TaskPlan,
    broadcast_to,
    inputs_of,
    readers_of,
)

CHAIN_LIMIT: Final = 12
"""Steps of one task at most: a chain is one generated function, and steps nest in it."""


def plan(graph: Graph) -> Plan:
    """Return the tasks, upstream first, and the edges between them.

    A step runs in the task of the step before it where nothing is gained by a channel: it reads one
    output, alone, at equal parallelism, and records need not move to the subtask that owns their
    key. A sink is always a task of its own, so that its waiting stops nobody before the channel is
    full.
    """
    readers = readers_of(graph.nodes)
    nodes = {node.id: node for node in graph.nodes}
    drafts: dict[str, _Draft] = {}
    for node in graph.nodes:
        drafts[node.id] = _joined(node, nodes, readers, drafts) or _Draft(node)
    tasks = {draft.first.id: draft for draft in drafts.values()}
    edges = [
        Edge(output, drafts[output.node].first.id, drafts[node.id].first.id, part)
        for node in graph.nodes
        for output in inputs_of(node)
        if drafts[output.node] is not drafts[node.id]
        for part in [partition(nodes[output.node], output, node)]
    ]
    return Plan(graph, tuple(draft.task() for draft in tasks.values()), tuple(edges))


def partition(sender: Node, output: Output, reader: Node) -> Partition:
    """Return how records are spread over the subtasks of a reader in another task."""
    if output in broadcast_to(reader):
        return "broadcast"
    if not isinstance(reader, SourceNode) and output in reader.rebalanced:
        return "rebalance"
    if is_keyed(sender, output):
        return "hash"
    return "forward" if sender.parallelism == reader.parallelism else "rebalance"


def is_keyed(sender: Node, output: Output) -> bool:
    """Say whether the records of an output carry keys."""
    return output.tag is None and isinstance(sender, StepNode) and isinstance(sender.step, KeyBy)


@dataclass(slots=True)
class _Draft:
    """A task while it still grows."""

    first: Node
    steps: list[StepNode] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.first, StepNode):
            self.steps.append(self.first)

    def task(self) -> TaskPlan:
        first = self.first
        return TaskPlan(
            id=first.id,
            source=first if isinstance(first, SourceNode) else None,
            steps=tuple(self.steps),
            sink=first if isinstance(first, SinkNode) else None,
            parallelism=first.parallelism,
        )


def _joined(
    node: Node,
    nodes: dict[str, Node],
    readers: dict[Output, list[Node]],
    drafts: dict[str, _Draft],
) -> _Draft | None:
    """Put a node at the end of the task before it and return that; None where it needs its own."""
    if not isinstance(node, StepNode) or node.new_chain or len(node.inputs) != 1:
        return None
    if isinstance(node.step, MapAsync | Connect):
        return None  # its task goes on reading while calls are under way, or knows two sides
    if node.rebalanced:
        return None
    output = node.inputs[0]
    sender = nodes[output.node]
    draft = drafts[output.node]
    chains = (
        output.tag is None
        and len(readers[output]) == 1
        and sender.parallelism == node.parallelism
        and (not is_keyed(sender, output) or node.parallelism == 1)
        and len(draft.steps) < CHAIN_LIMIT
    )
    if not chains:
        return None
    draft.steps.append(node)
    return draft
