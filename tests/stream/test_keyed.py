"""KeyedStream: running figures and operators with a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.state import ValueState
from flowrt.contract.steps import Fold, KeyBy, Process
from flowrt.graph.nodes import Output, StepNode
from flowrt.stream import Flow, KeyedStream, Stream
from tests.stream.test_stream import last_step, wait


class Last(Operator[int, int]):
    last = ValueState(int)

    def process(self, value: int, ctx: Context) -> None:
        self.last.set(value)


def keyed() -> KeyedStream[str, int]:
    return Flow("flow").source([1, 2, 3]).key_by(str)


def test_key_by_is_a_step() -> None:
    assert last_step(keyed()) == StepNode("key_by-1", KeyBy(str), (Output("source-1"),))


@pytest.mark.parametrize(
    ("describe", "name"),
    [
        (lambda stream, **options: stream.count(**options), "count"),
        (lambda stream, **options: stream.sum(**options), "sum"),
        (lambda stream, **options: stream.min(**options), "min"),
        (lambda stream, **options: stream.max(abs, **options), "max"),
        (lambda stream, **options: stream.reduce(max, **options), "reduce"),
        (lambda stream, **options: stream.aggregate(list, max, len, **options), "aggregate"),
    ],
)
def test_running_figures(describe: Callable[..., Stream[Any]], name: str) -> None:
    step = last_step(describe(keyed()))
    named = last_step(describe(keyed(), name="here", parallelism=2))

    assert isinstance(step.step, Fold)
    assert step.step.name == name
    assert step.id == f"{name}-1"
    assert step.keyed
    assert (named.id, named.parallelism, named.keyed) == ("here", 2, True)


def test_process_has_keys() -> None:
    step = last_step(keyed().process(Last(), parallelism=2))

    assert isinstance(step.step, Process)
    assert step.keyed
    assert step.parallelism == 2


def test_other_steps_give_a_stream_without_keys() -> None:
    stream = keyed().map(abs)

    assert type(stream) is Stream
    assert not last_step(stream).keyed


def test_a_new_chain_keeps_the_keys() -> None:
    step = last_step(keyed().start_new_chain().count())

    assert step.keyed
    assert step.new_chain


def test_a_union_of_keyed_streams_has_keys() -> None:
    source = Flow("flow").source([1])
    one, two = source.key_by(str), source.key_by(abs)

    united: Any = one.union(two)  # type: ignore[arg-type, call-overload, unused-ignore]

    step = last_step(united.count())
    assert step.inputs == (Output("key_by-1"), Output("key_by-1.2"))


def test_a_union_with_a_stream_without_keys_has_none() -> None:
    source = Flow("flow").source([1])

    assert type(source.key_by(str).union(source)) is Stream
    assert type(source.union(source.key_by(str))) is Stream


def test_keys_can_be_chosen_anew() -> None:
    assert last_step(keyed().key_by(abs).count()).inputs == (Output("key_by-2"),)


@pytest.mark.parametrize(
    ("describe", "text"),
    [
        (lambda s: s.reduce(wait), "step 'reduce-1' of flow 'flow': reduce calls fn with 2 arg"),
        (lambda s: s.sum(wait), "sum needs a plain function as of, and wait is a coroutine func"),
        (lambda s: s.min(of=wait), "min needs a plain function"),
        (lambda s: s.max(of=3), "max needs a function as of, and 3 cannot be called"),
        (lambda s: s.aggregate(0, max), "aggregate needs a function as create, and 0 cannot"),
        (lambda s: s.aggregate(list, wait), "aggregate calls add with 2 arguments, and wait can"),
        (lambda s: s.aggregate(list, max, wait), "aggregate needs a plain function as result"),
        (lambda s: s.count(parallelism=1.5), "step 'count-1' of flow 'flow' has parallelism=1.5"),
        (lambda s: s.process(object()), "step 'process-1' of flow 'flow': process needs an Op"),
    ],
)
def test_what_is_wrong_is_said_at_once(describe: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(GraphError) as caught:
        describe(keyed())

    assert text in str(caught.value)


def test_a_coroutine_cannot_fold() -> None:
    async def slow(total: int, value: int) -> int:
        return total + value

    stream: Any = keyed()
    with pytest.raises(
        GraphError, match=r"slow is a coroutine function: put what waits into a map"
    ):
        stream.reduce(slow)
