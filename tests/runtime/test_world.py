"""The real world, on the real disk and in each event loop."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowrt.contract.world import Entry
from flowrt.runtime.world import SystemClock, SystemFiles, SystemRandomness, system_world

pytestmark = pytest.mark.anyio


class SteppedClock(SystemClock):
    """A wall clock that says what the test wants; its alarms are real."""

    def __init__(self, *times: int) -> None:
        self._times = list(times)

    def now_ms(self) -> int:
        return self._times.pop(0) if len(self._times) > 1 else self._times[0]


async def test_a_file_is_written_read_synced_renamed_and_deleted(tmp_path: Path) -> None:
    files = SystemFiles()
    folder, old, new = f"{tmp_path}/a/b", f"{tmp_path}/a/b/old", f"{tmp_path}/a/b/new"

    await files.make_folder(folder)
    await files.make_folder(folder)
    assert await files.write(old, iter([b"hello ", b"world"])) == 11
    await files.sync(old)
    await files.rename(old, new)
    await files.sync_folder(folder)

    assert await files.names(folder) == ["new"]
    assert await files.read(new) == b"hello world"
    assert await files.read(new, 6) == b"world"
    assert await files.read(new, 6, 2) == b"wo"
    assert await files.read(new, 9, 100) == b"ld"
    assert await files.size(new) == 11
    assert await files.size(old) is None
    assert await files.is_folder(folder)
    assert not await files.is_folder(new)
    assert not await files.is_folder(f"{new}/below")

    await files.delete(new)
    await files.delete(new)
    assert await files.names(folder) == []
    assert await files.names(f"{folder}/nowhere") == []


async def test_entries_are_the_names_in_a_folder_with_sizes(tmp_path: Path) -> None:
    files = SystemFiles()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "empty").touch()

    assert await files.entries(f"{tmp_path}") == [
        Entry("empty", 0),
        Entry("file", 5),
        Entry("folder", None, is_folder=True),
    ]
    assert await files.entries(f"{tmp_path}/folder") == []
    assert await files.entries(f"{tmp_path}/file") is None
    assert await files.entries(f"{tmp_path}/nowhere") is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
async def test_an_entry_that_is_no_file_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "linked").symlink_to("file")
    (tmp_path / "looping").symlink_to("looping")
    (tmp_path / "lost").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "up").symlink_to("..")

    assert await SystemFiles().entries(f"{tmp_path}") == [
        Entry("file", 5),
        Entry("linked", 5),
        Entry("looping", None),
        Entry("lost", None),
        Entry("pipe", None),
        Entry("up", None, is_folder=True, is_link=True),
    ]


async def test_what_leads_to_itself_is_no_folder_and_what_cannot_be_asked_for_is_an_error(
    tmp_path: Path,
) -> None:
    files = system_world().files
    (tmp_path / "looping").symlink_to("looping")

    assert not await files.is_folder(str(tmp_path / "looping"))
    with pytest.raises(OSError, match="too long"):
        await files.is_folder(str(tmp_path / ("long" * 100)))


async def test_write_at_cuts_what_follows(tmp_path: Path) -> None:
    files, path = SystemFiles(), f"{tmp_path}/part"

    await files.write_at(path, 0, b"one two")
    await files.write_at(path, 4, b"2")
    assert await files.read(path) == b"one 2"

    await files.write_at(path, 0, b"new")
    assert await files.read(path) == b"new"

    with pytest.raises(FileNotFoundError):
        await files.write_at(f"{tmp_path}/missing", 4, b"2")


async def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    files, path = SystemFiles(), f"{tmp_path}/lock"

    lock = await files.lock(path)
    assert lock is not None
    assert await files.lock(path) is None

    lock.release()
    lock.release()
    again = await files.lock(path)
    assert again is not None
    again.release()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no file that is locked")
async def test_a_lock_is_on_the_file_that_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, path = SystemFiles(), f"{tmp_path}/lock"
    opened, real = [], os.open

    def open_late(*arguments: Any) -> int:
        """Open the file as whoever locked it deletes it."""
        descriptor = real(*arguments)
        opened.append(descriptor)
        if len(opened) == 1:
            os.unlink(path)
        return descriptor

    monkeypatch.setattr(os, "open", open_late)
    lock = await files.lock(path)
    assert lock is not None
    assert len(opened) == 2
    assert await files.lock(path) is None
    lock.release()


async def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    path = f"{tmp_path}/lock"
    lock = await SystemFiles().lock(path)
    assert lock is not None
    code = (
        "import anyio\nfrom flowrt.runtime.world import SystemFiles\n"
        f"print(anyio.run(SystemFiles().lock, {path!r}) is None)"
    )

    done = await anyio.run_process([sys.executable, "-c", code], stderr=subprocess.PIPE)

    assert done.stdout.split() == [b"True"]
    lock.release()


FORKS = """
import os, signal, sys
from flowrt.runtime.world import _lock
told, path = os.pipe(), sys.argv[1]
lock = _lock(path)
if os.fork() == 0:
    if sys.argv[2] == "releases":
        lock.release()
    os.write(1, f"{os.getpid()} {_lock(path) is None}".encode())
    os.close(told[1])
    os.read(0, 1)  # lives on until the test lets it go
    os._exit(0)
