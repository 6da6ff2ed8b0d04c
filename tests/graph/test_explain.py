"""`flowrt explain`: tasks, chains, state and guarantees, as text and as a diagram."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.operator import Context, Operator
from flowrt.contract.sink import Sink, SinkKind
from flowrt.contract.snapshot import Delivery
from flowrt.contract.state import MapState
from flowrt.contract.steps import AssignTimestamps, FlatMap, Process
from flowrt.contract.time import WatermarkStrategy
from flowrt.graph.build import build
from flowrt.graph.explain import explain, mermaid
from flowrt.graph.guarantee import guarantee, reason, ways
from flowrt.graph.nodes import Node, Output, Plan, SinkNode
from flowrt.graph.plan import plan
from tests.graph.nodes import (
    COUNT,
    FILTER,
    KEY_BY,
    MAP_ASYNC,
    PASS,
    AnySink,
    AnySource,
    sink,
    source,
    step,
)


class Seen(Operator[str, str]):
    last = MapState(str, int)

    def process(self, value: str, ctx: Context) -> None:
        ctx.emit(value)


class Threshold(Operator[int, int]):
    def __init__(self, above: int) -> None:
        self.above = above

    def process(self, value: int, ctx: Context) -> None:
        ctx.emit(value)

    def __repr__(self) -> str:
        return f"Threshold(above={self.above})"


def planned(*nodes: Node) -> Plan:
    return plan(build("delays", nodes))


def test_the_plan_as_text() -> None:
    flow = planned(
        source("flights"),
        step("late", "flights", step=FILTER),
        step("by-carrier", "late", step=KEY_BY),
        step("count", "by-carrier", step=COUNT, keyed=True, parallelism=2),
        sink("out", "count", kind="direct"),
    )

    assert explain(flow, "exactly_once") == (
        "flow delays: 1 source, 3 steps, 1 sink, 4 running tasks\n"
        "\n"
        "task flights (parallelism 1)\n"
        "  flights     source: AnySource; replayable; bounded\n"
        "  late        filter: bool\n"
        "  by-carrier  key_by: str\n"
        "  -> count: by key\n"
        "\n"
        "task count (parallelism 2)\n"
        "  count       running count; state count (int) for each key\n"
        "  -> out: all to one\n"
        "\n"
        "task out (parallelism 1)\n"
        "  out         sink: AnySink; direct\n"
        "\n"
        "end to end, with delivery exactly_once\n"
        "  flights -> out: at-least-once (the sink shows records at once: after a crash those "
        "since the last epoch come again)\n"
    )


def test_steps_sources_and_edges_of_every_kind() -> None:
    strategy = WatermarkStrategy.monotonous()
    text = explain(
        planned(
            source("a", watermarks=strategy, max_rate=10.5, parallelism=2),
            step("map", "a"),
            step("words", "map", step=FlatMap(lambda line: line.split()), parallelism=2),
            step("time", "words", step=AssignTimestamps(strategy), parallelism=2),
            step("keys", "time", step=KEY_BY, parallelism=2),
            step("seen", "keys", step=Process(Seen), keyed=True, parallelism=2),
            step("high", "seen", step=Process(lambda: Threshold(3)), parallelism=3),
            step("pass", "seen/late", step=PASS, parallelism=2),
            step("ask", "pass", step=MAP_ASYNC),
            sink("out", "high", "ask"),
        ),
        "at_least_once",
    )

    for line in [
        "a      source: AnySource; replayable; bounded; event time; at most 10.5 records/s",
        "words  flat_map: test_steps_sources_and_edges_of_every_kind.lambda",
        "time   assign timestamps",
        "seen   process: Seen; state last (MapState) for each key",
        "high   process: Threshold(above=3)",
        "pass   process: Pass",
        "ask    map_async: ask; 10 calls at once, unordered",
        "-> map: all to one",
        "-> words: in turn, without order",
        "-> seen: by key",
        "-> high: in turn, without order",
        "-> pass (side output 'late' of seen): subtask to subtask",
    ]:
        assert f"  {line}\n" in text


def test_the_plan_as_a_diagram() -> None:
    flow = planned(
        source("flights"),
        step("end", "flights", step=FlatMap(lambda value: value)),
        sink("out", "end"),
    )

    assert mermaid(flow) == (
        "flowchart LR\n"
        '  subgraph t0["flights (parallelism 1)"]\n'
        '    n0(["flights<br/>source: AnySource; replayable; bounded"])\n'
        '    n1["end<br/>flat_map: test_the_plan_as_a_diagram.lambda"]\n'
        "    n0 --> n1\n"
        "  end\n"
        '  subgraph t1["out (parallelism 1)"]\n'
        '    n2(["out<br/>sink: AnySink; repeatable"])\n'
        "  end\n"
        '  n1 -->|"one to one"| n2\n'
    )


def test_what_a_user_wrote_cannot_break_the_diagram() -> None:
    class Quoted(Sink[Any]):
        def describe(self) -> str:
            return '"] <b>#1 & co'

    out = SinkNode("out", Quoted(), (Output("split", "late"),))
    flow = planned(source(), step("split", "source", step=PASS), out)

    text = mermaid(flow)

    assert "#quot;] #lt;b#gt;#35;1 #amp; co" in text
    assert 'n1 -->|"late, one to one"| n2' in text


@pytest.mark.parametrize(
    ("replayable", "kind", "delivery", "promise", "why"),
    [
        (True, "repeatable", "exactly_once", "exactly-once", "appear with their epoch"),
        (True, "deciding", "exactly_once", "exactly-once", "appear with their epoch"),
        (True, "direct", "exactly_once", "at-least-once", "shows records at once"),
        (True, "repeatable", "at_least_once", "at-least-once", "not aligned"),
        (True, "direct", "at_least_once", "at-least-once", "not aligned"),
        (True, "deciding", "at_most_once", "at-most-once", "no checkpoints"),
        (False, "repeatable", "exactly_once", "at-most-once", "cannot read again"),
        (False, "direct", "at_least_once", "at-most-once", "cannot read again"),
        (False, "deciding", "at_most_once", "at-most-once", "no checkpoints"),
    ],
)
def test_guarantee(
    replayable: bool, kind: SinkKind, delivery: Delivery, promise: str, why: str
) -> None:
    ends = AnySource(replayable=replayable), AnySink(kind)

    assert guarantee(*ends, delivery) == promise
    assert why in reason(*ends, delivery)


def test_every_source_is_held_against_the_sinks_that_it_reaches() -> None:
    graph = build(
        "flow",
        [
            source("a"),
            source("b"),
            step("both", "a", "b"),
            sink("united", "both"),
            sink("alone", "b"),
        ],
    )

    assert [(one.id, other.id) for one, other in ways(graph)] == [
        ("a", "united"),
        ("b", "united"),
        ("b", "alone"),
    ]
