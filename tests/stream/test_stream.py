"""Stream: each call describes one step more and refuses what cannot run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from flowrt.connectors.memory import MemorySink
from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, Operator, OutputTag
from flowrt.contract.state import ValueState
from flowrt.contract.steps import AssignTimestamps, Filter, FlatMap, Map, MapAsync, Process
from flowrt.contract.time import WatermarkStrategy
from flowrt.graph.nodes import Output, SinkNode, StepNode
from flowrt.stream import Flow, Stream

LATE = OutputTag[int]("late")


class Pass(Operator[Any, Any]):
    def process(self, value: Any, ctx: Context) -> None:
        ctx.emit(value)


class Last(Operator[Any, Any]):
    last = ValueState(int)

    def process(self, value: Any, ctx: Context) -> None:
        self.last.set(value)


async def wait(value: Any) -> Any:
    return value


def numbers() -> Stream[int]:
    return Flow("flow").source([1, 2, 3])


def last_step(stream: Stream[Any]) -> StepNode:
    """The step that a stream comes out of."""
    flow = stream._description
    stream.sink(MemorySink(), name="the-end")
    nodes = {node.id: node for node in flow.build().nodes}
    end = nodes["the-end"]
    assert isinstance(end, SinkNode)
    node = nodes[end.inputs[0].node]
    assert isinstance(node, StepNode)
    return node


def test_steps_read_what_came_before() -> None:
    step = last_step(numbers().map(str).filter(bool))

    assert step == StepNode("filter-1", Filter(bool), (Output("map-1"),))


@pytest.mark.parametrize(
    ("describe", "kind"),
    [
        (lambda stream: stream.map(str), Map),
        (lambda stream: stream.map(wait), Map),
        (lambda stream: stream.map_async(wait), MapAsync),
        (lambda stream: stream.map_async_batch(wait, max_size=2), MapAsync),
        (lambda stream: stream.filter(wait), Filter),
        (lambda stream: stream.flat_map(wait), FlatMap),
        (lambda stream: stream.process(Pass()), Process),
        (lambda stream: stream.join_static({}, on=str, merge=max), FlatMap),
        (lambda stream: stream.join_static({}, on=str, merge=max, how="left"), Map),
        (lambda stream: stream.join_static(dict, on=str, merge=max), Process),
        (lambda s: s.assign_timestamps(WatermarkStrategy.monotonous()), AssignTimestamps),
    ],
)
def test_each_call_is_one_step(describe: Callable[[Any], Stream[Any]], kind: type) -> None:
    step = last_step(describe(numbers()))

    assert isinstance(step.step, kind)
    assert not step.keyed


def test_name_and_parallelism_are_taken_by_every_step() -> None:
    strategy = WatermarkStrategy[int].monotonous()
    options: dict[str, Any] = {"name": "here", "parallelism": 7}
    streams: list[Stream[Any]] = [
        numbers().map(str, **options),
        numbers().map_async(wait, **options),
        numbers().map_async_batch(wait, max_size=2, **options),
        numbers().filter(bool, **options),
        numbers().flat_map(lambda value: [value], **options),
        numbers().process(Pass, **options),
        numbers().assign_timestamps(strategy, **options),
        numbers().join_static({}, on=str, merge=max, **options),
    ]
    for stream in streams:
        step = last_step(stream)
        assert (step.id, step.parallelism) == ("here", 7)


class TestUnion:
    def test_a_step_reads_all(self) -> None:
        flow = Flow("flow")
        one, two, three = (flow.source([n], name=name) for n, name in enumerate("abc"))

        step = last_step(one.union(two, three).map(str))

        assert step.inputs == (Output("a"), Output("b"), Output("c"))

    def test_a_sink_reads_all(self) -> None:
        flow = Flow("flow")
        flow.source([1], name="a").union(flow.source([2], name="b")).sink(MemorySink(), name="out")

        end = flow.build().nodes[-1]
        assert isinstance(end, SinkNode)
        assert end.inputs == (Output("a"), Output("b"))

    def test_of_nothing(self) -> None:
        with pytest.raises(GraphError, match="needs at least one other stream"):
            numbers().union()

    def test_with_itself(self) -> None:
        stream = numbers()
        with pytest.raises(GraphError, match="has 'source-1' twice"):
            stream.union(stream)

    def test_of_two_flows(self) -> None:
        mine, other = Flow("mine").source([1]), Flow("theirs").source([1])
        with pytest.raises(GraphError, match=r"of flow 'mine' and .* of flow 'theirs'"):
            mine.union(other)

    def test_with_something_else(self) -> None:
        something: Any = [1, 2]
        with pytest.raises(GraphError, match=r"\[1, 2\] is no stream to unite with"):
            numbers().union(something)


class TestSideOutput:
    def test_is_read_beside_the_main_output(self) -> None:
        split = numbers().process(Pass, name="split")
        split.sink(MemorySink())

        step = last_step(split.side_output(LATE).map(str))

        assert step.inputs == (Output("split", "late"),)

    @pytest.mark.parametrize(
        "stream",
        [
            numbers(),
            numbers().map(str),
            numbers().process(Pass).side_output(LATE),
        ],
    )
    def test_only_process_has_them(self, stream: Stream[Any]) -> None:
        with pytest.raises(
            GraphError, match="has no side output 'late': take it from what process"
        ):
            stream.side_output(LATE)

    def test_a_union_has_none(self) -> None:
        stream = numbers()
        with pytest.raises(GraphError, match="has no side output"):
            stream.process(Pass).union(stream).side_output(LATE)

    def test_needs_a_tag(self) -> None:
        tag: Any = "late"
        with pytest.raises(GraphError, match="side_output needs an OutputTag"):
            numbers().process(Pass).side_output(tag)


def test_start_new_chain_is_for_the_next_step_only() -> None:
    flow = Flow("flow")
    flow.source([1]).start_new_chain().map(str).filter(bool).sink(MemorySink())

    starts = {n.id: n.new_chain for n in flow.build().nodes if isinstance(n, StepNode)}
    assert starts == {"map-1": True, "filter-1": False}


def test_start_new_chain_survives_union_and_comes_before_key_by_too() -> None:
    flow = Flow("flow")
    one, two = flow.source([1]), flow.source([2])

    assert last_step(one.start_new_chain().union(two).map(str)).new_chain
    one.start_new_chain().key_by(str, name="keys").count().sink(MemorySink())
    assert [n.new_chain for n in flow.build().nodes if n.id == "keys"] == [True]  # type: ignore[union-attr]


def test_a_stream_says_where_it_comes_from() -> None:
    assert repr(numbers().map(str)) == "<Stream of 'map-1'>"


def _yields(value: Any, ctx: Context) -> Iterator[Any]:
    yield value


async def _yields_later(value: Any) -> AsyncIterator[Any]:
    yield value


STRATEGY: Any = WatermarkStrategy.monotonous()


@pytest.mark.parametrize(
    ("describe", "text"),
    [
        (lambda s: s.map(5), "step 'map-1' of flow 'flow': map needs a function as fn, and 5"),
        (lambda s: s.map(lambda: 5), "map calls fn with 1 argument, and"),
        (lambda s: s.filter(None), "step 'filter-1' of flow 'flow': filter needs a function"),
        (lambda s: s.flat_map(_yields_later), "_yields_later is an asynchronous generator: use"),
        (lambda s: s.key_by(wait), "key_by needs a plain function as fn, and wait is a coroutine"),
        (lambda s: s.key_by(wait, name="keys"), "step 'keys' of flow 'flow': key_by needs"),
        (
            lambda s: s.process(5),
            "process needs an Operator or a function of (value, ctx), and got",
        ),
        (lambda s: s.process(int), "process needs an Operator class, and int is none"),
        (lambda s: s.process(_yields), "_yields yields: use ctx.emit"),
        (lambda s: s.process(lambda value: 1), "takes neither"),
        (
            lambda s: s.assign_timestamps("2s"),
            "assign_timestamps needs a WatermarkStrategy and got",
        ),
        (lambda s: s.assign_timestamps(STRATEGY.with_timestamps(wait)), "wait is a coroutine"),
        (lambda s: s.join_static(5, on=str, merge=max), "as table (unless a mapping), and 5"),
        (
            lambda s: s.join_static({}, on=wait, merge=max),
            "join_static needs a plain function as on",
        ),
        (lambda s: s.join_static({}, on=str, merge=str.lower), "merge with 2 arguments"),
        (lambda s: s.join_static({}, on=str, merge=max, how="full"), "'inner' or 'left'"),
        (lambda s: s.map(str, name="a b"), "a map of flow 'flow' cannot be named 'a b'"),
        (lambda s: s.map(str, parallelism=0), "step 'map-1' of flow 'flow' has parallelism=0"),
        (lambda s: s.sink(print), "cannot write to <built-in function print>: pass an instance of"),
        (
            lambda s: s.sink(MemorySink),
            "pass an instance of a Sink; for a function use ForeachSink",
        ),
        (
            lambda s: s.sink(MemorySink(), parallelism=500),
            "sink 'source-1.sink' of flow 'flow' has",
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(describe: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(GraphError) as caught:
        describe(numbers())

    assert text in str(caught.value)


def test_state_without_keys_is_found_when_the_flow_is_built() -> None:
    stream = numbers().process(Last())
    stream.sink(MemorySink())

    with pytest.raises(GraphError, match="step 'process-1' keeps state for each key"):
        stream._description.build()


def test_a_stream_that_leads_nowhere_is_found_when_the_flow_is_built() -> None:
    stream = numbers()
    stream.sink(MemorySink())
    stream.map(str, name="forgotten")

    with pytest.raises(GraphError, match="nobody reads what comes out of step 'forgotten'"):
        stream._description.build()
