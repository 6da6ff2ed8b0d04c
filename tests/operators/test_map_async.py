"""map_async: one value in, one value out, many calls under way at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowrt import Cache, FixedDelay, Flow, MemorySink
from flowrt.contract.errors import ConfigError, GraphError, OperatorError
from flowrt.operators.key_by import key_by
from flowrt.operators.map_async import map_async
from flowrt.operators.sum import sum as sum_step
from flowrt.testing import (
    END,
    IDLE,
    check_operator,
    drive,
    manual_world,
    record,
    records,
    run_flow,
    watermark,
)

pytestmark = pytest.mark.anyio

GIVEN = [
    *(record(1, at=3), record(2), record(3, at=4), watermark(10), record(4, at=12)),
    *(IDLE, record(5), watermark(20), watermark(30), record(6), END),
]
EXPECT = [
    *(record(10, at=3), record(20), record(30, at=4), watermark(10), record(40, at=12)),
    *(IDLE, record(50), watermark(20), watermark(30), record(60), END),
]


async def times_ten(value: int) -> int:
    return value * 10


@pytest.mark.parametrize("capacity", [1, 100])
@pytest.mark.parametrize("ordered", [True, False])
async def test_laws(ordered: bool, capacity: int) -> None:
    step = map_async(times_ten, ordered=ordered, capacity=capacity)

    await check_operator(step, GIVEN, EXPECT, ordered=ordered)


async def test_laws_of_a_keyed_stream_and_steps_behind_it() -> None:
    steps = [map_async(times_ten), key_by(lambda value: value % 20), sum_step(int)]
    given = [record(1), record(2), record(3), watermark(5), record(4), END]
    expect = [
        *(record((10, 10)), record((0, 20)), record((10, 40))),
        *(watermark(5), record((0, 60)), END),
    ]

    await check_operator(steps, given, expect)
    await check_operator(map_async(times_ten), GIVEN, EXPECT, key=lambda value: value % 3)


async def test_options_reach_the_call() -> None:
    asked: Counter[int] = Counter()

    async def shaky(value: int) -> int:
        asked[value] += 1
        if asked[value] < 3:
            raise OSError("connection refused")
        return value

    step = map_async(shaky, retry=FixedDelay("1s", attempts=2), timeout="1s", cache=Cache())

    assert await drive(step, records(1, 2, 1)) == records(1, 2, 1)
    assert asked == {1: 3, 2: 3}


async def test_the_last_exception_fails_with_operator_and_record() -> None:
    async def refuses(value: int) -> int:
        raise OSError("connection refused")

    step = map_async(refuses, retry=FixedDelay("1s", attempts=2))
    with pytest.raises(OperatorError, match=r"raised OSError: connection refused at the record 7"):
        await drive(step, records(7))


async def test_in_a_flow_with_other_steps() -> None:
    sink: MemorySink[str] = MemorySink()
    flow = Flow("asks")
    flow.source(range(50)).filter(lambda n: n % 2).map_async(times_ten, capacity=3).map(str).sink(
        sink
    )

    await run_flow(flow, world=manual_world())

    assert sink.rows == [str(n * 10) for n in range(50) if n % 2]


async def yields(value: int) -> AsyncIterator[int]:
    yield value


@pytest.mark.parametrize(
    ("fn", "options", "message"),
    [
        (yields, {}, r"map_async needs a coroutine function as fn, and yields yields"),
        ((n for n in [1]), {}, r"map_async"),
        (times_ten, {"capacity": 0}, r"map_async has capacity=0"),
    ],
)
def test_refused(fn: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        map_async(fn, **options)


def test_a_duration_that_is_none() -> None:
    with pytest.raises(ConfigError):
        map_async(times_ten, timeout="soon")