os.close(told[1])
os.read(told[0], 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize("child", ["lives on", "releases"])
async def test_a_lock_is_not_that_of_a_child_that_was_forked(tmp_path: Path, child: str) -> None:
    path = f"{tmp_path}/lock"
    command = [sys.executable, "-c", FORKS, path, child]
    async with await anyio.open_process(command, stderr=None) as parent:
        assert parent.stdout is not None
        said = (await parent.stdout.receive()).split()
        await parent.wait()

        lock = await SystemFiles().lock(path)
        os.kill(int(said[0]), signal.SIGKILL)

    assert said[1] == b"True"  # neither held nor given back by the child
    assert lock is not None
    lock.release()


async def test_a_lock_in_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        await SystemFiles().lock(f"{tmp_path}/nowhere/lock")

    assert error.value.errno == errno.ENOENT


async def test_a_blocked_disk_leaves_threads_to_the_host(tmp_path: Path) -> None:
    """As many calls as there are disk threads wait on a pipe; the host's own threads still work."""
    files, pipe = SystemFiles(), tmp_path / "pipe"
    os.mkfifo(pipe)
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(files.read, str(pipe))
        await anyio.wait_all_tasks_blocked()
        assert await anyio.to_thread.run_sync(lambda: "free") == "free"
        # Each reader wakes when a writer comes, and all end when it goes.
        await anyio.to_thread.run_sync(lambda: os.close(os.open(pipe, os.O_WRONLY)))


async def test_an_alarm_rings_in_the_event_loop_and_not_at_once() -> None:
    clock = SystemClock()
    rang = anyio.Event()

    clock.call_at(clock.now_ms() - 5, rang.set)

    assert not rang.is_set()
    await rang.wait()


async def test_an_alarm_never_rings_early() -> None:
    clock = SteppedClock(999, 999, 1_000)
    rang: list[int] = []
    done = anyio.Event()

    def ring() -> None:
        rang.append(clock.now_ms())
        done.set()

    clock.call_at(1_000, ring)
    await done.wait()

    assert rang == [1_000]


async def test_a_wall_clock_that_is_set_back_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_back_ns, real_ns = 0, time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() - set_back_ns)
    clock = SystemClock()
    before_ms = clock.now_ms()
    rang = anyio.Event()
    clock.call_at(before_ms + 2, rang.set)

    set_back_ns = 3_600_000_000_000
    with anyio.fail_after(10):
        await rang.wait()

    assert clock.now_ms() >= before_ms + 2


async def test_a_wall_clock_that_is_set_forward_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_forward_ns, real_ns = 0, time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + set_forward_ns)
    clock = SystemClock()
    before_ms = clock.now_ms()

    set_forward_ns = 3_600_000_000_000

    assert clock.now_ms() >= before_ms + 3_600_000


async def test_a_cancelled_alarm_stays_silent() -> None:
    clock = SystemClock()
    rang: list[str] = []
    done = anyio.Event()
    ring: Callable[[], None] = lambda: rang.append("cancelled")  # noqa: E731

    clock.call_at(clock.now_ms() + 60_000, ring).cancel()
    clock.call_at(clock.now_ms(), ring).cancel()
    last = clock.call_at(clock.now_ms() + 1, done.set)
    await done.wait()
    last.cancel()

    assert rang == []


def test_the_world_knows_where_it_is() -> None:
    world = system_world()

    assert world.host
    assert world.pid > 0
    assert world.clock.now_ms() > 1_700_000_000_000
    assert world.clock.monotonic_ns() <= world.clock.monotonic_ns()


def test_chance_is_a_fraction_and_a_token() -> None:
    chance = SystemRandomness()

    assert 0 <= chance.fraction() < 1
    assert len(chance.token()) == 16
    assert int(chance.token(), 16) >= 0
    assert chance.token() != chance.token()
