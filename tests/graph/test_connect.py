"""Steps with two inputs, and dealing out, in graphs: checked, planned, explained."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, CoOperator
from flowrt.contract.state import BroadcastState, MapState
from flowrt.contract.steps import Connect, Process, Step
from flowrt.graph.build import build
from flowrt.graph.explain import explain, mermaid
from flowrt.graph.nodes import Edge, Node, Output, SinkNode, StepNode
from flowrt.graph.plan import plan
from tests.graph.nodes import KEY_BY, PASS, AnySink, Pass, outputs, sink, source, step


class Join(CoOperator[Any, Any, Any]):
    def process_left(self, value: Any, ctx: Context) -> None:
        ctx.emit(value)

    def process_right(self, value: Any, ctx: Context) -> None:
        ctx.emit(value)


class Keyed(Join):
    seen = MapState(str, int)


class Ruled(Keyed):
    rules = BroadcastState(str, int)


class RuledPass(Pass):
    rules = BroadcastState(str, int)


JOIN = Connect(Join)
ONE_INPUT: Any = Pass


def two(*right: str, left: str = "a", step: Step = JOIN, **more: Any) -> Node:
    inputs = outputs(left, *right)
    return StepNode("join", step, inputs, right=outputs(*right), **more)


A_AND_B = [source("a"), source("b"), step("a-keys", "a", step=KEY_BY)]
BY_KEY = [*A_AND_B, step("b-keys", "b", step=KEY_BY)]


def refusal(*nodes: Node) -> str:
    with pytest.raises(GraphError) as caught:
        build("flow", [*nodes, sink("out", "join")])
    return str(caught.value)


def edges(*nodes: Node) -> list[Edge]:
    return list(plan(build("flow", nodes)).edges)


def test_two_streams_without_keys_and_two_with() -> None:
    plain = [source("a"), source("b"), two("b"), sink("out", "join/side"), sink("all", "join")]
    assert [e.partition for e in edges(*plain)] == ["forward"] * 4

    keyed = two("b-keys", left="a-keys", step=Connect(Keyed), keyed=True, parallelism=2)
    assert [(e.source, e.partition) for e in edges(*BY_KEY, keyed, sink("out", "join"))][:2] == [
        ("a", "hash"),
        ("b", "hash"),
    ]


@pytest.mark.parametrize("right", ["b", "b-keys"])
def test_a_broadcast_stream_goes_to_every_subtask_with_keys_or_without(right: str) -> None:
    rules = Connect(Ruled, broadcast=True)
    join = two(right, left="a-keys", step=rules, keyed=True, parallelism=3)
    nodes = BY_KEY if right == "b-keys" else A_AND_B

    found = edges(*nodes, join, sink("out", "join"))

    assert {e.output.node: e.partition for e in found if e.target == "join"} == {
        "a-keys": "hash",
        right: "broadcast",
    }


def test_it_begins_a_task_of_its_own_and_others_join_it() -> None:
    nodes = [source("a"), source("b"), two("b"), step("map", "join"), sink("out", "map")]

    tasks = plan(build("flow", nodes)).tasks

    assert [[s.id for s in task.steps] for task in tasks] == [[], [], ["join", "map"], []]


def test_a_mix_of_keys_is_refused_by_name() -> None:
    text = refusal(*A_AND_B, two("b", left="a-keys", step=Connect(Keyed), keyed=True))
    assert "step 'join' connects a stream with keys with 'b', which has none: put key_by" in text

    text = refusal(*BY_KEY, sink("a-out", "a-keys"), two("b-keys", left="a"))
    assert "step 'join' connects a stream without keys with 'b-keys', which has keys" in text

    text = refusal(*BY_KEY, sink("a-out", "a-keys"), two("b-keys", left="a", keyed=True))
    assert "step 'join' needs a key for each record, and what it reads from 'a' has none" in text


@pytest.mark.parametrize(
    ("join", "text"),
    [
        (two("b", step=Connect(Keyed)), "keeps state for each key (seen), and its stream has no k"),
        (two("b", step=Connect(Ruled)), "keeps broadcast state (rules), and nothing is broadcast"),
        (step("join", "a", "b", step=Process(RuledPass)), "and nothing is broadcast to it: read c"),
        (
            two("b", step=Connect(ONE_INPUT)),
            "a Pass has one input: derive it from flowrt.CoOperator",
        ),
        (step("join", "a", "b", step=Process(Join)), "a Join has two inputs: use connect(other)"),
        (step("join", "a", "b", step=Connect(Join)), "needs two inputs, the second the last of"),
        (StepNode("join", Connect(Join), outputs("a", "b"), right=outputs("a")), "needs two inp"),
        (StepNode("join", Connect(Join), outputs("a", "b"), right=outputs("a", "b")), "needs two"),
        (two("b", "a"), "reads 'a' twice"),
    ],
)
def test_what_cannot_run_is_refused_by_name(join: Node, text: str) -> None:
    told = refusal(source("a"), source("b"), join)

    assert told.startswith("step 'join'")
    assert text in told


def test_what_is_dealt_out_gets_a_task_of_its_own_at_equal_parallelism() -> None:
    out = Output("a")
    nodes = [
        source("a", parallelism=2),
        StepNode("busy", PASS, (out,), parallelism=2, rebalanced=(out,)),
        SinkNode("out", AnySink(), outputs("busy"), 2, outputs("busy")),
    ]

    assert [(e.target, e.partition) for e in edges(*nodes)] == [
        ("busy", "rebalance"),
        ("out", "rebalance"),
    ]


def test_they_are_explained() -> None:
    rules = Connect(Ruled, broadcast=True)
    join = two("b", left="a-keys", step=rules, keyed=True, parallelism=2)
    made = plan(build("flow", [*A_AND_B, join, sink("out", "join")]))

    text = explain(made, "exactly_once")

    assert (
        "  join    connect a-keys with b: Ruled; state seen (MapState) for each key; "
        "state rules in every subtask\n"
    ) in text
    assert "  -> join: to every subtask\n" in text
    assert "  -> join: by key\n" in text
    assert '-->|"to every subtask"|' in mermaid(made)
