"""Derived ids: what state and positions are found by where the user gave no name."""

from __future__ import annotations

from typing import Any

from flowrt.connectors.memory import MemorySink
from flowrt.graph.nodes import Graph, StepNode
from flowrt.stream import Flow, Stream


def ids(graph: Graph) -> list[str]:
    return [node.id for node in graph.nodes]


def numbers(flow: Flow) -> Stream[int]:
    return flow.source([1, 2, 3])


def test_an_id_says_the_kind_and_the_how_manieth_of_it() -> None:
    flow = Flow("flow")
    numbers(flow).map(str).filter(bool).map(len).key_by(str).count().sink(MemorySink())

    assert ids(flow.build()) == [
        "source-1",
        "map-1",
        "filter-1",
        "map-2",
        "key_by-1",
        "count-1",
        "count-1.sink",
    ]


def test_a_name_takes_its_place() -> None:
    flow = Flow("flow")
    named = flow.source([1], name="numbers").map(str, name="as-text").map(len)
    named.sink(MemorySink(), name="out")

    assert ids(flow.build()) == ["numbers", "as-text", "map-2", "out"]


def test_ids_stay_when_other_branches_sinks_and_kinds_of_steps_are_added() -> None:
    plain, grown = Flow("flow"), Flow("flow")
    numbers(plain).map(str).key_by(str).count().sink(MemorySink())

    source = numbers(grown)
    mapped = source.filter(bool).map(str)
    mapped.sink(MemorySink())
    counted = mapped.flat_map(list).key_by(str).count()
    counted.filter(bool).sink(MemorySink())
    counted.sink(MemorySink())
    source.sink(MemorySink())

    assert set(ids(plain.build())) <= set(ids(grown.build()))


def test_of_two_equal_places_the_later_gets_a_number() -> None:
    flow = Flow("flow")
    source = numbers(flow)
    for _ in range(3):
        source.map(str).sink(MemorySink())
    source.sink(MemorySink())
    source.sink(MemorySink())

    assert ids(flow.build()) == [
        "source-1",
        *["map-1", "map-1.sink", "map-1.2", "map-1.2.sink", "map-1.3", "map-1.3.sink"],
        *["source-1.sink", "source-1.sink.2"],
    ]


def test_sources_and_unions() -> None:
    flow = Flow("flow")
    one, other = numbers(flow), numbers(flow)
    united = one.map(abs).map(abs).union(other.map(abs), other)
    united.map(abs).sink(MemorySink())

    # Behind a union the longest way counts, so that no id can come twice on one way.
    graph = flow.build()
    assert ids(graph)[:2] == ["source-1", "source-1.2"]
    last: Any = graph.nodes[-2]
    assert isinstance(last, StepNode)
    assert last.id == "map-3"


def test_a_derived_id_makes_way_for_a_name() -> None:
    flow = Flow("flow")
    numbers(flow).map(str, name="filter-1").filter(bool).sink(MemorySink())

    assert ids(flow.build())[1:3] == ["filter-1", "filter-1.2"]
