"""What a disk can do to a job: damaged snapshots are passed over, a full disk harms nothing."""

from __future__ import annotations

from errno import EACCES, EIO, ENOSPC
from typing import Any

import pytest

import flowrt
from flowrt import CheckpointError, FixedDelay, Flow, MemorySink
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import FOLDER, Place, until

pytestmark = pytest.mark.anyio

ROWS = [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3), ("b", 2)]


def counting(source: flowrt.Source[str], sink: flowrt.Sink[Any]) -> Flow:
    flow = Flow("counting")
    flow.source(source, name="words").key_by(str).count(name="count").sink(sink, name="out")
    return flow


def words() -> ScriptedSource[str]:
    return ScriptedSource(["a", "b", PAUSE, "a", PAUSE, "c", PAUSE, "a", "b"])


async def three_epochs(place: Place, sink: MemorySink[Any]) -> None:
    """Run until three epochs are committed, then stop at once."""
    source = words()
    async with place.start(counting(source, sink), keep_checkpoints=3) as job:
        for _ in range(3):
            await source.paused()
            await place.epoch(job)
            source.release()
        await job.cancel()
    assert sink.rows == ROWS[:4]


async def finish(place: Place, sink: MemorySink[Any], **options: Any) -> flowrt.Job:
    source = words()
    for _ in range(3):
        source.release()
    return await place.run(counting(source, sink), keep_checkpoints=3, **options)


def newest(files: MemoryFiles) -> list[str]:
    """Return the files that the third checkpoint has for itself."""
    paths = [path for path in files.paths() if path.startswith(FOLDER)]
    mine = [path for path in paths if "manifest-3-" in path or "-d3-" in path or "-m3-" in path]
    assert any("manifest" in path for path in mine)
    assert any(".state" in path for path in mine)
    return mine


async def damaged(step: int) -> list[tuple[str, bytes]]:
    """Return (path, damaged bytes): flipped and cut at every `step`-th place."""
    place = Place()
    await three_epochs(place, MemorySink())
    found = []
    for path in newest(place.files):
        whole = place.files.contents(path)
        for index in range(0, len(whole), step):
            flipped = bytearray(whole)
            flipped[index] ^= 1 << (index % 8)
            found += [(path, bytes(flipped)), (path, whole[:index])]
    return found


async def test_a_damaged_snapshot_is_passed_over_for_the_one_before_saying_so() -> None:
    damages = await damaged(step=53)
    assert len(damages) > 20
    for path, data in damages:
        place, sink = Place(), MemorySink[Any]()
        await three_epochs(place, sink)
        place.files.replace(path, data)

        job = await finish(place, sink)

        status = job.status()
        assert status.restored_epoch == 2
        assert "checkpoint 3 is passed over" in status.notes[0]
        assert path.rpartition("/")[2] in status.notes[0]
        assert "goes on from checkpoint 2" in status.notes[1]
        assert sorted(sink.rows) == sorted(ROWS)


async def test_a_missing_file_is_as_good_as_a_damaged_one() -> None:
    for index in (0, 1):
        place, sink = Place(), MemorySink[Any]()
        await three_epochs(place, sink)
        await place.files.delete(newest(place.files)[index])

        job = await finish(place, sink)

        # Without its manifest a checkpoint was never there; without a state file it is not whole.
        assert job.status().restored_epoch == 2
        assert sorted(sink.rows) == sorted(ROWS)


async def test_where_no_checkpoint_is_whole_the_job_does_not_begin_again_by_itself() -> None:
    place, sink = Place(), MemorySink[Any]()
    await three_epochs(place, sink)
    for path in place.files.paths():
        if "manifest" in path:
            place.files.replace(path, place.files.contents(path)[:-1])

    with pytest.raises(CheckpointError, match="no checkpoint in /checkpoints is whole") as error:
        await finish(place, sink)

    assert "start from nothing in a new folder" in str(error.value)
    assert sink.rows == ROWS[:4]


