"""What a flow must have to run: each rule a function that raises `GraphError` naming the nodes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import CoOperator, Operator
from flowrt.contract.state import KEY_GROUPS, BroadcastState, StateSpec
from flowrt.contract.steps import Connect, Fold, KeyBy, Process
from flowrt.graph.names import check_name
from flowrt.graph.nodes import (
    Node,
    Output,
    SinkNode,
    SourceNode,
    StepNode,
    broadcast_to,
    inputs_of,
    readers_of,
)


def check_names(flow: str, nodes: Sequence[Node]) -> None:
    """Names can be part of file names, and no two are the same where case does not count."""
    check_name(flow, "a flow")
    seen: dict[str, str] = {}
    for node in nodes:
        check_name(node.id, f"a {kind_of(node)}")
        before = seen.setdefault(node.id.casefold(), node.id)
        if before != node.id:
            raise GraphError(
                f"the names {before!r} and {node.id!r} differ only in case, and on some systems "
                "their files would be the same: rename one"
            )
    for id in seen.values():
        same = [kind_of(node) for node in nodes if node.id == id]
        if len(same) > 1:
            raise GraphError(
                f"the name {id!r} is used {len(same)} times (by {' and '.join(same)}): give each "
                "a name= of its own, for state and positions are found again by it"
            )


def check_numbers(nodes: Sequence[Node]) -> None:
    """Parallelism and rate are possible."""
    for node in nodes:
        check_parallelism(node.parallelism, f"{kind_of(node)} {node.id!r}")
        if isinstance(node, SourceNode) and node.max_rate is not None:
            check_rate(node.max_rate, f"source {node.id!r}")


def check_parallelism(parallelism: object, what: str) -> int:
    """Return `parallelism` where it is a whole number from 1 to the number of key groups."""
    is_whole = isinstance(parallelism, int) and not isinstance(parallelism, bool)
    if is_whole and 1 <= parallelism <= KEY_GROUPS:  # type: ignore[operator]
        return parallelism  # type: ignore[return-value]
    raise GraphError(
        f"{what} has parallelism={parallelism!r}: it must be a whole number from 1 to {KEY_GROUPS} "
        "(the number of key groups)"
    )


def check_rate(rate: object, what: str) -> None:
    """A rate is a finite number above zero."""
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not (is_number and math.isfinite(rate) and rate > 0):  # type: ignore[arg-type, operator]
        raise GraphError(
            f"{what} has max_rate={rate!r}: it must be a number of records a second above 0, "
            "or None for as many as come"
        )


def check_ends(flow: str, nodes: Sequence[Node]) -> None:
    """There is a source and a sink."""
    if not any(isinstance(node, SourceNode) for node in nodes):
        raise GraphError(f"flow {flow!r} has no source: begin with flow.source(...)")
    if not any(isinstance(node, SinkNode) for node in nodes):
        raise GraphError(f"flow {flow!r} has no sink: end a stream with .sink(...)")


def check_inputs(nodes: Sequence[Node]) -> None:
    """Every step and sink reads something that exists, and reads it once."""
    by_id = {node.id: node for node in nodes}
    for node in nodes:
        inputs = inputs_of(node)
        what = f"{kind_of(node)} {node.id!r}"
        if not inputs and not isinstance(node, SourceNode):
            raise GraphError(f"{what} reads nothing: a union needs at least one stream")
        for output in inputs:
            _check_output(output, by_id.get(output.node), what)
        twice = {output.node for output in inputs if inputs.count(output) > 1}
        if twice:
            raise GraphError(
                f"{what} reads {', '.join(map(repr, sorted(twice)))} twice: a stream cannot be "
                "united with itself; use flat_map to double its records"
            )


def _check_output(output: Output, sender: Node | None, what: str) -> None:
    if sender is None:
        raise GraphError(f"{what} reads from {output.node!r}, which is not part of the flow")
    if isinstance(sender, SinkNode):
        raise GraphError(f"{what} reads from sink {output.node!r}: nothing comes out of a sink")
    if output.tag is not None and not may_send_to(sender, output.tag):
        raise GraphError(
            f"{what} reads side output {output.tag!r} of {kind_of(sender)} {output.node!r}, which "
            "has none: only process(...) has side outputs, and a step with "
            "on_error=OnError.dead_letter(tag) that of its tag"
        )


def may_send_to(sender: Node, tag: str) -> bool:
    """Say whether a node may have a side output of that tag."""
    if not isinstance(sender, StepNode):
        return False
    return isinstance(sender.step, Process | Connect) or sender.letters == Output(sender.id, tag)


def check_nobody_is_unread(nodes: Sequence[Node]) -> None:
    """Everything that comes out is read, by a main or a side output."""
    read = {output.node for output in readers_of(nodes)}
    unread = [f"{kind_of(n)} {n.id!r}" for n in nodes if not _is_read(n, read)]
    if unread:
        raise GraphError(
            f"nobody reads what comes out of {', '.join(unread)}: end the stream with .sink(...), "
            "or leave the step out"
        )


def check_letters_are_read(nodes: Sequence[Node]) -> None:
    """Dead letters are read: what nobody reads is lost without a word."""
    read = readers_of(nodes)
    for node in nodes:
        if isinstance(node, StepNode) and node.letters is not None and node.letters not in read:
            tag = node.letters.tag
            raise GraphError(
                f"nobody reads the dead letters of step {node.id!r}: end "
                f"flow.dead_letters(OutputTag({tag!r})), or the step's side_output of that tag, "
                "with .sink(...); to let go of such records use OnError.skip()"
            )


def _is_read(node: Node, read: set[str]) -> bool:
    return isinstance(node, SinkNode) or node.id in read


def check_state(nodes: Sequence[Node]) -> None:
    """Keyed state is used on keyed streams only, and a keyed step reads only keyed streams."""
    keyed_by = {
        Output(node.id)
        for node in nodes
        if isinstance(node, StepNode) and isinstance(node.step, KeyBy)
    }
    for node in nodes:
        if not isinstance(node, StepNode):
            continue
        check_sides(node, keyed_by)
        reads = [output for output in node.inputs if output not in broadcast_to(node)]
        without_key = [output.node for output in reads if output not in keyed_by]
        if node.keyed and without_key:
            raise GraphError(
                f"step {node.id!r} needs a key for each record, and what it reads from "
                f"{', '.join(map(repr, without_key))} has none: put key_by(...) before it"
            )
        if not node.keyed:
            states = keyed_states(node)
            if states:
                raise GraphError(
                    f"step {node.id!r} keeps state for each key ({', '.join(states)}), and its "
                    "stream has no keys: put key_by(...) before it"
                )


def check_sides(node: StepNode, keyed_by: Collection[Output]) -> None:
    """Two inputs have keys both or neither, but a broadcast one; only that has broadcast state."""
    states = broadcast_states(node)
    if states and not broadcast_to(node):
        raise GraphError(
            f"step {node.id!r} keeps broadcast state ({', '.join(states)}), and nothing is "
            "broadcast to it: read connect(rules.broadcast())"
        )
    if not isinstance(node.step, Connect):
        return
    if not node.right or node.inputs[-len(node.right) :] != node.right or node.right == node.inputs:
        raise GraphError(f"step {node.id!r} needs two inputs, the second the last of all it reads")
    keyless = [output.node for output in node.right if output not in keyed_by]
    keyed = [output.node for output in node.right if output in keyed_by]
    if keyed and not node.keyed and not node.step.broadcast:
        raise GraphError(
            f"step {node.id!r} connects a stream without keys with {keyed[0]!r}, which has keys: "
            "put key_by(...) before both or before neither, or broadcast() the second"
        )
    if keyless and node.keyed and not node.step.broadcast:
        raise GraphError(
            f"step {node.id!r} connects a stream with keys with {keyless[0]!r}, which has none: "
            "put key_by(...) before both or before neither, or broadcast() the second"
        )


def broadcast_states(node: StepNode) -> list[str]:
    """Return the names of the broadcast states that a step declares."""
    if not isinstance(node.step, Process | Connect):
        return []
    return [s.name for s in declared_states(made(node)) if isinstance(s, BroadcastState)]


def keyed_states(node: StepNode) -> list[str]:
    """Return the names of the states that a step declares; a function's are not known yet."""
    if isinstance(node.step, Fold):
        return [node.step.name]
    if not isinstance(node.step, Process | Connect):
        return []
    return [s.name for s in declared_states(made(node)) if not isinstance(s, BroadcastState)]


