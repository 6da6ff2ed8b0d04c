"""Nodes for tests: the smallest source, step and sink of each kind."""

from __future__ import annotations

from typing import Any

from flowrt.contract.operator import Context, Operator
from flowrt.contract.sink import Sink, SinkKind
from flowrt.contract.source import Source
from flowrt.contract.steps import Filter, Fold, KeyBy, Map, MapAsync, Process, Step
from flowrt.graph.nodes import Node, Output, SinkNode, SourceNode, StepNode

MAP = Map(str)
FILTER = Filter(bool)
KEY_BY = KeyBy(str)
MAP_ASYNC = MapAsync(lambda world: _ask, capacity=10, ordered=False, label="ask")
COUNT = Fold(lambda value: 1, lambda number, value: number + 1, type=int, name="count")


async def _ask(value: Any) -> Any:
    return value


class Pass(Operator[Any, Any]):
    """Sends on what it gets."""

    def process(self, value: Any, ctx: Context) -> None:
        ctx.emit(value)


PASS = Process(Pass)


class AnySource(Source[Any]):
    def __init__(self, *, replayable: bool = True) -> None:
        self.replayable = replayable


class AnySink(Sink[Any]):
    def __init__(self, kind: SinkKind = "repeatable") -> None:
        self.kind = kind


def source(id: str = "source", **options: Any) -> Node:
    return SourceNode(id, AnySource(), **options)


def step(id: str, *inputs: str, step: Step = MAP, **options: Any) -> Node:
    """A step that reads main outputs, or side outputs written "node/tag"."""
    return StepNode(id, step, outputs(*inputs), **options)


def sink(id: str, *inputs: str, kind: SinkKind = "repeatable", **options: Any) -> Node:
    return SinkNode(id, AnySink(kind), outputs(*inputs), **options)


def outputs(*inputs: str) -> tuple[Output, ...]:
    split = [name.partition("/") for name in inputs]
    return tuple(Output(node, tag or None) for node, _, tag in split)