async def test_a_damaged_lease_says_what_to_do() -> None:
    place, sink = Place(), MemorySink[Any]()
    await three_epochs(place, sink)
    place.files.replace(f"{FOLDER}/lease.json", b"?")

    with pytest.raises(CheckpointError, match=r"lease\.json .* then delete that file"):
        await finish(place, sink)

    await place.files.delete(f"{FOLDER}/lease.json")
    job = await finish(place, sink)
    assert job.status().generation > 1
    assert sorted(sink.rows) == sorted(ROWS)


# ----------------------------------------------------------------------------------- full disks

WRITES = [
    ("write", ".state"),
    ("sync", ".state"),
    ("rename", ".state"),
    ("sync_folder", "/state"),
    ("write", "manifest-2"),
    ("sync", "manifest-2"),
    ("rename", "manifest-2"),
    ("sync_folder", FOLDER),
]


@pytest.mark.parametrize(("operation", "path"), WRITES)
@pytest.mark.parametrize("torn", [None, 0, 5])
async def test_a_full_disk_fails_the_epoch_and_harms_nothing_committed(
    operation: Any, path: str, torn: int | None
) -> None:
    place, sink = Place(), MemorySink[Any]()
    source = words()
    with pytest.raises(CheckpointError, match=r"the disk is full\. Make room there") as error:
        async with place.start(counting(source, sink), on_failure="keep") as job:
            await source.paused()
            await place.epoch(job)
            source.release()
            await until(lambda: job.metrics().records_out == 3)
            full = OSError(ENOSPC, "No space left on device")
            place.files.fail(operation, path, full, torn=torn)
            place.clock.advance(1_000)
            await job.wait()
    assert FOLDER in str(error.value)
    assert "Nothing committed is harmed" in str(error.value)
    assert sink.rows == ROWS[:2]

    job = await finish(place, sink)

    assert job.status().restored_epoch in (1, 2)
    assert job.status().notes == ()
    assert sorted(sink.rows) == sorted(ROWS)


@pytest.mark.parametrize(("operation", "path"), WRITES)
async def test_a_job_that_restarts_comes_through_a_disk_that_is_full_for_a_while(
    operation: Any, path: str
) -> None:
    place, sink = Place(), MemorySink[Any]()
    source = words()
    async with place.start(counting(source, sink), restart=FixedDelay("1s", 9)) as job:
        await source.paused()
        await place.epoch(job)
        place.files.fail(operation, path, OSError(ENOSPC, "No space left on device"), times=2)
        for _ in range(3):
            source.release()
        await place.finish(job)

    assert sorted(sink.rows) == sorted(ROWS)


@pytest.mark.parametrize(("operation", "path"), WRITES)
async def test_a_power_cut_after_a_failed_write_loses_nothing_either(
    operation: Any, path: str
) -> None:
    place, sink = Place(), MemorySink[Any]()
    source = words()
    with pytest.raises(CheckpointError):
        async with place.start(counting(source, sink), on_failure="keep") as job:
            await source.paused()
            await place.epoch(job)
            source.release()
            await until(lambda: job.metrics().records_out == 3)
            place.files.fail(operation, path, OSError(EIO, "Input/output error"))
            place.clock.advance(1_000)
            await job.wait()
    place.files.crash()

    await finish(place, sink)

    assert sorted(sink.rows) == sorted(ROWS)


async def test_a_folder_that_cannot_be_written_is_told_before_anything_runs() -> None:
    place, sink = Place(), MemorySink[Any]()
    place.files.fail("lock", FOLDER, OSError(EACCES, "Permission denied"))

    with pytest.raises(CheckpointError, match="in /checkpoints: it is forbidden"):
        async with place.start(counting(words(), sink)):
            pytest.fail("the body must not run")


async def test_old_checkpoints_that_cannot_be_deleted_are_left_for_later() -> None:
    place, sink = Place(), MemorySink[Any]()
    place.files.fail("delete", "manifest", OSError(EACCES, "Permission denied"), times=2)

    await three_epochs(place, sink)
    job = await finish(place, sink)

    assert job.status().state == "finished"
    assert sorted(sink.rows) == sorted(ROWS)
