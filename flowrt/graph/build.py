"""Makes a checked graph of what was described."""

from __future__ import annotations

from collections.abc import Iterable

from flowrt.contract.errors import GraphError
from flowrt.graph.check import (
    check_ends,
    check_inputs,
    check_letters_are_read,
    check_names,
    check_nobody_is_unread,
    check_numbers,
    check_sinks,
    check_state,
)
from flowrt.graph.nodes import Graph, Node, inputs_of


def build(name: str, nodes: Iterable[Node]) -> Graph:
    """Return the flow as a graph that can run: upstream first, else in the order of description.

    `GraphError` naming the flow and the nodes in question where it cannot run.
    """
    described = tuple(nodes)
    check_names(name, described)
    check_numbers(described)
    check_ends(name, described)
    check_inputs(described)
    ordered = upstream_first(described)
    check_nobody_is_unread(described)
    check_letters_are_read(described)
    check_state(described)
    check_sinks(described)
    return Graph(name, ordered)


def upstream_first(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes so that each follows its inputs; `GraphError` naming a cycle."""
    ordered: dict[str, Node] = {}
    waiting = {node.id: node for node in nodes}
    while waiting:
        ready = next(
            (n for n in waiting.values() if all(out.node in ordered for out in inputs_of(n))), None
        )
        if ready is None:
            raise GraphError(
                f"the steps {_cycle(waiting)} read from each other in a circle, so none could ever "
                "end: a flow runs one way, from sources to sinks"
            )
        ordered[ready.id] = waiting.pop(ready.id)
    return tuple(ordered.values())


def _cycle(waiting: dict[str, Node]) -> str:
    """Walk upstream among nodes that all wait for one of each other until one comes round again."""
    path: list[str] = []
    current = next(iter(waiting))
    while current not in path:
        path.append(current)
        current = next(out.node for out in inputs_of(waiting[current]) if out.node in waiting)
    circle = path[path.index(current) :]
    return " -> ".join(repr(id) for id in [current, *reversed(circle)])
