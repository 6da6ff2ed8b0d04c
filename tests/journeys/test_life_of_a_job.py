"""A job in somebody's event loop: it starts, is asked things, drains, is cancelled, and is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from anyio.lowlevel import checkpoint

import flowrt
from flowrt import (
    ConfigError,
    FileSink,
    Flow,
    FlowrtError,
    GraphError,
    MemorySink,
    OperatorError,
)
from flowrt.runtime.status import JobStatus
from flowrt.testing.recording_sink import RecordingSink
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio


def doubling(source: ScriptedSource[int], sink: Any) -> Flow:
    flow = Flow("doubling")
    flow.source(source, name="numbers").map(lambda n: 2 * n).sink(sink, name="out")
    return flow


# ------------------------------------------------------------------------- starting and ending


async def test_a_job_runs_to_the_end_of_its_input_and_says_so() -> None:
    place, sink = Place(), MemorySink[int]()

    async with place.start(doubling(ScriptedSource([1, 2, 3]), sink)) as job:
        await job.wait()
        assert job.status().state == "finished"

    assert sink.rows == [2, 4, 6]
    assert job.status() == JobStatus(
        name="doubling",
        state="finished",
        epoch=1,
        restored_epoch=None,
        restarts=0,
        generation=1,
    )


async def test_leaving_the_block_drains_so_that_what_was_read_is_committed() -> None:
    place, sink = Place(), MemorySink[int]()
    source = ScriptedSource[int]([1, 2, PAUSE, 3])

    async with place.start(doubling(source, sink)) as job:
        await source.paused()

    assert job.status().state == "drained"
    assert sink.rows == [2, 4]
    assert source.committed_positions == [(1, {"0": 2})]


async def test_a_drained_job_goes_on_where_it_stopped() -> None:
    place, sink = Place(), MemorySink[int]()
    source = ScriptedSource[int]([1, 2, PAUSE, 3])
    async with place.start(doubling(source, sink)) as job:
        await source.paused()
        await job.drain()
    source.release()

    async with place.start(doubling(source, sink)) as job:
        await job.wait()

    assert sink.rows == [2, 4, 6]
    assert (job.status().restored_epoch, job.status().epoch) == (1, 2)
    assert job.status().generation == 2


async def test_cancel_keeps_what_is_committed_and_nothing_else() -> None:
    place, sink = Place(), MemorySink[int]()
    source = ScriptedSource[int]([1, PAUSE, 2, PAUSE])
    async with place.start(doubling(source, sink)) as job:
        await source.paused()
        await place.epoch(job)
        source.release()
        await until(lambda: job.metrics().records_out == 2)

        await job.cancel()

        assert job.status().state == "cancelled"
        await job.wait()

    assert sink.rows == [2]


async def test_asking_a_job_that_has_ended_to_stop_changes_nothing() -> None:
    async with Place().start(doubling(ScriptedSource([1]), MemorySink())) as job:
        await job.wait()
        await job.drain()
        await job.cancel()
        job.request_drain()
        await job.wait()

        assert job.status().state == "finished"


async def test_several_tasks_may_wait_for_one_job() -> None:
    source = ScriptedSource[int]([1, PAUSE])
    ended: list[str] = []

    async def wait(job: flowrt.Job) -> None:
        await job.wait()
        ended.append(job.status().state)

    async with (
        Place().start(doubling(source, MemorySink())) as job,
        anyio.create_task_group() as group,
    ):
        group.start_soon(wait, job)
        group.start_soon(wait, job)
        await source.paused()
        source.release()

    assert ended == ["finished", "finished"]


async def test_without_checkpoints_nothing_is_kept_and_results_come_all_the_same() -> None:
    place, sink = Place(), MemorySink[int]()

    async with place.start(doubling(ScriptedSource([1]), sink), checkpoints=None) as job:
        await job.wait()

    assert sink.rows == [2]
    assert job.status().epoch == 1
    assert place.files.paths() == []


# ---------------------------------------------------------------------- what it tells of itself


async def test_metrics_count_records_at_both_ends_and_describe_the_last_epoch() -> None:
    place, source = Place(), ScriptedSource[int]([1, 2, 3, PAUSE])
    flow = Flow("odd")
    flow.source(source, name="numbers").filter(lambda n: n % 2).sink(MemorySink(), name="out")
    async with place.start(flow) as job:
        assert job.metrics().epoch is None
        await source.paused()
        await place.epoch(job)

        metrics = job.metrics()

        assert (metrics.records_in, metrics.records_out, metrics.watermark) == (3, 2, None)
        assert [task.kind for task in metrics.tasks] == ["source", "sink"]
        assert metrics.tasks[0].operators == ("filter-1",)
        assert metrics.epoch is not None
        assert metrics.epoch.epoch == 1
        assert await job.lag() == {"numbers": (0, "records")}
        await job.cancel()


async def test_records_are_counted_over_all_lives() -> None:
    place, sink = Place(), MemorySink[int]()
    source = ScriptedSource[int]([1, 2, PAUSE, 3])
    async with place.start(doubling(source, sink)):
        await source.paused()
    source.release()

    async with place.start(doubling(source, sink)) as job:
        await job.wait()

    assert job.metrics().records_in == 3
    assert job.metrics().records_out == 1


# ------------------------------------------------------------------------------- when it fails


async def test_an_exception_in_the_body_cancels_the_job_and_comes_out_as_it_is() -> None:
    place, sink = Place(), MemorySink[int]()
    source = ScriptedSource[int]([1, PAUSE])

    with pytest.raises(ZeroDivisionError):
        async with place.start(doubling(source, sink)) as job:
            await source.paused()
            raise ZeroDivisionError

    assert job.status().state == "cancelled"
    assert sink.rows == []


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_body_that_ends_the_program_does_so_as_without_a_job(
    kind: type[BaseException],
) -> None:
    source = ScriptedSource[int]([1, PAUSE])

    with pytest.raises(kind):
        async with Place().start(doubling(source, MemorySink())) as job:
            await source.paused()
            raise kind

    assert job.status().state == "cancelled"


async def test_a_generator_that_holds_a_job_can_be_closed() -> None:
    source = ScriptedSource[int]([1, PAUSE])

    async def jobs() -> AsyncGenerator[flowrt.Job, None]:
        async with Place().start(doubling(source, MemorySink())) as job:
            yield job

    generator = jobs()
    job = await anext(generator)
    await generator.aclose()

    assert job.status().state == "cancelled"


async def test_a_failing_flow_cancels_the_body_and_raises_its_error_not_a_group() -> None:
    flow = Flow("inverse")
    flow.source([2, 1, 0]).map(lambda n: 1 // n, name="invert").sink(MemorySink())

    with pytest.raises(OperatorError, match=r"operator 'invert' raised ZeroDivisionError") as error:
        async with Place().start(flow):
            await anyio.sleep_forever()

    assert error.value.operator == "invert"
    assert error.value.value == 0
    assert isinstance(error.value.__cause__, ZeroDivisionError)


async def test_a_function_that_raises_what_closes_generators_is_an_error_not_a_group() -> None:
    def leave(number: int) -> int:
        raise GeneratorExit

    flow = Flow("leaving")
    flow.source([1]).map(leave).sink(MemorySink())

    with pytest.raises(FlowrtError, match="a function of flow 'leaving' raised GeneratorExit"):
        async with Place().start(flow) as job:
            await job.wait()
    assert job.status().state == "failed"


class Unclosable(MemorySink[int]):
    async def writer(self, *arguments: Any) -> Any:
        return UnclosableWriter()

    async def close(self) -> None:
        raise OSError("stuck")


class UnclosableWriter:
    async def write(self, values: Any, timestamps: Any) -> None: ...

    async def prepare(self, epoch: int, final: bool = False) -> None: ...

    async def close(self) -> None:
        raise OSError("stuck, too")


async def test_what_cannot_be_closed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    flow = Flow("numbers")
    flow.source([1]).sink(Unclosable(), name="results")

    await Place().run(flow)

    assert "could not close sink 'results'" in caplog.text
    assert "sink 'results' could not close its writer: OSError: stuck, too" in caplog.text


async def test_wait_raises_the_error_of_a_flow_that_failed() -> None:
    flow = Flow("inverse")
    flow.source([0]).map(lambda n: 1 // n, name="invert").sink(MemorySink())

    with pytest.raises(OperatorError, match="invert"):
        async with Place().start(flow, on_failure="keep") as job:
            with pytest.raises(OperatorError, match="invert"):
                await job.wait()
            assert job.status().state == "failed"
            assert "invert" in (job.status().error or "")
            with pytest.raises(OperatorError, match="invert"):
                await job.drain()


async def test_the_body_may_wait_in_a_task_group_and_still_gets_the_plain_error() -> None:
    flow = Flow("inverse")
    flow.source([0]).map(lambda n: 1 // n, name="invert").sink(MemorySink())

    with pytest.raises(OperatorError, match="invert"):
        async with (
            Place().start(flow, on_failure="keep") as job,
            anyio.create_task_group() as group,
        ):
            group.start_soon(job.wait)


async def test_the_bodys_own_error_comes_first_when_both_fail() -> None:
    flow = Flow("inverse")
    flow.source([0]).map(lambda n: 1 // n, name="invert").sink(MemorySink())

    with pytest.raises(KeyError, match="mine"):
        async with Place().start(flow, on_failure="keep") as job:
            await until(lambda: job.status().state == "failed")
            raise KeyError("mine")


async def test_an_error_while_opening_is_raised_before_the_body_runs() -> None:
    class Closed(flowrt.Operator[int, int]):
        def open(self, ctx: flowrt.Context) -> None:
            raise ConnectionError("no answer")

    flow = Flow("closed")
    flow.source([1]).process(Closed, name="lookup").sink(MemorySink())

    with pytest.raises(OperatorError, match="operator 'lookup' raised ConnectionError: no answer"):
        async with Place().start(flow):
            pytest.fail("the body must not run")


async def test_what_was_opened_is_closed_when_something_later_cannot_be() -> None:
    calls: list[str] = []

    class Noted(flowrt.Operator[int, int]):
        async def open(self, ctx: flowrt.Context) -> None:
            calls.append("open")

        async def close(self) -> None:
            await checkpoint()
            calls.append("close")

    class Broken(flowrt.Operator[int, int]):
        def open(self, ctx: flowrt.Context) -> None:
            raise ConnectionError

        def close(self) -> None:
            calls.append("close what was opened in part")

    class Never(flowrt.Operator[int, int]):
        def close(self) -> None:
            calls.append("never opened, so never closed")

    sink = RecordingSink[int]()
    flow = Flow("half")
    flow.source([1]).process(Noted).process(Broken).process(Never).sink(sink)

    with pytest.raises(OperatorError):
        async with Place().start(flow):
            pytest.fail("the body must not run")

    assert calls == ["open", "close what was opened in part", "close"]
    assert sink.calls == ["recover None", "writer 0", "writer close", "close"]


async def test_a_wrong_graph_or_option_is_refused_before_anything_starts() -> None:
    flow = Flow("open-end")
    flow.source([1]).map(str)
    place = Place()

    with pytest.raises(GraphError, match=r"end a stream with \.sink"):
        async with place.start(flow):
            pytest.fail("the body must not run")
    with pytest.raises(ConfigError, match="checkpoints"):
        async with place.start(doubling(ScriptedSource([]), MemorySink()), checkpoints=""):
            pytest.fail("the body must not run")

    assert place.files.paths() == []


# ------------------------------------------------------------------- a guest in a foreign loop


async def test_cancelling_the_surrounding_scope_leaves_nothing_behind(tmp_path: Path) -> None:
    process = psutil.Process()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("one\ntwo\n")
    await anyio.to_thread.run_sync(int)  # whatever the loop opens for its threads is there now
    before = _open_things(process)
    closed: list[str] = []

    class Noted(flowrt.Operator[str, str]):
        def process(self, value: str, ctx: flowrt.Context) -> None:
            ctx.emit(value)

        def close(self) -> None:
            closed.append("operator")

    flow = Flow("guest")
    source = flowrt.FileSource(tmp_path / "in", "text", follow=True)
    flow.source(source).process(Noted).sink(FileSink(tmp_path / "out"))

    with anyio.CancelScope() as scope:
        async with flowrt.start(flow, checkpoints=tmp_path / "checkpoints") as job:
            while job.metrics().records_out < 2:  # real files: in worker threads
                await checkpoint()
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert job.status().state == "cancelled"
    assert closed == ["operator"]
    assert _open_things(process) == before
    assert [path.name for path in (tmp_path / "out").glob("part-*")] == []


def _open_things(process: psutil.Process) -> tuple[list[str], int]:
    tasks = len(anyio.get_running_tasks())
    return sorted(file.path for file in process.open_files()), tasks


async def test_a_timeout_around_the_job_is_the_callers_own() -> None:
    source = ScriptedSource[int]([1, PAUSE])

    with anyio.move_on_after(0) as scope:
        async with Place().start(doubling(source, MemorySink())):
            await anyio.sleep_forever()

    assert scope.cancelled_caught


async def test_signal_handlers_stay_as_they_are() -> None:
    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.getsignal(number) for number in numbers]

    async with Place().start(doubling(ScriptedSource([1]), MemorySink())) as job:
        assert [signal.getsignal(number) for number in numbers] == before
        await job.wait()

    assert [signal.getsignal(number) for number in numbers] == before


async def test_two_jobs_live_in_one_loop_and_do_not_disturb_each_other() -> None:
    place = Place()
    first, second = MemorySink[int](), MemorySink[int]()
    slow, fast = ScriptedSource[int]([1, PAUSE, 2]), ScriptedSource[int]([10, 20])

    async with (
        place.start(doubling(slow, first), checkpoints="/first") as one,
        place.start(doubling(fast, second), checkpoints="/second") as other,
    ):
        await other.wait()
        assert one.status().state == "running"
        slow.release()
        await one.wait()

    assert (first.rows, second.rows) == ([2, 4], [20, 40])


async def test_a_job_that_fails_leaves_the_other_alone() -> None:
    place = Place()
    sink = MemorySink[int]()
    source = ScriptedSource[int]([1, PAUSE])
    broken = Flow("broken")
    broken.source([0]).map(lambda n: 1 // n).sink(MemorySink())

    async with place.start(doubling(source, sink), checkpoints="/good") as job:
        await source.paused()
        with pytest.raises(OperatorError):
            async with place.start(broken, checkpoints="/bad") as failing:
                await failing.wait()
        assert job.status().state == "running"

    assert sink.rows == [2]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
async def test_a_signal_reaches_the_programs_own_handler() -> None:
    heard: list[int] = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, 1)
    source = ScriptedSource[int]([1, PAUSE])
    try:
        async with Place().start(doubling(source, MemorySink())) as job:
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: heard)
            await turns()
            assert job.status().state == "running"
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
