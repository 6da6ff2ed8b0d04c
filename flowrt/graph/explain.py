"""A plan for people: as text, and as a Mermaid diagram."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, assert_never

from flowrt.contract.plural import plural
from flowrt.contract.snapshot import Delivery
from flowrt.contract.state import BroadcastState
from flowrt.contract.steps import (
    AssignTimestamps,
    Connect,
    Filter,
    FlatMap,
    Fold,
    KeyBy,
    Map,
    MapAsync,
    Process,
)
from flowrt.graph.check import broadcast_states, declared_states, kind_of, made
from flowrt.graph.guarantee import guarantee, reason, ways
from flowrt.graph.nodes import (
    Edge,
    Node,
    Partition,
    Plan,
    SinkNode,
    SourceNode,
    StepNode,
    TaskPlan,
)

_SPREADS: Final[dict[Partition, str]] = {
    "forward": "subtask to subtask",
    "hash": "by key",
    "rebalance": "in turn, without order",
    "broadcast": "to every subtask",
}

_ENTITIES: Final = str.maketrans(
    {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;"}
)


def explain(plan: Plan, delivery: Delivery) -> str:
    """Return the plan as text: each task with its chain, state and channels, then guarantees."""
    lines = [f"flow {plan.graph.name}: {_counted(plan)}"]
    width = max(len(node.id) for node in plan.graph.nodes)
    for task in plan.tasks:
        lines += ["", f"task {task.id} (parallelism {task.parallelism})"]
        lines += [f"  {node.id:<{width}}  {describe(node)}" for node in nodes_of(task)]
        lines += [f"  -> {_target(plan, edge)}" for edge in plan.edges if edge.source == task.id]
    lines += ["", f"end to end, with delivery {delivery}"]
    lines += [f"  {line}" for line in _guarantees(plan, delivery)]
    return "\n".join(lines) + "\n"


def mermaid(plan: Plan) -> str:
    """Return the plan as a Mermaid flowchart: a box for each task, a node for each step."""
    # Ids may hold what Mermaid takes for syntax ("end", dots), so its nodes are numbered.
    alias = {node.id: f"n{number}" for number, node in enumerate(plan.graph.nodes)}
    lines = ["flowchart LR"]
    for number, task in enumerate(plan.tasks):
        lines.append(f'  subgraph t{number}["{task.id} (parallelism {task.parallelism})"]')
        lines += [f"    {alias[node.id]}{_box(node)}" for node in nodes_of(task)]
        names = [alias[node.id] for node in nodes_of(task)]
        if len(names) > 1:
            lines.append(f"    {' --> '.join(names)}")
        lines.append("  end")
    for edge in plan.edges:
        label = _escaped(_label(plan, edge))
        lines.append(f'  {alias[edge.output.node]} -->|"{label}"| {alias[edge.target]}')
    return "\n".join(lines) + "\n"


def nodes_of(task: TaskPlan) -> list[Node]:
    """Return what runs in a task, in the order in which a record passes it."""
    ends: tuple[Node | None, ...] = (task.source, *task.steps, task.sink)
    return [node for node in ends if node is not None]


def describe(node: Node) -> str:
    """Return what a node is and does, in a line."""
    if isinstance(node, SourceNode):
        return _source(node)
    if isinstance(node, SinkNode):
        return f"sink: {node.sink.describe()}; {node.sink.kind}"
    state = "".join(f"; state {text} for each key" for text in _states(node))
    everywhere = "".join(f"; state {name} in every subtask" for name in broadcast_states(node))
    policy = "" if node.on_error.fails_at_once else f"; on error {node.on_error.describe()}"
    return f"{_step(node)}{state}{everywhere}{policy}"


def _source(node: SourceNode) -> str:
    source = node.source
    parts = [
        f"source: {source.describe()}",
        "replayable" if source.replayable else "not replayable",
        "bounded" if source.bounded else "unbounded",
    ]
    if node.watermarks is not None or source.watermarks is not None:
        parts.append("event time")
    if node.max_rate is not None:
        parts.append(f"at most {node.max_rate:g} records/s")
    return "; ".join(parts)


def _step(node: StepNode) -> str:
    match node.step:
        case Fold(name=name):
            return f"running {name}"
        case AssignTimestamps():
            return "assign timestamps"
        case MapAsync(capacity=capacity, ordered=ordered, label=label):
            order = "ordered" if ordered else "unordered"
            return f"map_async: {label}; {capacity} {plural(capacity, 'call')} at once, {order}"
        case Process():
            return f"process: {_operator(node)}"
        case Connect():
            left = [output.node for output in node.inputs if output not in node.right]
            right = [output.node for output in node.right]
            return f"connect {', '.join(left)} with {', '.join(right)}: {_operator(node)}"
        case Map(fn):
            return f"map: {_name(fn)}"
        case Filter(fn):
            return f"filter: {_name(fn)}"
        case FlatMap(fn):
            return f"flat_map: {_name(fn)}"
        case KeyBy(fn):
            return f"key_by: {_name(fn)}"
        case _:
            assert_never(node.step)


def _operator(node: StepNode) -> str:
    operator = made(node)
    # An operator with a repr of its own says more than its class does.
    has_repr = type(operator).__repr__ is not object.__repr__
    return repr(operator) if has_repr else type(operator).__name__


def _states(node: StepNode) -> Iterator[str]:
    if isinstance(node.step, Fold):
        declared = "" if node.step.type is None else f" ({_type(node.step.type)})"
        yield f"{node.step.name}{declared}"
    elif isinstance(node.step, Process | Connect):
        for spec in declared_states(made(node)):
            if not isinstance(spec, BroadcastState):
                yield f"{spec.name} ({type(spec).__name__})"


def _name(fn: Any) -> str:
    name = str(getattr(fn, "__qualname__", None) or repr(fn))
    return name.replace(".<locals>", "").replace("<lambda>", "lambda")


def _type(declared: Any) -> str:
    return declared.__name__ if isinstance(declared, type) else str(declared)


def _target(plan: Plan, edge: Edge) -> str:
    side = f" (side output {edge.output.tag!r} of {edge.output.node})" if edge.output.tag else ""
    return f"{edge.target}{side}: {_spread(plan, edge)}"


def _label(plan: Plan, edge: Edge) -> str:
    side = f"{edge.output.tag}, " if edge.output.tag else ""
    return side + _spread(plan, edge)


def _spread(plan: Plan, edge: Edge) -> str:
    subtasks = {task.id: task.parallelism for task in plan.tasks}
    if subtasks[edge.target] == 1:
        return "one to one" if subtasks[edge.source] == 1 else "all to one"
    return _SPREADS[edge.partition]


def _guarantees(plan: Plan, delivery: Delivery) -> Iterator[str]:
    for source, sink in ways(plan.graph):
        promise = guarantee(source.source, sink.sink, delivery)
        why = reason(source.source, sink.sink, delivery)
        yield f"{source.id} -> {sink.id}: {promise} ({why})"


def _counted(plan: Plan) -> str:
    kinds = [kind_of(node) for node in plan.graph.nodes]
    tasks = sum(task.parallelism for task in plan.tasks)
    counts = [(kind, kinds.count(kind)) for kind in ("source", "step", "sink")]
    texts = [f"{n} {kind}{'s' * (n != 1)}" for kind, n in [*counts, ("running task", tasks)]]
    return ", ".join(texts)


def _box(node: Node) -> str:
    text = f'"{_escaped(node.id)}<br/>{_escaped(describe(node))}"'
    return f"([{text}])" if isinstance(node, SourceNode | SinkNode) else f"[{text}]"


def _escaped(text: str) -> str:
    return text.translate(_ENTITIES)
