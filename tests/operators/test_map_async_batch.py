"""map_async_batch: many values in one call, each with an answer of its own."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from flowrt import Cache, FixedDelay
from flowrt.contract.errors import GraphError, OperatorError
from flowrt.operators.map_async_batch import map_async_batch
from flowrt.testing import END, check_operator, drive, record, records, watermark

pytestmark = pytest.mark.anyio


class Service:
    """Multiplies by ten, and notes what came together."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[list[int]] = []
        self._failures = failures

    async def ask(self, values: list[int]) -> Sequence[int]:
        self.calls.append([*values])
        answers = [value * 10 for value in values]
        values.clear()  # the list is its own
        if self._failures:
            self._failures -= 1
            raise OSError("connection refused")
        return answers


@pytest.mark.parametrize("ordered", [True, False])
async def test_laws(ordered: bool) -> None:
    step = map_async_batch(Service().ask, max_size=2, capacity=4, ordered=ordered)
    given = [record(1, at=3), record(2), record(3, at=4), watermark(10), record(4), record(5), END]
    expect = [
        *(record(10, at=3), record(20), record(30, at=4), watermark(10)),
        *(record(40), record(50), END),
    ]

    await check_operator(step, given, expect, ordered=ordered)


async def test_a_call_goes_out_when_it_is_full_or_after_the_wait() -> None:
    service = Service()
    step = map_async_batch(service.ask, max_size=3, max_wait="10s")

    out = await drive(step, records(*range(1, 8)), batch=7)

    assert out == records(*range(10, 80, 10))
    # trio begins calls in any order.
    assert sorted(map(len, service.calls)) == [1, 3, 3]
    assert sorted(value for call in service.calls for value in call) == [*range(1, 8)]


async def test_a_second_try_is_for_the_whole_call_and_the_cache_asks_for_less() -> None:
    service = Service(failures=1)
    step = map_async_batch(service.ask, max_size=2, retry=FixedDelay("1s"), cache=Cache())

    out = await drive(step, [*records(1, 2), *records(2, 3)], batch=2)

    assert out == records(10, 20, 20, 30)
    assert [sorted(call) for call in service.calls] == [[1, 2], [1, 2], [3]]


async def test_too_few_answers_are_an_error() -> None:
    async def forgetful(values: list[int]) -> list[int]:
        return values[1:]

    with pytest.raises(OperatorError, match="1 answer came back for 2 values: return a list with"):
        await drive(map_async_batch(forgetful, max_size=2), records(1, 2), batch=2)


class Tensor:
    """An array as libraries for models have it: no `Sequence`, and indexed by places."""

    def __init__(self, values: list[int]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, place: int) -> int:
        return self._values[place]

    def __array__(self) -> list[int]:
        return self._values


class Column(Tensor):
    """An array with labels, as tables have it: a place may be the label of another."""

    def keys(self) -> list[int]:
        return [1, 0]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({0: "zero", 1: "one"}, "dict"),  # would answer by place what was asked by id
        ("ab", "str"),
        (b"ab", "bytes"),
        ({1, 2}, "set"),
        ((value for value in "ab"), "generator"),
        ({1: 1, 2: 2}.values(), "dict_values"),
        (None, "NoneType"),
        (Column([0, 1]), "Column"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_list_of_answers_is_refused(answers: Any, kind: str) -> None:
    async def asked(values: list[int]) -> Any:
        return answers

    message = f"a {kind} came back for 2 values: return a list with one answer for each, in order"
    with pytest.raises(OperatorError, match=message):
        await drive(map_async_batch(asked, max_size=2), records(1, 0), batch=2)


@pytest.mark.parametrize("kind", [list, tuple, deque, partial(array, "q"), Tensor])
async def test_any_sequence_of_answers_will_do(kind: Callable[[list[int]], Any]) -> None:
    async def asked(values: list[int]) -> Any:
        return kind([value * 10 for value in values])

    step = map_async_batch(asked, max_size=2)

    assert await drive(step, records(1, 2), batch=2) == records(10, 20)


@pytest.mark.parametrize("options", [{"max_size": 0}, {"max_size": 11, "capacity": 10}])
def test_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=r"map_async_batch has max_size=\d+ and capacity=\d+"):
        map_async_batch(Service().ask, **options)
