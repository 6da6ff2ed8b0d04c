"""`on_error=` of steps and of a flow: what is described, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.connectors.memory import MemorySink
from flowrt.contract.errors import GraphError
from flowrt.contract.on_error import DeadLetter, OnError
from flowrt.contract.operator import OutputTag
from flowrt.contract.retry import FixedDelay
from flowrt.contract.steps import MapAsync
from flowrt.contract.time import WatermarkStrategy
from flowrt.graph.explain import describe
from flowrt.graph.nodes import Output, SinkNode, StepNode
from flowrt.stream import Flow, Stream

BAD = OutputTag[DeadLetter]("bad")
SKIP = OnError.skip()
LETTER = OnError.dead_letter(BAD)
RETRY = OnError.retry(FixedDelay("1s"), then=SKIP)


def policies(flow: Flow) -> dict[str, OnError]:
    return {n.id: n.on_error for n in flow.build().nodes if isinstance(n, StepNode)}


def inputs(flow: Flow, sink: str) -> tuple[Output, ...]:
    return next(n.inputs for n in flow.build().nodes if isinstance(n, SinkNode) and n.id == sink)


async def later(value: Any) -> Any:
    return value


def both(value: Any, ctx: Any) -> None:
    ctx.emit(value)


def lines(stream: Stream[Any]) -> list[Stream[Any]]:
    """A step of each kind, with a policy."""
    keyed = stream.key_by(lambda v: v, on_error=SKIP)
    connected = stream.connect(stream.map(str, on_error=SKIP))
    return [
        stream.filter(bool, on_error=SKIP),
        stream.flat_map(lambda v: [v], on_error=SKIP),
        stream.map_async(later, on_error=SKIP),
        stream.map_async_batch(later, max_size=2, on_error=SKIP),
        stream.process(both, on_error=SKIP),
        stream.join_static({}, on=str, merge=lambda a, b: a, on_error=SKIP),
        keyed.reduce(lambda a, b: a, on_error=SKIP),
        keyed.aggregate(list, lambda a, b: a, on_error=SKIP),
        keyed.count(on_error=SKIP),
        keyed.sum(on_error=SKIP),
        keyed.min(on_error=SKIP),
        keyed.max(on_error=SKIP),
        keyed.process(both, on_error=SKIP),
        connected.process(both, both, on_error=SKIP),
        connected.map(str, str, on_error=SKIP),
        connected.flat_map(list, list, on_error=SKIP),
    ]


def test_every_step_takes_a_policy() -> None:
    flow = Flow("flow")
    for line in lines(flow.source([1])):
        line.sink(MemorySink())

    found = policies(flow)

    assert len(found) == 18
    assert set(found.values()) == {SKIP}


def test_the_flow_says_it_for_all_steps_that_say_nothing() -> None:
    flow = Flow("flow", on_error=SKIP)
    stream = flow.source([1]).map(str).filter(bool, on_error=OnError.fail())
    stream.assign_timestamps(WatermarkStrategy[Any].monotonous()).sink(MemorySink())

    assert policies(flow) == {
        "map-1": SKIP,
        "filter-1": OnError.fail(),
        "assign_timestamps-1": OnError.fail(),
    }


def test_nothing_said_is_to_fail() -> None:
    flow = Flow("flow")
    flow.source([1]).map(str).sink(MemorySink())

    (policy,) = policies(flow).values()

    assert policy == OnError.fail()
    assert policy.fails_at_once
    assert "on error" not in describe(flow.build().nodes[1])


def test_letters_are_read_from_the_step_or_from_the_flow() -> None:
    flow = Flow("flow")
    letters = flow.dead_letters(BAD)
    one = flow.source([1]).map(str, name="one", on_error=LETTER)
    two = one.filter(bool, name="two", on_error=OnError.retry(FixedDelay("1s"), then=LETTER))
    two.map(len, name="three", on_error=SKIP).sink(MemorySink())
    one.side_output(BAD).sink(MemorySink(), name="of-one")
    letters.sink(MemorySink())

    assert inputs(flow, "of-one") == (Output("one", "bad"),)
    assert inputs(flow, "dead_letters.sink") == (Output("one", "bad"), Output("two", "bad"))


def test_letters_can_be_united_with_others_and_dealt_out() -> None:
    flow = Flow("flow")
    stream = flow.source([1]).map(str, on_error=LETTER)
    texts = flow.dead_letters(BAD).rebalance()
    united: Stream[Any] = stream.union(texts)  # type: ignore[arg-type]
    united.map(str).sink(MemorySink())

    node = next(n for n in flow.build().nodes if n.id.startswith("map-2"))

    assert isinstance(node, StepNode)
    assert node.inputs == (Output("map-1"), Output("map-1", "bad"))
    assert node.rebalanced == (Output("map-1", "bad"),)


def test_what_reads_letters_does_not_send_them_by_default() -> None:
    flow = Flow("flow", on_error=LETTER)
    flow.source([1]).map(str, name="a").sink(MemorySink())
    flow.dead_letters(BAD).map(str, name="b").map(str, name="c").sink(MemorySink())

    assert policies(flow) == {"a": LETTER, "b": OnError.fail(), "c": OnError.fail()}


def test_letters_that_nobody_reads_are_refused() -> None:
    flow = Flow("flow")
    flow.source([1]).map(str, on_error=LETTER).sink(MemorySink())

    with pytest.raises(GraphError, match=r"nobody reads the dead letters of step 'map-1': end "):
        flow.build()


def test_letters_that_nobody_sends_are_refused() -> None:
    flow = Flow("flow")
    flow.source([1]).map(str, on_error=SKIP).sink(MemorySink())
    flow.dead_letters(BAD).sink(MemorySink())

    with pytest.raises(GraphError, match=r"'dead_letters\.sink' of flow 'flow' reads dead letters"):
        flow.build()


def test_a_step_that_reads_its_own_letters_is_refused() -> None:
    flow = Flow("flow")
    flow.source([1]).map(str, on_error=LETTER).sink(MemorySink())
    flow.dead_letters(BAD).map(str, on_error=LETTER).sink(MemorySink())

    with pytest.raises(GraphError, match="in a circle"):
        flow.build()


def test_only_the_tag_of_a_policy_is_a_side_output() -> None:
    stream = Flow("flow").source([1]).map(str, on_error=LETTER)

    with pytest.raises(GraphError, match="has no side output 'other'"):
        stream.side_output(OutputTag[DeadLetter]("other"))
    with pytest.raises(GraphError, match="has no side output 'bad'"):
        Flow("flow").source([1]).side_output(BAD)


@pytest.mark.parametrize("wrong", ["skip", OnError, FixedDelay("1s")])
def test_what_is_no_policy_is_refused(wrong: Any) -> None:
    with pytest.raises(GraphError, match=r"flow 'flow' has on_error=.*: it is OnError.fail\(\)"):
        Flow("flow", on_error=wrong)
    with pytest.raises(GraphError, match="step 'map-1' of flow 'flow' has on_error="):
        Flow("flow").source([1]).map(str, on_error=wrong)
    with pytest.raises(GraphError, match="map_async of flow 'flow' has on_error="):
        Flow("flow").source([1]).map_async(later, on_error=wrong)


def test_what_makes_no_policy_is_refused() -> None:
    with pytest.raises(GraphError, match="dead_letter needs an OutputTag"):
        OnError.dead_letter("bad")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="dead_letters needs an OutputTag"):
        Flow("flow").dead_letters("bad")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="retry needs a strategy"):
        OnError.retry(3)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="what follows a retry"):
        OnError.retry(FixedDelay("1s"), then=RETRY)


def test_the_tries_of_calls_are_those_of_the_call() -> None:
    flow = Flow("flow", on_error=RETRY)
    stream = flow.source([1])
    stream.map_async(later, name="a").sink(MemorySink())
    stream.map_async(later, name="b", retry=FixedDelay("2s")).sink(MemorySink())
    stream.map_async(later, name="c", on_error=RETRY).sink(MemorySink())

    assert policies(flow) == {"a": SKIP, "b": SKIP, "c": SKIP}
    assert all(isinstance(n.step, MapAsync) for n in flow.build().nodes if isinstance(n, StepNode))
    with pytest.raises(GraphError, match="give one of them"):
        stream.map_async(later, retry=FixedDelay("2s"), on_error=RETRY)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (SKIP, "map: later; on error skip"),
        (LETTER, "map: later; on error dead letter to 'bad'"),
        (RETRY, "map: later; on error retry, then skip"),
        (OnError.retry(FixedDelay("1s")), "map: later; on error retry, then fail"),
    ],
)
def test_a_plan_says_it(policy: OnError, told: str) -> None:
    flow = Flow("flow")
    flow.source([1]).map(later, on_error=policy).sink(MemorySink())
    if policy.tag is not None:
        flow.dead_letters(policy.tag).sink(MemorySink())

    assert describe(flow.build().nodes[1]) == told
