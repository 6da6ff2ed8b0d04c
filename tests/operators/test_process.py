"""process: an instance, a class, a factory or a function becomes an operator."""

from __future__ import annotations

import inspect
import threading
from functools import partial
from typing import Any

import pytest

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, Operator
from flowrt.operators.process import FunctionOperator, process
from flowrt.testing import END, check_operator, record, watermark
from tests.operators.recording import Recording, context


class Every(Operator[int, int]):
    """Emits every n-th value."""

    def __init__(self, n: int, names: Any = None, client: Any = None) -> None:
        self.n = n
        self.names: list[str] = list(names or [])
        self.client = client

    def process(self, value: int, ctx: Context) -> None:
        if value % self.n == 0:
            ctx.emit(value)


class EverySecond(Every):
    def __init__(self) -> None:
        super().__init__(2)


def twice(value: int, ctx: Context) -> None:
    ctx.emit(value)
    ctx.emit(value)


async def twice_later(value: int, ctx: Context) -> None:
    twice(value, ctx)


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (Every(2), Every),
        (EverySecond, EverySecond),
        (lambda: Every(2), Every),
        (partial(Every, 2), Every),
        (partial(Every, n=2), Every),
        (twice, FunctionOperator),
        (twice_later, FunctionOperator),
        (lambda value, ctx: ctx.emit(value), FunctionOperator),
    ],
)
def test_each_subtask_gets_an_instance_of_its_own(what: Any, kind: type) -> None:
    step = process(what)
    one, other = step.make(), step.make()

    assert type(one) is type(other) is kind
    assert one is not other
    assert one is not what


def test_an_instance_is_copied_as_it_was_when_it_was_passed() -> None:
    prototype = Every(2, names=["a"])
    step = process(prototype)
    prototype.names.append("b")
    first: Any = step.make()
    first.names.append("c")
    second: Any = step.make()

    assert second.names == ["a"]


def test_what_cannot_be_copied_is_refused_with_advice() -> None:
    with pytest.raises(GraphError, match=r"a Every cannot .* open clients and files in open\(\)"):
        process(Every(2, client=threading.Lock()))


def test_a_function_is_the_process_method() -> None:
    recording = Recording()
    operator = process(twice).make()

    assert operator.process(3, context(recording)) is None
    assert recording.emitted == [3, 3]
    assert repr(operator) == "FunctionOperator(twice)"


@pytest.mark.anyio
async def test_a_coroutine_function_is_seen_to_be_one() -> None:
    recording = Recording()
    operator = process(twice_later).make()

    assert inspect.iscoroutinefunction(operator.process)
    done = operator.process(3, context(recording))
    assert done is not None
    await done
    assert recording.emitted == [3, 3]


async def _yields_later(value: Any, ctx: Context) -> Any:
    yield value


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (5, "needs an Operator or a function of (value, ctx), and got 5"),
        (int, "needs an Operator class, and int is none: derive it from flowrt.Operator"),
        (Every, "makes Every without arguments, and it needs some: pass an instance"),
        (lambda value: value, "takes neither"),
        (_yields_later, "_yields_later yields: use ctx.emit"),
    ],
)
def test_what_is_no_operator_is_refused(what: Any, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        process(what)

    assert text in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("what", [twice, twice_later])
async def test_laws_of_a_function(what: Any) -> None:
    given = [record(1, at=3), watermark(5), record(2), END]

    expect = [record(1, at=3), record(1, at=3), watermark(5), record(2), record(2), END]

    await check_operator(process(what), given, expect)


@pytest.mark.anyio
@pytest.mark.parametrize("what", [Every(2), EverySecond, lambda: Every(2), partial(Every, 2)])
async def test_laws_of_a_class(what: Any) -> None:
    given = [record(1, at=3), record(2, at=4), watermark(5), record(4), END]

    await check_operator(process(what), given, [record(2, at=4), watermark(5), record(4), END])
