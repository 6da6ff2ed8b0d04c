"""The real world: the machine's clock, disk and randomness."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import secrets
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar

from flowrt.contract.world import Alarm, Entry, FileLock, World

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

T = TypeVar("T")

DISK_THREADS: Final = 8
LONGEST_SLEEP_MS: Final = 60_000

# Threads of our own, for each event loop: a slow disk must not use up those of the host's.
_disk_threads: RunVar[anyio.CapacityLimiter] = RunVar("flowrt_disk_threads")


def system_world() -> World:
    """Return the world as it is: wall clock, disk, chance."""
    return World(
        clock=SystemClock(),
        files=SystemFiles(),
        randomness=SystemRandomness(),
        host=socket.gethostname(),
        pid=os.getpid(),
    )


class SystemRandomness:
    """Chance from the operating system."""

    def fraction(self) -> float:
        """See `Randomness.fraction`."""
        return random.random()

    def token(self) -> str:
        """See `Randomness.token`."""
        return secrets.token_hex(8)


class SystemClock:
    """The wall clock; alarms ring in the running event loop: asyncio, uvloop or trio.

    When the machine's clock is set back it goes on from where it was, for as long as the process
    runs: whoever waits for a time would wait, and no epoch end, until that time comes again.
    """

    _wall_ahead_ns: int | None = None
    """How far the wall clock is ahead of the monotonic one: the most that was seen."""

    def now_ms(self) -> int:
        """See `Clock.now_ms`; never goes back."""
        elapsed_ns = time.monotonic_ns()
        ahead_ns = time.time_ns() - elapsed_ns
        if self._wall_ahead_ns is None or ahead_ns > self._wall_ahead_ns:
            self._wall_ahead_ns = ahead_ns
        return (elapsed_ns + self._wall_ahead_ns) // 1_000_000

    # The function itself: a call of it costs half of what a method around it would.
    monotonic_ns = staticmethod(time.monotonic_ns)

    def call_at(self, when_ms: int, call: Callable[[], None]) -> Alarm:
        """See `Clock.call_at`; must be called in the event loop."""
        return _SystemAlarm(self, when_ms, call)


class _SystemAlarm:
    """Sleeps on the monotonic clock and looks at the wall clock: at the end, and each minute.

    So an alarm never rings early, and a clock that was set forward is noticed within a minute.
    """

    def __init__(self, clock: SystemClock, when_ms: int, call: Callable[[], None]) -> None:
        self._clock = clock
        self._when_ms = when_ms
        self._call = call
        self._later: Callable[[float, Callable[[], None]], Callable[[], None]] = _later()
        self._forget = self._sleep()

    def cancel(self) -> None:
        """See `Alarm.cancel`."""
        self._forget()

    def _sleep(self) -> Callable[[], None]:
        left_ms = min(max(self._when_ms - self._clock.now_ms(), 0), LONGEST_SLEEP_MS)
        return self._later(left_ms / 1_000, self._ring)

    def _ring(self) -> None:
        if self._clock.now_ms() < self._when_ms:
            self._forget = self._sleep()
        else:
            self._call()


def _later() -> Callable[[float, Callable[[], None]], Callable[[], None]]:
    """Return the running event loop's way to call a function after some seconds."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _later_on_trio
    return lambda seconds, call: loop.call_later(seconds, call).cancel


def _later_on_trio(seconds: float, call: Callable[[], None]) -> Callable[[], None]:
    import trio

    scope = trio.CancelScope()

    async def sleep() -> None:
        with scope:
            await trio.sleep(seconds)
            if not scope.cancel_called:  # in the same turn in which the sleep ended
                call()

    # A system task: trio has no timer without a task, and it ends with the run by itself.
    trio.lowlevel.spawn_system_task(sleep)
    return scope.cancel


