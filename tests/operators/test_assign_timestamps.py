"""assign_timestamps: gives a stream its event time."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt import FixedDelay, Flow
from flowrt.contract.errors import GraphError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.steps import AssignTimestamps, Filter
from flowrt.contract.time import WatermarkStrategy
from flowrt.operators.assign_timestamps import assign_timestamps
from flowrt.testing import (
    END,
    FAIL,
    IDLE,
    RecordingSink,
    ScriptedSource,
    barrier,
    check_operator,
    drive,
    processing_time,
    record,
    records,
    run_flow,
    watermark,
)

STRATEGY: WatermarkStrategy[Any] = WatermarkStrategy.monotonous()


async def wait(value: int) -> int:
    return value


@pytest.mark.parametrize("strategy", [STRATEGY, STRATEGY.with_timestamps(int)])
def test_with_or_without_timestamps_from_records(strategy: WatermarkStrategy[Any]) -> None:
    assert assign_timestamps(strategy) == AssignTimestamps(strategy)


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ("2s", "assign_timestamps needs a WatermarkStrategy and got '2s'"),
        (WatermarkStrategy.monotonous, "assign_timestamps needs a WatermarkStrategy and got"),
        (STRATEGY.with_timestamps(5), "as with_timestamps(...), and 5 cannot be called"),  # type: ignore[arg-type]
        (STRATEGY.with_timestamps(wait), "as with_timestamps(...), and wait is a corout"),  # type: ignore[arg-type]
    ],
)
def test_what_gives_no_timestamps_is_refused(strategy: Any, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        assign_timestamps(strategy)

    assert text in str(caught.value)


@pytest.mark.anyio
async def test_laws() -> None:
    strategy: WatermarkStrategy[int] = WatermarkStrategy.bounded_out_of_orderness("2ms")
    given = [record(5, at=1), record(9), watermark(100), *records(7, 8, 12), END]

    expect = [
        record(5, at=5),
        watermark(2),
        record(9, at=9),
        watermark(6),
        record(7, at=7),
        record(8, at=8),
        record(12, at=12),
        watermark(9),
        END,
    ]

    await check_operator(assign_timestamps(strategy.with_timestamps(int)), given, expect)


@pytest.mark.anyio
async def test_an_idle_stream_is_said_to_be() -> None:
    strategy = STRATEGY.with_timestamps(int).with_idleness("1s")
    given = [processing_time(500), record(5), processing_time(1_500), record(6), END]

    # Told again before the first record: a filter may drop that, and the rest is over all the same.
    expect = [
        record(5, at=5),
        watermark(4),
        IDLE,
        watermark(4),
        record(6, at=6),
        watermark(5),
        END,
    ]

    await check_operator(assign_timestamps(strategy), given, expect)


@pytest.mark.anyio
async def test_a_rest_from_before_goes_through_and_so_does_its_end() -> None:
    strategy = STRATEGY.with_timestamps(int)
    given = [record(5), IDLE, watermark(100), IDLE, record(6), IDLE, END]

    expect = [
        record(5, at=5),
        watermark(4),
        IDLE,
        watermark(4),
        IDLE,
        watermark(4),
        record(6, at=6),
        watermark(5),
        IDLE,
        END,
    ]

    await check_operator(assign_timestamps(strategy), given, expect)


@pytest.mark.anyio
async def test_only_a_record_ends_a_rest_that_began_because_none_came() -> None:
    strategy = STRATEGY.with_timestamps(int).with_idleness("1s")
    given = [record(5), processing_time(1_000), watermark(100), watermark(200), record(6)]

    expect = [record(5, at=5), watermark(4), IDLE, watermark(4), record(6, at=6), watermark(5)]

    await check_operator(assign_timestamps(strategy), given, expect)


@pytest.mark.anyio
async def test_a_rest_ends_although_a_later_step_has_no_record_to_show() -> None:
    strategy = STRATEGY.with_timestamps(int).with_idleness("1s")
    steps = [
        assign_timestamps(strategy),
        Filter(lambda value: value < 6),
        assign_timestamps(STRATEGY.with_timestamps(int)),
    ]
    given = [record(5), processing_time(1_000), record(6), END]

    expect = [record(5, at=5), watermark(4), IDLE, watermark(4), END]

    await check_operator(steps, given, expect)


@pytest.mark.anyio
@pytest.mark.parametrize("idle", [True, False])
async def test_after_a_restart_those_that_follow_are_told_again(idle: bool) -> None:
    step = assign_timestamps(STRATEGY.with_timestamps(int).with_idleness("1s"))
    time = processing_time(1_000 if idle else 999)
    before = await drive(step, [record(5), time, barrier(1)])

    after = await drive(step, [record(6)], restore=before.snapshots[1])

    told = [watermark(4), IDLE, watermark(4)] if idle else [watermark(4)]
    assert after == [*told, record(6, at=6), watermark(5)]


class Due(Operator[Any, int]):
    """Tells at which processing time event time reached 75 ms."""

    def process(self, value: Any, ctx: Context) -> None:
        if value < 75:
            ctx.timers.register_event_time(75)

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        ctx.emit(ctx.world.clock.now_ms() // 1_000)


@pytest.mark.anyio
@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("crash", [[], [FAIL]], ids=["whole", "restarted"])
async def test_a_stream_that_went_quiet_holds_nothing_up_after_a_restart(
    idle: bool, crash: list[Any]
) -> None:
    """Neither when it is idle nor when it is ahead: event time goes on as without the crash."""
    strategy = STRATEGY.with_timestamps(int).with_idleness("1s" if idle else "1h")
    quiet: ScriptedSource[int] = ScriptedSource([10 if idle else 100, processing_time(9_000)])
    lively: ScriptedSource[int] = ScriptedSource(
        [20, processing_time(2_500), *crash, 90, processing_time(8_000)], chunk=1
    )
    sink: RecordingSink[int] = RecordingSink()
    flow = Flow("quiet")
    times = [flow.source(one).assign_timestamps(strategy) for one in (quiet, lively)]
    times[0].union(times[1]).key_by(lambda value: 0).process(Due).sink(sink)

    await run_flow(flow, restart=FixedDelay("10ms", attempts=1))

    assert sink.rows == [2]
