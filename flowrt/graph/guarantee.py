"""What a flow promises from end to end, for each source and sink."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from flowrt.contract.sink import Sink
from flowrt.contract.snapshot import Delivery
from flowrt.contract.source import Source
from flowrt.graph.nodes import Graph, SinkNode, SourceNode, inputs_of

Guarantee: TypeAlias = Literal["exactly-once", "at-least-once", "at-most-once"]


def guarantee(source: Source[Any], sink: Sink[Any], delivery: Delivery) -> Guarantee:
    """Return how often the effect of a record is seen at a sink, whatever crashes.

    | source          | sink                 | exactly_once  | at_least_once | at_most_once |
    |-----------------|----------------------|---------------|---------------|--------------|
    | replayable      | repeatable, deciding | exactly-once  | at-least-once | at-most-once |
    | replayable      | direct               | at-least-once | at-least-once | at-most-once |
    | not replayable  | any                  | at-most-once  | at-most-once  | at-most-once |

    The columns are a job's `delivery`.
    """
    if delivery == "at_most_once" or not source.replayable:
        return "at-most-once"
    if delivery == "at_least_once" or sink.kind == "direct":
        return "at-least-once"
    return "exactly-once"


def reason(source: Source[Any], sink: Sink[Any], delivery: Delivery) -> str:
    """Return in a few words why `guarantee` is what it is, and what a crash does."""
    if delivery == "at_most_once":
        return "no checkpoints: what a crash cuts short is lost"
    if not source.replayable:
        return "the source cannot read again: what came after the last epoch is lost in a crash"
    if delivery == "at_least_once":
        return "barriers are not aligned: after a crash records may count twice"
    if sink.kind == "direct":
        return "the sink shows records at once: after a crash those since the last epoch come again"
    return "results appear with their epoch, once"


def ways(graph: Graph) -> list[tuple[SourceNode, SinkNode]]:
    """Return each source with each sink that its records can reach, sinks in the graph's order."""
    sources: dict[str, list[SourceNode]] = {}
    found: list[tuple[SourceNode, SinkNode]] = []
    for node in graph.nodes:
        above = {s.id: s for output in inputs_of(node) for s in sources[output.node]}
        sources[node.id] = [node] if isinstance(node, SourceNode) else list(above.values())
        if isinstance(node, SinkNode):
            found += [(source, node) for source in sources[node.id]]
    return found
