"""Flow: where a description begins, and what it refuses at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowrt.connectors.iterables import IterableSource
from flowrt.connectors.memory import MemorySink
from flowrt.contract.errors import GraphError
from flowrt.contract.time import WatermarkStrategy
from flowrt.graph.nodes import SourceNode
from flowrt.stream import Flow


def source_of(flow: Flow) -> SourceNode:
    node = flow.build().nodes[0]
    assert isinstance(node, SourceNode)
    return node


def test_a_flow_is_described_and_nothing_runs() -> None:
    def never(value: int) -> int:
        raise AssertionError("a description runs nothing")

    flow = Flow("delays")
    flow.source([1]).map(never).sink(MemorySink())

    assert flow.name == "delays"
    assert repr(flow) == "Flow('delays')"
    assert flow.build().name == "delays"
    assert [task.id for task in flow.plan().tasks] == ["source-1", "map-1.sink"]


def test_a_source_is_taken_as_it_is() -> None:
    source = IterableSource([1])
    strategy = WatermarkStrategy[int].monotonous()
    flow = Flow("flow")
    flow.source(source, watermarks=strategy, max_rate=5, parallelism=2).sink(MemorySink())

    assert source_of(flow) == SourceNode("source-1", source, strategy, 2, 5)


async def _later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("values", [[1], (1, 2), range(3), iter([1]), _later()])
def test_an_iterable_is_wrapped(values: Any) -> None:
    flow = Flow("flow")
    flow.source(values).sink(MemorySink())

    assert isinstance(source_of(flow).source, IterableSource)


def test_parallelism_comes_from_the_flow_unless_given() -> None:
    flow = Flow("flow", parallelism=3)
    source = flow.source([1], parallelism=1)
    source.map(str).key_by(str).count(parallelism=2).sink(MemorySink())
    source.key_by(str).count().sink(MemorySink(), parallelism=4)

    assert {node.id: node.parallelism for node in flow.build().nodes} == {
        "source-1": 1,
        "map-1": 3,
        "key_by-1": 3,  # keys are found where the records are
        "count-1": 2,
        "count-1.sink": 3,
        "key_by-1.2": 1,
        "count-1.2": 3,
        "count-1.2.sink": 4,
    }


ANY: Any = Flow  # as for a user without a type checker


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Flow("a/b"), "a flow cannot be named 'a/b'"),
        (lambda: Flow(""), "a flow cannot be named ''"),
        (lambda: Flow("a", parallelism=0), "flow 'a' has parallelism=0"),
        (lambda: ANY("a").source("data.csv"), "to read the file 'data.csv' use FileSource"),
        (lambda: ANY("a").source(7), "flow 'a' cannot read from 7: pass an instance of a Source"),
        (lambda: ANY("a").source(IterableSource), "pass an instance of a Source"),
        (lambda: Flow("a").source([1], name="b c"), "a source of flow 'a' cannot be named 'b c'"),
        (lambda: Flow("a").source([1], parallelism=-1), "source 'source-1' of flow 'a' has para"),
        (lambda: Flow("a").source([1], max_rate=0), "source 'source-1' of flow 'a' has max_rate=0"),
        (
            lambda: ANY("a").source([1], watermarks=5),
            "source of flow 'a' needs a WatermarkStrateg",
        ),
        (lambda: Flow("a").build(), "flow 'a' has no source"),
        (lambda: Flow("a").plan(), "flow 'a' has no source"),
    ],
)
def test_what_is_wrong_is_said_at_once(make: Any, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        make()

    assert text in str(caught.value)


def test_a_name_is_used_once() -> None:
    flow = Flow("flow")
    stream = flow.source([1], name="numbers")

    with pytest.raises(GraphError, match="flow 'flow' has two parts named 'numbers'"):
        stream.map(str, name="numbers")


def test_a_description_may_go_on_after_it_was_built() -> None:
    flow = Flow("flow")
    source = flow.source([1])
    source.sink(MemorySink())
    before = flow.build()
    source.map(str).sink(MemorySink())

    assert len(before.nodes) == 2
    assert len(flow.build().nodes) == 4
