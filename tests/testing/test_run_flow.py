"""run_flow: whole flows in memory, with failures, restarts and second lives."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt import Flow
from flowrt.contract.errors import InputError, LeaseError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.retry import FixedDelay
from flowrt.contract.state import ValueState
from flowrt.runtime.world import system_world
from flowrt.schedulers.continuous import Continuous
from flowrt.testing import (
    FAIL,
    PAUSE,
    ManualClock,
    MemoryFiles,
    RecordingSink,
    ScriptedSource,
    manual_world,
    passing_time,
    processing_time,
    run_flow,
)

pytestmark = pytest.mark.anyio


def counting(source: ScriptedSource[str], sink: RecordingSink[Any], parallelism: int = 1) -> Flow:
    flow = Flow("counting", parallelism=parallelism)
    flow.source(source).key_by(lambda word: word).count().sink(sink)
    return flow


async def test_a_flow_runs_to_its_end() -> None:
    sink: RecordingSink[Any] = RecordingSink()

    status = await run_flow(counting(ScriptedSource(["a", "b", "a"]), sink))

    assert sink.rows == [("a", 1), ("b", 1), ("a", 2)]
    assert (status.state, status.epoch, status.restarts) == ("finished", 1, 0)


async def test_epochs_end_while_the_source_waits() -> None:
    sink: RecordingSink[Any] = RecordingSink()
    source: ScriptedSource[str] = ScriptedSource(
        ["a", processing_time(2_500), "a", processing_time(3_500), "a"]
    )

    status = await run_flow(counting(source, sink), scheduler=Continuous("1s"))

    assert sink.rows == [("a", 1), ("a", 2), ("a", 3)]
    assert status.epoch == 4
    assert [positions["0"] for _, positions in source.committed_positions] == [1, 1, 3, 5]


@pytest.mark.parametrize("parallelism", [1, 2])
async def test_a_failure_between_two_epochs_repeats_and_loses_nothing(parallelism: int) -> None:
    sink: RecordingSink[Any] = RecordingSink()
    source: ScriptedSource[str] = ScriptedSource(
        ["a", "b", processing_time(1_500), "a", FAIL, "b", processing_time(9_000), "a", FAIL, "c"],
        chunk=1,
    )

    status = await run_flow(
        counting(source, sink, parallelism), restart=FixedDelay("1h", attempts=2)
    )

    assert sorted(sink.rows) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("c", 1)]
    assert status.restarts == 2
    assert source.closed == 3


@pytest.mark.parametrize("step", ["write", "prepare", "commit", "committed"])
async def test_a_sink_that_fails_is_asked_again(step: Any) -> None:
    sink: RecordingSink[Any] = RecordingSink(fail_on=[(step, 2)])
    source: ScriptedSource[str] = ScriptedSource(
        ["a", processing_time(1_500), "a", processing_time(2_500), "a"]
    )

    status = await run_flow(counting(source, sink), restart=FixedDelay("1s", attempts=1))

    assert sink.rows == [("a", 1), ("a", 2), ("a", 3)]
    assert status.restarts == 1


async def test_an_error_without_a_restart_is_raised() -> None:
    with pytest.raises(InputError, match="split '0' fails at element 1"):
        await run_flow(counting(ScriptedSource(["a", FAIL]), RecordingSink()))


async def test_a_second_life_in_the_same_world_goes_on() -> None:
    world = manual_world()
    sink: RecordingSink[Any] = RecordingSink()
    script = ["a", processing_time(1_500), "a", FAIL, "a"]
    with pytest.raises(InputError):
        await run_flow(counting(ScriptedSource(script), sink), world=world)
    assert sink.rows == [("a", 1)]
    assert isinstance(world.files, MemoryFiles)
    world.files.crash()

    # FAIL is over for a source, not for a new process: the script of the second life has none.
    again: ScriptedSource[str] = ScriptedSource([*script[:3], *script[4:]])
    status = await run_flow(counting(again, sink), world=world)

    assert sink.rows == [("a", 1), ("a", 2), ("a", 3)]
    assert status.restored_epoch == 1


async def test_timers_of_processing_time_ring() -> None:
    class Ticks(Operator[str, Any]):
        seen = ValueState(int, default=0)

        def process(self, value: str, ctx: Context) -> None:
            self.seen.set(self.seen.get() + 1)
            ctx.timers.register_processing_time(60_000)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            ctx.emit((ctx.key, self.seen.get(), timestamp))

    sink: RecordingSink[Any] = RecordingSink()
    flow = Flow("ticks")
    source: ScriptedSource[str] = ScriptedSource(["a", "a", processing_time(90_000), "b"])
    flow.source(source).key_by(lambda word: word).process(Ticks).sink(sink)

    await run_flow(flow)

    assert sink.rows[0] == ("a", 2, 60_000)


async def test_two_flows_cannot_share_a_world_at_once() -> None:
    world = manual_world()
    held = await world.files.lock("/nothing")
    assert held is not None
    held.release()
    source: ScriptedSource[str] = ScriptedSource(["a", PAUSE])

    class Second(Operator[str, str]):
        async def process(self, value: str, ctx: Context) -> None:
            await run_flow(counting(ScriptedSource(["b"]), RecordingSink()), world=world)

    flow = Flow("counting")
    flow.source(source).process(Second).sink(RecordingSink())

    with pytest.raises(LeaseError):
        await run_flow(flow, world=world)


async def test_without_a_manual_clock_time_is_real_and_nothing_is_kept() -> None:
    sink: RecordingSink[Any] = RecordingSink()

    status = await run_flow(counting(ScriptedSource(["a"]), sink), world=system_world())

    assert sink.rows == [("a", 1)]
    assert status.state == "finished"


async def test_an_error_under_passing_time_is_raised_as_it_is() -> None:
    clock = ManualClock()

    with pytest.raises(KeyError):
        async with passing_time(clock):
            raise KeyError("x")


async def test_a_flow_with_an_output_needs_nobody_to_iterate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flow = Flow("alerts")
    flow.source(range(10_000)).output("alerts", capacity=1)

    status = await run_flow(flow)

    assert status.state == "finished"
    assert "nobody can iterate over output 'alerts' here" in caplog.text
