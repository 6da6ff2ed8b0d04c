"""What a flow's calls have described so far, and the ids of what has no name of its own.

A derived id says what a step is and the how-manieth of its kind it is on the way from its source:
"map-2" is the second map. A sink is called after what it reads, "count-1.sink". So an id stays when
sinks, other branches or steps of another kind are added; where two branches give the same id, the
one described later gets ".2". An id is what state and positions are found by after a restart: give
a `name=` to whatever must be found again when the flow changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from flowrt.contract.errors import GraphError
from flowrt.contract.on_error import OnError
from flowrt.contract.sink import Sink
from flowrt.contract.source import Source
from flowrt.contract.steps import AssignTimestamps, Step
from flowrt.contract.time import WatermarkStrategy
from flowrt.graph.build import build
from flowrt.graph.check import check_parallelism, check_rate, may_send_to
from flowrt.graph.names import check_name
from flowrt.graph.nodes import Graph, Node, Output, SinkNode, SourceNode, StepNode, inputs_of

LETTERS: Final = "(dead letters)"
"""Stands for all steps that send dead letters, in what reads those of a flow; no step's id."""


class Description:
    """The nodes of a flow in the order in which they were described; every id is known at once."""

    def __init__(self, flow: str, parallelism: int, on_error: OnError | None = None) -> None:
        self.flow = check_name(flow, "a flow")
        self._parallelism = check_parallelism(parallelism, f"flow {flow!r}")
        self._nodes: dict[str, Node] = {}
        self._kinds_above: dict[str, Counter[str]] = {LETTERS: Counter()}
        self.on_error = check_on_error(on_error, f"flow {flow!r}") or OnError()
        self._letter_readers = {LETTERS}
        """Ids of all that reads letters of the whole flow, at first hand or not."""

    def add_source(
        self,
        source: Source[Any],
        *,
        name: str | None,
        watermarks: WatermarkStrategy[Any] | None,
        parallelism: int | None,
        max_rate: float | None,
    ) -> Output:
        """Describe a source and return its output."""
        id = self._id("source", (), name)
        what = self._called("source", id)
        subtasks = self._subtasks(parallelism, what)
        if max_rate is not None:
            check_rate(max_rate, what)
        return self._add("source", SourceNode(id, source, watermarks, subtasks, max_rate))

    def add_step(
        self,
        kind: str,
        make: Callable[[], Step],
        inputs: tuple[Output, ...],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        keyed: bool = False,
        new_chain: bool = False,
        right: tuple[Output, ...] = (),
        rebalanced: tuple[Output, ...] = (),
        on_error: OnError | None = None,
    ) -> Output:
        """Describe a step and return its output; the `GraphError` of `make` gets the step's id."""
        id = self._id(kind, inputs, name)
        what = self._called("step", id)
        try:
            step = make()
        except GraphError as error:
            raise GraphError(f"{what}: {error}") from error.__cause__
        subtasks = self._subtasks(parallelism, what)
        policy = check_on_error(on_error, what) or self.default(inputs)
        if isinstance(step, AssignTimestamps):
            policy = OnError()
        node = StepNode(id, step, inputs, keyed, subtasks, new_chain, right, rebalanced, policy)
        return self._add(kind, node)

    def add_sink(
        self,
        sink: Sink[Any],
        inputs: tuple[Output, ...],
        *,
        name: str | None,
        parallelism: int | None,
        rebalanced: tuple[Output, ...] = (),
    ) -> None:
        """Describe a sink."""
        id = self._id("sink", inputs, name)
        subtasks = self._subtasks(parallelism, self._called("sink", id))
        self._add("sink", SinkNode(id, sink, inputs, subtasks, rebalanced))

    def parallelism_of(self, outputs: tuple[Output, ...]) -> int:
        """Return where outputs run: their nodes' parallelism, or the flow's where they differ."""
        nodes = (self._nodes.get(output.node) for output in outputs)
        found = {self._parallelism if node is None else node.parallelism for node in nodes}
        return found.pop() if len(found) == 1 else self._parallelism

    def has_side(self, output: Output, tag: str) -> bool:
        """Say whether an output is the main output of a step that may send to a side output."""
        node = self._nodes.get(output.node)
        return node is not None and output.tag is None and may_send_to(node, tag)

    def default(self, inputs: tuple[Output, ...]) -> OnError:
        """Return the policy of a step that has none of its own.

        What reads the flow's dead letters would read its own, so there the default is to fail.
        """
        reads_letters = any(output.node in self._letter_readers for output in inputs)
        return OnError() if reads_letters else self.on_error

    def build(self) -> Graph:
        """Return the checked graph."""
        return build(self.flow, map(self._with_letters, self._nodes.values()))

    def _with_letters(self, node: Node) -> Node:
        """Return a node that reads, in place of the flow's dead letters, those of each step."""
        if isinstance(node, SourceNode):
            return node
        inputs = tuple(self._found(node.id, node.inputs))
        rebalanced = tuple(self._found(node.id, node.rebalanced))
        if isinstance(node, SinkNode):
            return replace(node, inputs=inputs, rebalanced=rebalanced)
        right = tuple(self._found(node.id, node.right))
        return replace(node, inputs=inputs, rebalanced=rebalanced, right=right)

    def _found(self, reader: str, outputs: tuple[Output, ...]) -> Iterator[Output]:
        for output in outputs:
            if output.node != LETTERS:
                yield output
                continue
            steps = (node for node in self._nodes.values() if isinstance(node, StepNode))
            letters = [s.letters for s in steps if s.letters and s.letters.tag == output.tag]
            if not letters:
                raise GraphError(
                    f"{reader!r} of flow {self.flow!r} reads dead letters {output.tag!r}, and "
                    "no step sends any: give a step, or the flow, "
                    "on_error=OnError.dead_letter(tag)"
                )
            yield from letters

    def _add(self, kind: str, node: Node) -> Output:
        above = self._above(() if isinstance(node, SourceNode) else node.inputs)
        above[kind] += 1
        self._nodes[node.id] = node
        self._kinds_above[node.id] = above
        if any(output.node in self._letter_readers for output in inputs_of(node)):
            self._letter_readers.add(node.id)
        return Output(node.id)

    def _above(self, inputs: tuple[Output, ...]) -> Counter[str]:
        """Count the steps of each kind on the way here; of several ways the one that has most."""
        above: Counter[str] = Counter()
        for output in inputs:
            above |= self._kinds_above[output.node]
        return above

    def _id(self, kind: str, inputs: tuple[Output, ...], name: str | None) -> str:
        if name is not None:
            check_name(name, f"a {kind} of flow {self.flow!r}")
            if name in self._nodes:
                raise GraphError(
                    f"flow {self.flow!r} has two parts named {name!r}: give each a name= of its "
                    "own, for state and positions are found again by it"
                )
            return name
        if kind == "sink":
            read = inputs[0].node
            place = "dead_letters.sink" if read == LETTERS else f"{read}.sink"
        else:
            place = f"{kind}-{self._above(inputs)[kind] + 1}"
        id, number = place, 1
        while id in self._nodes:
            number += 1
            id = f"{place}.{number}"
        return id

    def _subtasks(self, parallelism: int | None, what: str) -> int:
        return self._parallelism if parallelism is None else check_parallelism(parallelism, what)

    def _called(self, what: str, id: str) -> str:
        return f"{what} {id!r} of flow {self.flow!r}"


def check_on_error(on_error: OnError | None, what: str) -> OnError | None:
    """Return a policy; `GraphError` for what is none."""
    if on_error is not None and not isinstance(on_error, OnError):
        raise GraphError(
            f"{what} has on_error={on_error!r}: it is OnError.fail(), OnError.skip(), "
            "OnError.dead_letter(tag) or OnError.retry(strategy, then=...)"
        )
    return on_error
