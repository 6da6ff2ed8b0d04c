"""A flow that cannot run is refused when it is built, by an error that names the culprit."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.state import ListState, ValueState
from flowrt.contract.steps import Process
from flowrt.graph.build import build
from flowrt.graph.check import declared_states
from flowrt.graph.names import check_name
from flowrt.graph.nodes import Node, SinkNode
from tests.graph.nodes import COUNT, KEY_BY, PASS, AnySink, Pass, outputs, sink, source, step


def refusal(*nodes: Node, name: str = "flow") -> str:
    with pytest.raises(GraphError) as caught:
        build(name, nodes)
    return str(caught.value)


def test_a_flow_that_can_run_is_built_upstream_first() -> None:
    graph = build("flow", [sink("out", "map"), step("map", "source"), source()])

    assert graph.name == "flow"
    assert [node.id for node in graph.nodes] == ["source", "map", "out"]


def test_the_order_of_description_is_kept_where_it_can_be() -> None:
    nodes = [source(), step("a", "source"), sink("out", "a"), step("b", "source"), sink("x", "b")]

    assert build("flow", nodes).nodes == tuple(nodes)


class TestEnds:
    def test_no_source(self) -> None:
        assert "flow 'empty' has no source" in refusal(name="empty")

    def test_no_sink(self) -> None:
        assert "flow 'flow' has no sink: end a stream with .sink" in refusal(source())

    def test_a_step_that_nobody_reads(self) -> None:
        text = refusal(source(), sink("out", "source"), step("idle", "source"))

        assert "nobody reads what comes out of step 'idle'" in text

    def test_a_source_that_nobody_reads(self) -> None:
        text = refusal(source(), sink("out", "source"), source("forgotten"))

        assert "nobody reads what comes out of source 'forgotten'" in text

    def test_a_side_output_is_enough(self) -> None:
        build("flow", [source(), step("split", "source", step=PASS), sink("out", "split/late")])


class TestNames:
    @pytest.mark.parametrize("name", ["a", "map-2", "count-1.sink.2", "_", "x" * 100, "0"])
    def test_good(self, name: str) -> None:
        assert check_name(name, "a step") == name

    @pytest.mark.parametrize(
        "name", ["", "a/b", "..", ".a", "-a", "a.", "a b", "é", "x" * 101, "a\n", None, 3, "a:b"]
    )
    def test_bad(self, name: object) -> None:
        with pytest.raises(GraphError, match=r"a step cannot be named .*: use 1 to 100 letters"):
            check_name(name, "a step")

    def test_of_the_flow(self) -> None:
        assert "a flow cannot be named 'a/b'" in refusal(source(), name="a/b")

    def test_of_a_node(self) -> None:
        assert "a source cannot be named 'a b'" in refusal(source("a b"))

    def test_used_twice(self) -> None:
        text = refusal(source(), step("twin", "source"), sink("twin", "twin"))

        assert "the name 'twin' is used 2 times (by step and sink)" in text

    def test_that_differ_only_in_case(self) -> None:
        text = refusal(source(), step("Source", "source"), sink("out", "Source"))

        assert "the names 'source' and 'Source' differ only in case" in text


class TestNumbers:
    @pytest.mark.parametrize("parallelism", [0, -1, 129, 1.0, True, "2", None])
    def test_parallelism(self, parallelism: Any) -> None:
        text = refusal(source(), sink("out", "source", parallelism=parallelism))

        assert f"sink 'out' has parallelism={parallelism!r}: it must be a whole number" in text

    @pytest.mark.parametrize("rate", [0, -2.5, float("inf"), float("nan"), "10", True])
    def test_rate(self, rate: Any) -> None:
        text = refusal(source(max_rate=rate), sink("out", "source"))

        assert "source 'source' has max_rate=" in text

    def test_limits(self) -> None:
        build("flow", [source(max_rate=0.1, parallelism=128), sink("out", "source", parallelism=1)])


class TestInputs:
    def test_a_union_of_nothing(self) -> None:
        text = refusal(source(), step("map"), sink("out", "map", "source"))

        assert "step 'map' reads nothing: a union needs at least one stream" in text

    def test_a_stream_with_itself(self) -> None:
        text = refusal(source(), sink("out", "source", "source"))

        assert "sink 'out' reads 'source' twice" in text

    def test_what_is_not_there(self) -> None:
        text = refusal(source(), sink("out", "source", "ghost"))

        assert "sink 'out' reads from 'ghost', which is not part of the flow" in text

    def test_a_sink(self) -> None:
        text = refusal(source(), sink("out", "source"), sink("behind", "out"))

        assert "sink 'behind' reads from sink 'out': nothing comes out of a sink" in text

    def test_a_side_output_of_what_has_none(self) -> None:
        text = refusal(source(), step("map", "source"), sink("out", "map/late"))

        assert "sink 'out' reads side output 'late' of step 'map', which has none" in text

    def test_a_cycle(self) -> None:
        nodes = [source(), step("a", "source", "b"), step("b", "c"), step("c", "a")]

        text = refusal(*nodes, sink("out", "c"))

        assert "the steps 'a' -> 'c' -> 'b' -> 'a' read from each other in a circle" in text

    def test_a_cycle_further_up(self) -> None:
        nodes = [sink("out", "a"), step("a", "b"), step("b", "b", "source"), source()]

        assert "the steps 'b' -> 'b' read from each other" in refusal(*nodes)


class Seen(Operator[str, str]):
    """Declares state; `None` is no state."""

    nothing = None
    last = ValueState(str)

    def process(self, value: str, ctx: Context) -> None:
        self.last.set(value)


class SeenTwice(Seen):
    last = ValueState(str, name="newest")
    all = ListState(str)


class TestKeyedState:
    def test_a_fold_without_keys(self) -> None:
        text = refusal(source(), step("count", "source", step=COUNT), sink("out", "count"))

        assert "step 'count' keeps state for each key (count), and its stream has no keys" in text

    def test_an_operator_with_state_without_keys(self) -> None:
        text = refusal(
            source(), step("seen", "source", step=Process(SeenTwice)), sink("out", "seen")
        )

        assert "step 'seen' keeps state for each key (newest, all)" in text
        assert "put key_by(...) before it" in text

    def test_an_operator_without_state_needs_no_keys(self) -> None:
        build("flow", [source(), step("pass", "source", step=PASS), sink("out", "pass")])

    def test_a_keyed_step_on_an_unkeyed_stream(self) -> None:
        text = refusal(source(), step("c", "source", step=COUNT, keyed=True), sink("out", "c"))

        assert "step 'c' needs a key for each record, and what it reads from 'source'" in text

    def test_a_keyed_step_on_a_union_of_which_one_has_no_keys(self) -> None:
        text = refusal(
            source(),
            step("keys", "source", step=KEY_BY),
            step("count", "keys", "source", step=COUNT, keyed=True),
            sink("out", "count"),
        )

        assert "what it reads from 'source' has none" in text

    def test_a_keyed_step_behind_key_by(self) -> None:
        nodes = [source(), step("keys", "source", step=KEY_BY)]
        nodes_behind = [step("seen", "keys", step=Process(Seen), keyed=True), sink("out", "seen")]

        build("flow", [*nodes, *nodes_behind])

    def test_states_that_a_class_declares(self) -> None:
        assert [state.name for state in declared_states(SeenTwice())] == ["newest", "all"]
        assert declared_states(Pass()) == []


class TestOperators:
    def test_one_that_cannot_be_made(self) -> None:
        def broken() -> Operator[Any, Any]:
            raise OSError("no such host")

        text = refusal(source(), step("p", "source", step=Process(broken)), sink("out", "p"))

        assert "step 'p': its operator cannot be made: OSError: no such host" in text

    def test_a_factory_of_something_else(self) -> None:
        make: Any = dict
        text = refusal(source(), step("p", "source", step=Process(make)), sink("out", "p"))

        assert "step 'p': its factory returned {}, which is not an Operator" in text


def test_two_sinks_that_want_to_decide() -> None:
    deciding = [sink("one", "source", kind="deciding"), sink("two", "source", kind="deciding")]

    assert "the sinks 'one' and 'two' both want to decide" in refusal(source(), *deciding)


def test_one_deciding_sink_beside_others() -> None:
    build("flow", [source(), sink("one", "source", kind="deciding"), sink("two", "source")])


def test_one_sink_in_two_places() -> None:
    same = AnySink()
    twice = [SinkNode(id, same, outputs("source")) for id in ("one", "two")]

    assert "the sinks 'one' and 'two' are one object: unite the streams" in refusal(
        source(), *twice
    )
