"""The plan: what runs together, and how records get from task to task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.graph.build import build
from flowrt.graph.nodes import (
    Node,
    Output,
    Plan,
    SinkNode,
    SourceNode,
    StepNode,
    TaskPlan,
    inputs_of,
)
from flowrt.graph.plan import CHAIN_LIMIT, plan
from tests.graph.nodes import COUNT, FILTER, KEY_BY, MAP, MAP_ASYNC, PASS, sink, source, step


def planned(*nodes: Node) -> Plan:
    return plan(build("flow", nodes))


def tasks(*nodes: Node) -> list[str]:
    """The tasks, each as its nodes in a line."""
    return [" ".join(node.id for node in nodes_of(task)) for task in planned(*nodes).tasks]


def edges(*nodes: Node) -> list[tuple[str, str, str]]:
    return [(edge.source, edge.target, edge.partition) for edge in planned(*nodes).edges]


def nodes_of(task: TaskPlan) -> list[Node]:
    ends: tuple[Node | None, ...] = (task.source, *task.steps, task.sink)
    return [node for node in ends if node is not None]


def test_a_line_is_one_task_and_the_sink_another() -> None:
    line = [source(), step("map", "source"), step("filter", "map", step=FILTER)]
    flow = [*line, sink("out", "filter")]

    assert tasks(*flow) == ["source map filter", "out"]
    assert edges(*flow) == [("source", "out", "forward")]
    assert planned(*flow).edges[0].output == Output("filter")


def test_two_readers_of_an_output_end_a_task() -> None:
    flow = [source(), step("a", "source"), step("b", "a"), sink("out", "b"), sink("all", "a")]

    assert tasks(*flow) == ["source a", "b", "out", "all"]
    assert edges(*flow) == [
        ("source", "b", "forward"),
        ("b", "out", "forward"),
        ("source", "all", "forward"),
    ]


def test_a_union_starts_a_task() -> None:
    flow = [source("a"), source("b"), step("map", "a", "b"), sink("out", "map")]

    assert tasks(*flow) == ["a", "b", "map", "out"]


def test_new_chain_starts_a_task() -> None:
    flow = [source(), step("map", "source", new_chain=True), sink("out", "map")]

    assert tasks(*flow) == ["source", "map", "out"]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3)])
def test_another_parallelism_starts_a_task_and_spreads_records(before: int, after: int) -> None:
    flow = [
        source(parallelism=before),
        step("map", "source", parallelism=after),
        sink("out", "map", parallelism=after),
    ]

    assert tasks(*flow) == ["source", "map", "out"]
    assert edges(*flow) == [("source", "map", "rebalance"), ("map", "out", "forward")]
    assert [task.parallelism for task in planned(*flow).tasks] == [before, after, after]


def test_calls_that_are_under_way_at_once_start_a_task_and_what_follows_joins_it() -> None:
    flow = [
        *(source(), step("map", "source"), step("ask", "map", step=MAP_ASYNC)),
        *(step("again", "ask", step=MAP_ASYNC), step("after", "again"), sink("out", "after")),
    ]

    assert tasks(*flow) == ["source map", "ask", "again after", "out"]


def test_calls_for_a_stream_with_keys_get_the_records_of_a_key_in_one_subtask() -> None:
    keyed = step("keys", "source", step=KEY_BY, parallelism=2)
    flow = [source(parallelism=2), keyed, step("ask", "keys", step=MAP_ASYNC, parallelism=2)]

    assert ("source", "ask", "hash") in edges(*flow, sink("out", "ask"))


def test_a_line_that_is_too_long_is_cut() -> None:
    names = [f"m{number}" for number in range(CHAIN_LIMIT + 1)]
    above = ["source", *names]
    line = [step(name, before) for name, before in zip(names, above, strict=False)]

    assert tasks(source(), *line, sink("out", names[-1])) == [
        " ".join(["source", *names[:-1]]),
        names[-1],
        "out",
    ]


class TestSideOutputs:
    def test_the_main_output_chains_on_all_the_same(self) -> None:
        flow = [
            source(),
            step("split", "source", step=PASS),
            step("map", "split"),
            sink("out", "map"),
            sink("late", "split/late"),
        ]

        assert tasks(*flow) == ["source split map", "out", "late"]
        assert planned(*flow).edges[1].output == Output("split", "late")

    def test_a_step_on_a_side_output_has_a_task_of_its_own(self) -> None:
        flow = [source(), step("split", "source", step=PASS), step("map", "split/late")]

        assert tasks(*flow, sink("out", "map")) == ["source split", "map", "out"]


class TestKeys:
    def test_in_one_subtask_records_need_not_travel(self) -> None:
        keys = step("keys", "source", step=KEY_BY)
        flow = [source(), keys, step("count", "keys", step=COUNT, keyed=True)]

        assert tasks(*flow, sink("out", "count")) == ["source keys count", "out"]

    @pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 2)])
    def test_otherwise_they_go_to_the_owner_of_their_key(self, before: int, after: int) -> None:
        flow = [
            source(parallelism=before),
            step("keys", "source", step=KEY_BY, parallelism=before),
            step("count", "keys", step=COUNT, keyed=True, parallelism=after),
            sink("out", "count", parallelism=after),
        ]

        assert tasks(*flow) == ["source keys", "count", "out"]
        assert edges(*flow)[0] == ("source", "count", "hash")

    def test_a_step_without_keys_behind_key_by_keeps_keys_together(self) -> None:
        keys = step("keys", "source", step=KEY_BY, parallelism=2)
        flow = [source(parallelism=2), keys, step("map", "keys", parallelism=2)]

        assert ("source", "map", "hash") in edges(*flow, sink("out", "map"))

    def test_two_readers_of_keys_end_a_task(self) -> None:
        keys = step("keys", "source", step=KEY_BY)
        readers = [step(name, "keys", step=COUNT, keyed=True) for name in ("a", "b")]
        flow = [source(), keys, *readers, sink("out", "a", "b")]

        assert tasks(*flow) == ["source keys", "a", "b", "out"]
        assert edges(*flow)[:2] == [("source", "a", "hash"), ("source", "b", "hash")]

    def test_a_union_of_keyed_streams(self) -> None:
        flow = [
            source("a"),
            source("b"),
            step("by-a", "a", step=KEY_BY),
            step("by-b", "b", step=KEY_BY),
            step("count", "by-a", "by-b", step=COUNT, keyed=True),
            sink("out", "count"),
        ]

        assert tasks(*flow) == ["a by-a", "b by-b", "count", "out"]
        assert edges(*flow)[:2] == [("a", "count", "hash"), ("b", "count", "hash")]


@st.composite
def flows(draw: st.DrawFn) -> list[Node]:
    """A flow of any shape: every node reads what was described before it."""
    parallelism = st.integers(1, 3)
    nodes: list[Node] = [
        source(f"source{number}", parallelism=draw(parallelism))
        for number in range(draw(st.integers(1, 3)))
    ]
    for number in range(draw(st.integers(0, 20))):
        # The newest is drawn often, so that there are long lines too.
        readable = st.one_of(st.just(nodes[-1].id), st.sampled_from([node.id for node in nodes]))
        inputs = draw(st.lists(readable, min_size=1, max_size=2, unique=True))
        what = draw(st.sampled_from([MAP, MAP, FILTER, KEY_BY, PASS]))
        new_chain = draw(st.sampled_from([False, False, False, True]))
        options: dict[str, Any] = {"step": what, "new_chain": new_chain}
        nodes.append(step(f"n{number}", *inputs, parallelism=draw(parallelism), **options))
    read = {output.node for node in nodes for output in inputs_of(node)}
    unread = [node.id for node in nodes if node.id not in read]
    nodes += [sink(f"{id}-out", id, parallelism=draw(parallelism)) for id in unread]
    return draw(st.permutations(nodes))


def holds(law: Callable[[list[Node], Plan], None]) -> Callable[[], None]:
    """A test that draws flows and checks a law of their plans."""

    @given(flows())
    def check(nodes: list[Node]) -> None:
        law(nodes, planned(*nodes))

    return check


def every_node_is_in_one_task(nodes: list[Node], plan: Plan) -> None:
    placed = [node for task in plan.tasks for node in nodes_of(task)]

    assert sorted(node.id for node in placed) == sorted(node.id for node in nodes)
    for task in plan.tasks:
        assert task.id == nodes_of(task)[0].id
        assert {node.parallelism for node in nodes_of(task)} == {task.parallelism}


def every_reading_is_covered_once(nodes: list[Node], plan: Plan) -> None:
    wanted = [(output, node.id) for node in nodes for output in inputs_of(node)]
    inside = [
        (Output(before.id), after.id)
        for task in plan.tasks
        for before, after in zip(nodes_of(task), nodes_of(task)[1:], strict=False)
    ]
    between = [(edge.output, edge.target) for edge in plan.edges]

    assert sorted(inside + between, key=repr) == sorted(wanted, key=repr)


def tasks_follow_what_they_read(nodes: list[Node], plan: Plan) -> None:
    place = {task.id: number for number, task in enumerate(plan.tasks)}

    assert all(place[edge.source] < place[edge.target] for edge in plan.edges)
    assert len(place) == len(plan.tasks)


def a_task_is_a_source_or_channels_then_steps_or_a_sink(nodes: list[Node], plan: Plan) -> None:
    for task in plan.tasks:
        first, *rest = nodes_of(task)
        assert task.sink is None or (not task.steps and task.source is None)
        assert all(isinstance(node, StepNode) for node in rest)
        assert isinstance(first, SourceNode | StepNode | SinkNode)
        assert len(task.steps) <= CHAIN_LIMIT


def an_edge_starts_at_its_task_and_moves_keys_to_their_owner(nodes: list[Node], plan: Plan) -> None:
    by_id = {node.id: node for node in nodes}
    task_of = {node.id: task for task in plan.tasks for node in nodes_of(task)}
    for edge in plan.edges:
        sender, reader = by_id[edge.output.node], by_id[edge.target]
        assert task_of[sender.id].id == edge.source
        is_keyed = isinstance(sender, StepNode) and sender.step is KEY_BY
        assert (edge.partition == "hash") == is_keyed
        if edge.partition == "forward":
            assert sender.parallelism == reader.parallelism


test_every_node_is_in_one_task = holds(every_node_is_in_one_task)
test_every_reading_is_covered_once = holds(every_reading_is_covered_once)
test_tasks_follow_what_they_read = holds(tasks_follow_what_they_read)
test_a_task_is_a_line = holds(a_task_is_a_source_or_channels_then_steps_or_a_sink)
test_edges_are_right = holds(an_edge_starts_at_its_task_and_moves_keys_to_their_owner)
