"""union and side outputs in whole flows: what has no step of its own to be checked alone."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt import Flow, OutputTag
from flowrt.contract.operator import Context
from flowrt.contract.retry import FixedDelay
from flowrt.testing import (
    FAIL,
    RecordingSink,
    ScriptedSource,
    processing_time,
    run_flow,
)

pytestmark = pytest.mark.anyio

ODD: OutputTag[int] = OutputTag("odd")


def part(value: int, ctx: Context) -> None:
    if value % 2:
        ctx.side(ODD, value)
    else:
        ctx.emit(value)


@pytest.mark.parametrize("parallelism", [1, 3])
async def test_a_union_has_each_record_of_each_stream_once(parallelism: int) -> None:
    sink: RecordingSink[Any] = RecordingSink()
    left: ScriptedSource[int] = ScriptedSource([1, 2, processing_time(1_500), FAIL, 3], chunk=1)
    right: ScriptedSource[int] = ScriptedSource({"a": [10, 20], "b": [30, FAIL, 40]})
    flow = Flow("union", parallelism=parallelism)
    flow.source(left).union(flow.source(right)).map(str).sink(sink)

    status = await run_flow(flow, restart=FixedDelay("1s", attempts=2))

    assert sorted(sink.rows) == ["1", "10", "2", "20", "3", "30", "40"]
    assert status.restarts == 2


async def test_a_union_of_keyed_results_is_counted_together() -> None:
    sink: RecordingSink[Any] = RecordingSink()
    flow = Flow("union")
    words = flow.source(ScriptedSource[str](["a", "b"]))
    more = flow.source(ScriptedSource[str](["a", FAIL, "a"]))
    words.union(more).key_by(lambda word: word).count().sink(sink)

    await run_flow(flow, restart=FixedDelay("1s", attempts=1))

    assert sorted(sink.rows) == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]


async def test_side_outputs_go_where_they_are_taken() -> None:
    even: RecordingSink[int] = RecordingSink()
    odd: RecordingSink[int] = RecordingSink()
    flow = Flow("parted")
    parted = flow.source(ScriptedSource[int]([1, 2, FAIL, 3, 4])).process(part)
    parted.sink(even)
    parted.side_output(ODD).sink(odd)

    await run_flow(flow, restart=FixedDelay("1s", attempts=1))

    assert even.rows == [2, 4]
    assert odd.rows == [1, 3]