class SystemFiles:
    """The disk, in worker threads of its own; a call that began is finished even when cancelled."""

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See `Files.read`."""
        return await _in_thread(_read, path, offset, size)

    async def write(self, path: str, chunks: Iterable[bytes]) -> int:
        """See `Files.write`; `chunks` is consumed in a worker thread."""
        return await _in_thread(_write, path, chunks)

    async def write_at(self, path: str, offset: int, data: bytes) -> None:
        """See `Files.write_at`."""
        await _in_thread(_write_at, path, offset, data)

    async def sync(self, path: str) -> None:
        """See `Files.sync`."""
        await _in_thread(_sync, path, os.O_RDWR)

    async def sync_folder(self, path: str) -> None:
        """See `Files.sync_folder`; Windows cannot do it and keeps names durable by itself."""
        if sys.platform != "win32":
            await _in_thread(_sync, path, os.O_RDONLY)

    async def rename(self, old: str, new: str) -> None:
        """See `Files.rename`."""
        await _in_thread(os.replace, old, new)

    async def delete(self, path: str) -> None:
        """See `Files.delete`."""
        await _in_thread(_delete, path)

    async def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        await _in_thread(partial(os.makedirs, path, exist_ok=True))

    async def names(self, path: str) -> list[str]:
        """See `Files.names`."""
        return await _in_thread(_names, path)

    async def entries(self, path: str) -> list[Entry] | None:
        """See `Files.entries`."""
        return await _in_thread(_entries, path)

    async def size(self, path: str) -> int | None:
        """See `Files.size`."""
        return await _in_thread(_size, path)

    async def is_folder(self, path: str) -> bool:
        """See `Files.is_folder`."""
        return await _in_thread(_is_folder, path)

    async def lock(self, path: str) -> FileLock | None:
        """See `Files.lock`."""
        return await _in_thread(_lock, path)


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    try:
        limiter = _disk_threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(DISK_THREADS)
        _disk_threads.set(limiter)
    return await to_thread.run_sync(call, *arguments, limiter=limiter)


def _read(path: str, offset: int, size: int | None) -> bytes:
    with open(path, "rb") as file:
        if offset:
            file.seek(offset)
        return file.read() if size is None else file.read(size)


def _write(path: str, chunks: Iterable[bytes]) -> int:
    with open(path, "wb") as file:
        return sum(file.write(chunk) for chunk in chunks)


def _write_at(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b" if offset else "ab") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def _entries(path: str) -> list[Entry] | None:
    try:
        with os.scandir(path) as found:
            return sorted(map(_entry, found), key=itemgetter(0))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _entry(found: os.DirEntry[str]) -> Entry:
    try:
        if found.is_dir():
            return Entry(found.name, None, is_folder=True, is_link=found.is_symlink())
        status = os.stat(found.path)  # what Windows keeps in the folder itself may be out of date
    except OSError:  # deleted since, a link to nowhere, or not ours to see
        return Entry(found.name, None)
    return Entry(found.name, status.st_size if stat.S_ISREG(status.st_mode) else None)


def _is_folder(path: str) -> bool:
    # Not os.path.isdir: for that a folder on a disk that fails is none.
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _size(path: str) -> int | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode):
        # To open one would wait for whoever writes to it, and there is no going back in it.
        raise OSError(errno.EINVAL, "a pipe or socket is no file", path)
    return found.st_size


def _lock(path: str) -> FileLock | None:
    while True:
        lock = _lock_once(path)
        if lock is None or lock.has_name(path):
            return lock
        # Whoever held it deleted the file before giving it back: a new one may be there.
        lock.release()


def _lock_once(path: str) -> _SystemLock | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return _SystemLock(descriptor)


class _SystemLock:
    """Held until it is released or its process dies, whatever became of children it forked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        _held.add(self)

    def has_name(self, path: str) -> bool:
        """Say whether the file that is locked is still the one of that name."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """See `FileLock.release`."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        _held.discard(self)
        try:
            # Something that forks without Python's knowledge may hold the descriptor too: closing
            # ours would not give it back.
            if sys.platform == "win32":
                os.lseek(descriptor, 0, os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Close the descriptor in a child that was forked; the lock stays its parent's."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_held: Final[set[_SystemLock]] = set()


def _forget_in_child() -> None:
    # A child would hold the lock after its parent's death, or give it back while that lives.
    while _held:
        _held.pop().forget()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_child)
