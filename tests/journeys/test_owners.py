"""One owner: a second instance on a checkpoint folder is refused; a replaced one stops."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import flowrt
from flowrt import FileSink, Flow, LeaseError, MemorySink
from flowrt.testing.recording_sink import RecordingSink
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import FOLDER, Place, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def counting(source: flowrt.Source[str], sink: flowrt.Sink[Any]) -> Flow:
    flow = Flow("counting")
    flow.source(source, name="words").key_by(str).count(name="count").sink(sink, name="out")
    return flow


def words() -> ScriptedSource[str]:
    return ScriptedSource(["a", PAUSE, "a", PAUSE, "a"])


async def test_a_second_instance_is_refused_and_the_first_is_not_disturbed() -> None:
    place, sink, source = Place(), MemorySink[Any](), words()
    async with place.start(counting(source, sink)) as job:
        await source.paused()
        with pytest.raises(LeaseError, match="in use by process 1 on host testhost") as error:
            async with place.start(counting(words(), MemorySink())):
                pytest.fail("the body must not run")
        assert "take_over=True" in str(error.value)

        await place.epoch(job)
        assert sink.rows == [("a", 1)]
        await job.cancel()


async def test_the_folder_is_free_once_the_job_ended_in_whatever_way() -> None:
    place = Place()
    async with place.start(counting(ScriptedSource(["a"]), MemorySink())) as job:
        await job.wait()
        # Free already, before the block is left.
        await place.run(counting(ScriptedSource(["a"]), MemorySink()))
    with pytest.raises(ZeroDivisionError):
        async with place.start(counting(words(), MemorySink())):
            raise ZeroDivisionError

    job = await place.run(counting(ScriptedSource(["a"]), MemorySink()))

    assert job.status().generation == 4


async def test_cancelled_at_any_moment_a_job_gives_the_folder_back() -> None:
    whole_life = 0
    for patience in range(400):
        place, source = Place(), ScriptedSource[str](["a", "b"])
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(cancel_after, patience, scope)
                async with place.start(counting(source, MemorySink())) as job:
                    await job.wait()
                group.cancel_scope.cancel()
        whole_life += not scope.cancelled_caught
        if whole_life == 3:
            break

        sink = MemorySink[Any]()
        await place.run(counting(ScriptedSource(["a", "b"]), sink))
    assert whole_life == 3
    assert patience > 20


async def cancel_after(turns: int, scope: anyio.CancelScope) -> None:
    for _ in range(turns):
        await checkpoint()
    scope.cancel()


async def test_an_instance_whose_folder_was_taken_cannot_commit() -> None:
    place, sink, source = Place(), RecordingSink[Any](), words()
    with pytest.raises(LeaseError, match=r"taken over by process 2 .* commits nothing more"):
        async with place.start(counting(source, sink), on_failure="keep") as job:
            await source.paused()
            await place.epoch(job)
            source.release()
            await until(lambda: job.metrics().records_out == 2)
            other_sink = MemorySink[Any]()
            async with place.start(counting(words(), other_sink), take_over=True) as other:
                assert other.status().generation == 2
                assert other.status().restored_epoch == 1

                place.clock.advance(1_000)
                await until(lambda: job.status().state == "failed")

                assert other.status().state == "running"
                await other.cancel()
            await job.wait()

    assert sink.rows == [("a", 1)]
    manifests = [path for path in place.files.paths() if "manifest-" in path]
    assert all(path.endswith("-2.json") or "manifest-1-" in path for path in manifests)


async def test_a_copy_of_the_checkpoints_cannot_start_beside_the_job_on_the_same_output() -> None:
    place, source = Place(), words()
    async with place.start(counting(source, FileSink("out"))) as job:
        await source.paused()
        await place.epoch(job)
        for path in place.files.paths():
            if path.startswith(FOLDER):
                place.files.replace(f"/copy{path[len(FOLDER) :]}", place.files.contents(path))
        source.release()
        await source.paused()
        await place.epoch(job)
        parts = [path for path in place.files.paths() if "part-" in path]
        assert len(parts) == 2

        with pytest.raises(LeaseError, match=r"another job writes to out/part-\*"):
            async with place.start(counting(words(), FileSink("out")), checkpoints="/copy"):
                pytest.fail("the body must not run")

        source.release()
        await job.wait()
    assert [path for path in place.files.paths() if "part-" in path][:2] == parts


async def test_the_output_of_an_instance_that_hangs_is_taken_over_with_its_folder() -> None:
    place, source = Place(), words()
    with pytest.raises(LeaseError, match="taken over"):
        async with place.start(counting(source, FileSink("out")), on_failure="keep") as job:
            await source.paused()
            await place.epoch(job)
            source.release()
            await until(lambda: job.metrics().records_out == 2)
            again = ScriptedSource[str](["a", PAUSE, "a", "a"])
            again.release("0")
            async with place.start(counting(again, FileSink("out")), take_over=True) as other:
                await other.wait()
            place.clock.advance(1_000)
            await job.wait()

    lines = [place.files.contents(path) for path in place.files.paths() if "out/part-" in path]
    assert b"".join(lines).split() == [b'["a",1]', b'["a",2]', b'["a",3]']


async def test_draining_an_instance_that_was_replaced_commits_nothing_either() -> None:
    place, sink, source = Place(), RecordingSink[Any](), words()
    with pytest.raises(LeaseError, match="was taken over"):
        async with place.start(counting(source, sink), on_failure="keep") as job:
            await source.paused()
            async with place.start(counting(words(), MemorySink()), take_over=True):
                await job.drain()

    assert sink.rows == []


async def test_two_that_start_at_the_same_time_do_not_both_get_the_folder() -> None:
    place = Place()
    first, second = words(), words()
    async with place.start(counting(first, MemorySink())) as job:
        for _ in range(3):
            with pytest.raises(LeaseError):
                async with place.start(counting(second, MemorySink())):
                    pytest.fail("the body must not run")
        assert job.status().state == "running"
        await job.cancel()

    assert [path for path in place.files.paths() if path.endswith(".lock")] == [
        f"{FOLDER}/lease-1.lock"
    ]


# ------------------------------------------------------------------------------ real processes

HOLD = """
import anyio, flowrt, sys

async def main():
    flow = flowrt.Flow("held")
    flow.source(flowrt.RateSource(10)).sink(flowrt.MemorySink())
    async with flowrt.start(flow, checkpoints=sys.argv[1]) as job:
        print("running", flush=True)
        await job.wait()

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_another_process_holds_the_folder_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:  # noqa: ASYNC220
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"running\n"
            flow = Flow("held")
            flow.source(["x"]).sink(MemorySink())

            with pytest.raises(LeaseError, match=f"in use by process {holder.pid} on host"):
                async with flowrt.start(flow, checkpoints=folder):
                    pytest.fail("the body must not run")
        finally:
            holder.send_signal(signal.SIGKILL)

    flow = Flow("held")
    flow.source(flowrt.RateSource(1_000, rows=1), name="source-1").sink(MemorySink())
    async with flowrt.start(flow, checkpoints=folder) as job:
        assert job.status().generation == 2
        await job.cancel()