def declared_states(operator: Operator[Any, Any]) -> list[StateSpec[Any]]:
    """Return the states declared as attributes of an operator's class, its parents' last."""
    found: dict[str, StateSpec[Any]] = {}
    for owner in type(operator).__mro__:
        for attribute, value in vars(owner).items():
            if isinstance(value, StateSpec):
                found.setdefault(attribute, value)
    return list(found.values())


def made(node: StepNode) -> Operator[Any, Any]:
    """Return a fresh instance of the operator of a `Process` or `Connect`, else `GraphError`."""
    assert isinstance(node.step, Process | Connect)
    try:
        operator = node.step.make()
    except Exception as error:
        raise GraphError(
            f"step {node.id!r}: its operator cannot be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(operator, Operator):
        raise GraphError(
            f"step {node.id!r}: its factory returned {operator!r}, which is not an Operator: "
            "return an instance of a subclass of flowrt.Operator"
        )
    _check_number_of_inputs(node, operator)
    return operator


def _check_number_of_inputs(node: StepNode, operator: Operator[Any, Any]) -> None:
    kind = type(operator).__name__
    if isinstance(operator, CoOperator) and isinstance(node.step, Process):
        raise GraphError(
            f"step {node.id!r}: a {kind} has two inputs: use connect(other) before process(...)"
        )
    if not isinstance(operator, CoOperator) and isinstance(node.step, Connect):
        raise GraphError(
            f"step {node.id!r}: a {kind} has one input: derive it from flowrt.CoOperator, or use "
            "union(other) before process(...)"
        )


def check_sinks(nodes: Sequence[Node]) -> None:
    """Every sink is an object of its own; one at most decides when an epoch is committed."""
    _check_sinks_differ([node for node in nodes if isinstance(node, SinkNode)])
    deciding = [n.id for n in nodes if isinstance(n, SinkNode) and n.sink.kind == "deciding"]
    if len(deciding) > 1:
        raise GraphError(
            f"the sinks {' and '.join(map(repr, deciding))} both want to decide when an epoch is "
            "committed, and only one can: write both results through one of them, or split the flow"
        )


def _check_sinks_differ(nodes: Sequence[SinkNode]) -> None:
    # It would commit the same epoch twice: the second time it takes for a repetition of the first.
    for number, node in enumerate(nodes):
        same = [other.id for other in nodes[:number] if other.sink is node.sink]
        if same:
            raise GraphError(
                f"the sinks {same[0]!r} and {node.id!r} are one object: unite the streams before "
                "it, with union(...), or give each a sink of its own"
            )


def kind_of(node: Node) -> str:
    """Return what a node is, in a word for messages."""
    if isinstance(node, SourceNode):
        return "source"
    return "sink" if isinstance(node, SinkNode) else "step"
