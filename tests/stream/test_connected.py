"""connect, broadcast and rebalance as calls on streams: what they describe, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowrt import (
    BroadcastState,
    BroadcastStream,
    ConnectedStreams,
    Context,
    CoOperator,
    Flow,
    GraphError,
    KeyedStream,
    MemorySink,
    OutputTag,
    Stream,
    ValueState,
)
from flowrt.contract.steps import Connect
from flowrt.graph.nodes import Output, SinkNode, StepNode
from flowrt.testing import run_flow

RIGHTS = OutputTag[str]("rights")


class Join(CoOperator[int, str, str]):
    def process_left(self, value: int, ctx: Context) -> None:
        ctx.emit(str(value))

    def process_right(self, value: str, ctx: Context) -> None:
        ctx.emit(value)
        ctx.side(RIGHTS, value)


class Counts(CoOperator[int, str, str]):
    count = ValueState(int, default=0)

    def process_left(self, value: int, ctx: Context) -> None:
        self.count.set(self.count.get() + value)

    def process_right(self, value: str, ctx: Context) -> None:
        ctx.emit(f"{ctx.key}: {self.count.get()}")


class Ruled(CoOperator[int, str, str]):
    rules = BroadcastState(str, str)

    def process_left(self, value: int, ctx: Context) -> None:
        ctx.emit(self.rules.get("rule", "none"))

    def process_right(self, value: str, ctx: Context) -> None:
        self.rules.put("rule", value)


def flow_of() -> tuple[Flow, Stream[int], Stream[str]]:
    flow = Flow("f")
    return flow, flow.source([1, 2], name="numbers"), flow.source(["a"], name="words")


def nodes(flow: Flow) -> dict[str, Any]:
    return {node.id: node for node in flow.build().nodes}


def test_connect_describes_one_step_of_two_inputs() -> None:
    flow, numbers, words = flow_of()
    joined = numbers.connect(words).process(Join, name="join", parallelism=2)
    joined.sink(MemorySink())
    joined.side_output(RIGHTS).sink(MemorySink())

    join = nodes(flow)["join"]

    assert isinstance(join, StepNode)
    assert isinstance(join.step, Connect)
    assert not join.step.broadcast
    assert not join.keyed
    assert (join.inputs, join.right) == ((Output("numbers"), Output("words")), (Output("words"),))
    assert join.parallelism == 2


def test_keyed_streams_connect_to_a_keyed_step() -> None:
    flow, numbers, words = flow_of()
    keyed = numbers.key_by(lambda value: value).connect(words.key_by(len))
    keyed.process(Counts()).sink(MemorySink())

    assert nodes(flow)["connect-1"].keyed
    assert isinstance(keyed, ConnectedStreams)
    assert (
        repr(keyed)
        == "<ConnectedStreams of <KeyedStream of 'key_by-1'> with <KeyedStream of 'key_by-1.2'>>"
    )


def test_a_broadcast_stream_connects_with_keys_and_without() -> None:
    flow, numbers, words = flow_of()
    rules = words.broadcast()
    numbers.connect(rules).process(Ruled).sink(MemorySink())
    numbers.key_by(str).connect(rules).process(lambda: Ruled()).sink(MemorySink())  # noqa: PLW0108

    built = nodes(flow)

    assert isinstance(rules, BroadcastStream)
    assert repr(rules) == "<BroadcastStream of <Stream of 'words'>>"
    for id, keyed in (("connect-1", False), ("connect-1.2", True)):
        assert built[id].step.broadcast
        assert built[id].keyed == keyed
        assert built[id].right == (Output("words"),)


def test_unions_connect_with_all_they_read() -> None:
    flow, numbers, words = flow_of()
    more = flow.source([3], name="more")
    numbers.union(more).connect(words.union(flow.source(["b"], name="b"))).map(str, len).sink(
        MemorySink()
    )

    step = nodes(flow)["connect-1"]

    assert [output.node for output in step.inputs] == ["numbers", "more", "words", "b"]
    assert [output.node for output in step.right] == ["words", "b"]


@pytest.mark.anyio
async def test_functions_for_each_stream() -> None:
    flow, numbers, words = flow_of()
    rows: MemorySink[Any] = MemorySink()
    connected = numbers.connect(words)
    connected.map(lambda value: value * 10, str.upper).sink(rows)
    connected.flat_map(lambda value: [value] * value, list).sink(MemorySink())
    connected.process(
        lambda value, ctx: ctx.emit(value), lambda value, ctx: ctx.emit(value), name="both"
    ).sink(MemorySink())

    await run_flow(flow)

    assert sorted(map(str, rows.rows)) == ["10", "20", "A"]


def test_rebalance_is_remembered_by_steps_sinks_unions_and_connections() -> None:
    flow, numbers, words = flow_of()
    dealt = numbers.rebalance()
    dealt.map(str, name="map").sink(MemorySink())
    dealt.key_by(str, name="key").count().sink(MemorySink())
    dealt.start_new_chain().sink(MemorySink(), name="out")
    dealt.union(flow.source([3], name="more")).filter(bool, name="filter").sink(MemorySink())
    dealt.connect(words.rebalance()).map(str, str, name="two").sink(MemorySink())
    dealt.connect(words.rebalance().broadcast()).map(str, str, name="all").sink(MemorySink())

    built, one = nodes(flow), (Output("numbers"),)

    assert {id: built[id].rebalanced for id in ("map", "key", "out", "filter", "all")} == {
        **dict.fromkeys(("map", "key", "out", "filter", "all"), one)
    }
    assert built["two"].rebalanced == (Output("numbers"), Output("words"))
    assert isinstance(built["out"], SinkNode)


def test_rebalanced_records_have_no_keys() -> None:
    _, numbers, _ = flow_of()

    dealt = numbers.key_by(str).rebalance()

    assert type(dealt) is Stream
    assert isinstance(numbers.rebalance().key_by(str), KeyedStream)


def test_what_cannot_be_connected_is_refused_at_once() -> None:
    _, numbers, words = flow_of()
    elsewhere = Flow("g").source([1], name="others")
    keyed = numbers.key_by(str)
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: numbers.connect(numbers), "is connected with itself, by 'numbers'"),
        (lambda: numbers.connect(5), "<Stream of 'numbers'> of flow 'f': 5 is no stream to conn"),  # type: ignore[arg-type]
        (lambda: numbers.connect(elsewhere), "cannot be connected: they belong to different flows"),
        (lambda: keyed.connect(words), "<KeyedStream of 'key_by-1'> has keys and <Stream of 'wo"),  # type: ignore[arg-type]
        (lambda: words.connect(keyed), "<KeyedStream of 'key_by-1'> has keys and <Stream of 'wo"),
    ]
    for make, text in wrong:
        with pytest.raises(GraphError) as caught:
            make()
        assert text in str(caught.value)


def test_errors_of_operators_name_the_step() -> None:
    flow, numbers, words = flow_of()

    with pytest.raises(GraphError, match=r"step 'join' of flow 'f': process of connected streams"):
        numbers.connect(words).process(len, name="join")  # type: ignore[arg-type]
    numbers.process(Join, name="wrong").sink(MemorySink())  # type: ignore[arg-type]
    words.sink(MemorySink())
    with pytest.raises(GraphError, match=r"step 'wrong': a Join has two inputs: use connect"):
        flow.build()


def test_broadcast_state_without_a_broadcast_stream_is_refused_by_name() -> None:
    flow, numbers, words = flow_of()
    numbers.connect(words).process(Ruled, name="ruled").sink(MemorySink())

    with pytest.raises(
        GraphError, match=r"step 'ruled' keeps broadcast state \(rules\), and nothing"
    ):
        flow.build()
