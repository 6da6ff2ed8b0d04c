"""A machine's disk as one process sees it: slow, failing, and gone when the process is."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from flowrt.contract.world import Entry, FileLock
from tests.simulate.faults import Call, DiedError

if TYPE_CHECKING:
    from tests.simulate.machine import Process

T = TypeVar("T")


class ProcessFiles:
    """The machine's disk as one process sees it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._disk = process.machine.disk
        self._locks: list[FileLock] = []

    def unlock(self) -> None:
        """Give back all locks, as the operating system does."""
        for lock in self._locks:
            lock.release()

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        return await self._do("read", path, lambda: self._disk.read(path, offset, size))

    async def write(self, path: str, chunks: Iterable[bytes]) -> int:
        data = b"".join(chunks)
        part = data[: self._process.chance.randint(0, len(data))]
        return await self._do(
            "write",
            path,
            lambda: self._disk.write(path, [data]),
            lambda: self._disk.write(path, [part]),
        )

    async def write_at(self, path: str, offset: int, data: bytes) -> None:
        part = data[: self._process.chance.randint(0, len(data))]
        await self._do(
            "write_at",
            path,
            lambda: self._disk.write_at(path, offset, data),
            lambda: self._disk.write_at(path, offset, part),
        )

    async def sync(self, path: str) -> None:
        await self._do(
            "sync", path, lambda: self._disk.sync(path), lambda: self._disk.fail_sync(path)
        )

    async def sync_folder(self, path: str) -> None:
        await self._do("sync_folder", path, lambda: self._disk.sync_folder(path))

    async def rename(self, old: str, new: str) -> None:
        await self._do("rename", f"{old} to {new}", lambda: self._disk.rename(old, new))

    async def delete(self, path: str) -> None:
        await self._do("delete", path, lambda: self._disk.delete(path))

    async def make_folder(self, path: str) -> None:
        await self._do("make_folder", path, lambda: self._disk.make_folder(path))

    async def names(self, path: str) -> list[str]:
        return await self._do("names", path, lambda: self._disk.names(path))

    async def entries(self, path: str) -> list[Entry] | None:
        return await self._do("entries", path, lambda: self._disk.entries(path))

    async def size(self, path: str) -> int | None:
        return await self._do("size", path, lambda: self._disk.size(path))

    async def is_folder(self, path: str) -> bool:
        return await self._do("is_folder", path, lambda: self._disk.is_folder(path))

    async def lock(self, path: str) -> FileLock | None:
        async def lock() -> FileLock | None:
            lock = await self._disk.lock(path)
            if lock is not None:
                self._locks.append(lock)
            return lock

        lock_ = await self._do("lock", path, lock)
        return None if lock_ is None else _ProcessLock(self._process, lock_)

    async def _do(
        self, operation: str, path: str, call: Call[T], torn: Call[Any] | None = None
    ) -> T:
        try:
            return await self._process.touch(operation, path, call, torn)
        except DiedError as error:
            raise OSError(errno.EIO, "the process is dead") from error


class _ProcessLock:
    def __init__(self, process: Process, lock: FileLock) -> None:
        self._process = process
        self._lock = lock

    def release(self) -> None:
        if self._process.alive:
            self._lock.release()
