"""Files in memory that know what a crash would lose, and fail on order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from posixpath import commonprefix
from typing import Final, Literal, TypeAlias

from anyio.lowlevel import checkpoint

from flowrt.contract.world import Entry, FileLock, Randomness

Operation: TypeAlias = Literal[
    "read",
    "write",
    "write_at",
    "sync",
    "sync_folder",
    "rename",
    "delete",
    "make_folder",
    "names",
    "entries",
    "size",
    "is_folder",
    "lock",
]


_TOPS: Final = frozenset({"", "/", "."})
"""Where paths begin: the folders that are always there and lie in no other."""


class _Content:
    """A file's bytes now, and as they were when last synced (empty before).

    `given_up` is the first byte that a failed sync lost: no later sync makes it durable, but only
    writing it again does.
    """

    def __init__(self) -> None:
        self.now = b""
        self.durable = b""
        self.given_up: int | None = None


@dataclass
class _Fault:
    operation: Operation
    path_part: str
    error: OSError
    times: int
    torn: int | None


class MemoryFiles:
    """Files in memory that know what a crash would lose.

    Bytes survive a crash once their file was synced; names (creations, renames, deletions) once
    their folder was synced, and not before. Folders themselves are durable at once; with
    `lose_folders` their names, too, only once the folder above them was synced.

    Each operation gives the event loop a turn first; with `atomic` none does, for those who give
    turns of their own.
    """

    def __init__(self, *, lose_folders: bool = False, atomic: bool = False) -> None:
        self._atomic = atomic
        self._lose_folders = lose_folders
        self._names: dict[str, _Content] = {}
        self._durable_names: dict[str, _Content] = {}
        self._folders: set[str] = {*_TOPS}
        self._durable_folders: set[str] = {*_TOPS}
        self._locks: dict[str, _MemoryLock] = {}
        self._faults: list[_Fault] = []

    # ---------------------------------------------------------------- what a test does to them

    def fail(
        self,
        operation: Operation,
        path_part: str,
        error: OSError,
        *,
        times: int = 1,
        torn: int | None = None,
    ) -> None:
        """Raise `error` the next `times` times that `operation` meets a path with `path_part`.

        With `torn` a write leaves its first bytes (that many) behind.
        """
        self._faults.append(_Fault(operation, path_part, error, times, torn))

    def crash(self, randomness: Randomness | None = None) -> None:
        """Lose what is not durable, and all locks, as if the machine had died.

        With `randomness` each thing that could be lost may survive instead, bytes also in part, or
        as zeros: a disk promises nothing about what was not synced, but that a rename is whole.
        """
        if randomness is not None:
            self._survive_by_chance(randomness)
        self._folders &= self._durable_folders
        while lost := {path for path in self._folders if _folder(path) not in self._folders}:
            self._folders -= lost
        self._durable_folders = set(self._folders)
        self._durable_names = {
            path: content
            for path, content in self._durable_names.items()
            if _folder(path) in self._folders
        }
        self._names = dict(self._durable_names)
        for content in self._names.values():
            content.now = content.durable
        self.kill()

    def kill(self) -> None:
        """Give back all locks, as if the process alone had died: no bytes are lost."""
        for lock in list(self._locks.values()):
            lock.release()

    def _survive_by_chance(self, randomness: Randomness) -> None:
        for folder in sorted(self._folders - self._durable_folders):
            if randomness.fraction() < 0.5:
                self._durable_folders.add(folder)
        # A rename survives whole or not at all: file systems promise that much.
        names, durable = self._names, self._durable_names
        was_at = {id(content): path for path, content in durable.items() if path not in names}
        moved = {path: was_at[id(c)] for path, c in names.items() if id(c) in was_at}
        for path in sorted((names.keys() | durable.keys()) - set(moved.values())):
            if randomness.fraction() < 0.5:
                self._keep_name(path)
                if path in moved:
                    self._keep_name(moved[path])
        for path in sorted(self._durable_names):
            content = self._durable_names[path]
            if content.now != content.durable and randomness.fraction() < 0.5:
                # Bytes that were synced and not written again are safe, whatever followed them.
                safe = len(commonprefix([content.durable, content.now]))
                more = len(content.now) - safe
                kept = content.now[: safe + int(more * randomness.fraction() * 2)]
                if randomness.fraction() < 0.2:
                    # The length was written, and the bytes were not.
                    kept = kept.ljust(len(content.now), b"\0")
                content.durable = kept

    def _keep_name(self, path: str) -> None:
        if path in self._names:
            self._durable_names[path] = self._names[path]
        else:
            self._durable_names.pop(path, None)

    async def fail_sync(self, path: str) -> None:
        """Do what a disk does whose `sync` fails: what was written is lost at the next crash.

        A later `sync` of the same bytes says that all is well, and changes nothing (as on Linux,
        where the pages count as clean then).
        """
        await self._turn()
        content = self._content(path)
        if content.given_up is None:
            content.given_up = len(commonprefix([content.durable, content.now]))

    def paths(self) -> list[str]:
        """Return the paths of all files, sorted."""
        return sorted(self._names)

    def contents(self, path: str) -> bytes:
        """Return a file's bytes."""
        return self._content(path).now

    def replace(self, path: str, data: bytes) -> None:
        """Put bytes into a file at once and durably: what a faulty disk or a careless user does.

        The folders on its path are made where they are missing.
        """
        self._add_folder(_folder(path))
        self._durable_folders |= self._folders
        content = self._names.setdefault(path, _Content())
        content.now = content.durable = data
        self._durable_names[path] = content

    def forget(self, path_part: str) -> None:
        """Take all files with `path_part` in their path away, at once and durably."""
        for names in (self._names, self._durable_names):
            for path in [path for path in names if path_part in path]:
                del names[path]

    # ------------------------------------------------------------------------------ the contract

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See `Files.read`."""
        await self._enter("read", path)
        data = self._content(path).now
        return data[offset:] if size is None else data[offset : offset + size]

    async def write(self, path: str, chunks: Iterable[bytes]) -> int:
        """See `Files.write`."""
        data = b"".join(chunks)
        await self._enter("write", path, lambda torn: self._put(path, data[:torn]))
        self._put(path, data)
        return len(data)

    async def write_at(self, path: str, offset: int, data: bytes) -> None:
        """See `Files.write_at`."""
        before = self._content(path).now[:offset] if offset else b""
        before = before.ljust(offset, b"\0")

        def tear(torn: int) -> None:
            self._put(path, before + data[:torn], offset)

        await self._enter("write_at", path, tear)
        self._put(path, before + data, offset)

    async def sync(self, path: str) -> None:
        """See `Files.sync`."""
        await self._enter("sync", path)
        content = self._content(path)
        if content.given_up is None:
            content.durable = content.now

    async def sync_folder(self, path: str) -> None:
        """See `Files.sync_folder`."""
        await self._enter("sync_folder", path)
        path = _here(path)
        if path not in self._folders:
            raise FileNotFoundError(2, "No such folder", path)
        self._durable_folders |= {name for name in self._folders if _folder(name) == path}
        for name in self._names.keys() | self._durable_names.keys():
            if _folder(name) == path:
                self._keep_name(name)

    async def rename(self, old: str, new: str) -> None:
        """See `Files.rename`."""
        await self._enter("rename", old)
        content = self._content(old)
        self._check_folder(new)
        del self._names[old]
        self._names[new] = content

    async def delete(self, path: str) -> None:
        """See `Files.delete`."""
        await self._enter("delete", path)
        self._names.pop(path, None)
        # A lock is on the file and not on its name: a new file of that name can be locked.
        self._locks.pop(path, None)

    async def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        await self._enter("make_folder", path)
        path = path.rstrip("/")
        if path in self._names:
            raise FileExistsError(17, "File exists", path)
        self._add_folder(path)

    async def names(self, path: str) -> list[str]:
        """See `Files.names`."""
        await self._enter("names", path)
        path = _here(path)
        inside = [*self._names, *(self._folders - _TOPS)]
        return sorted(name.rpartition("/")[2] for name in inside if _folder(name) == path)

    async def entries(self, path: str) -> list[Entry] | None:
        """See `Files.entries`."""
        await self._enter("entries", path)
        path = _here(path)
        if path not in self._folders:
            return None
        files = [
            Entry(name.rpartition("/")[2], len(content.now))
            for name, content in self._names.items()
            if _folder(name) == path
        ]
        folders = [
            Entry(name.rpartition("/")[2], None, is_folder=True)
            for name in self._folders - _TOPS
            if _folder(name) == path
        ]
        return sorted([*files, *folders], key=itemgetter(0))

    async def size(self, path: str) -> int | None:
        """See `Files.size`."""
        await self._enter("size", path)
        content = self._names.get(path)
        return None if content is None else len(content.now)

    async def is_folder(self, path: str) -> bool:
        """See `Files.is_folder`."""
        await self._enter("is_folder", path)
        return path.rstrip("/") in self._folders

    async def lock(self, path: str) -> FileLock | None:
        """See `Files.lock`; whoever asks while it is held counts as another process."""
        await self._enter("lock", path)
        if path in self._locks:
            return None
        if path not in self._names:
            self._put(path, b"")
        lock = self._locks[path] = _MemoryLock(self._locks, path)
        return lock

    async def _enter(
        self, operation: Operation, path: str, tear: Callable[[int], None] | None = None
    ) -> None:
        await self._turn()
        for fault in self._faults:
            if fault.operation == operation and fault.path_part in path and fault.times > 0:
                fault.times -= 1
                if tear is not None and fault.torn is not None:
                    tear(fault.torn)
                raise fault.error

    async def _turn(self) -> None:
        if not self._atomic:
            await checkpoint()

    def _content(self, path: str) -> _Content:
        content = self._names.get(path)
        if content is None:
            raise FileNotFoundError(2, "No such file", path)
        return content

    def _add_folder(self, path: str) -> None:
        while path not in self._folders:
            self._folders.add(path)
            if not self._lose_folders:
                self._durable_folders.add(path)
            path = _folder(path)

    def _put(self, path: str, data: bytes, written_from: int = 0) -> None:
        self._check_folder(path)
        content = self._names.setdefault(path, _Content())
        content.now = data
        if content.given_up is not None and written_from <= content.given_up:
            content.given_up = None

    def _check_folder(self, path: str) -> None:
        if path in self._folders:
            raise IsADirectoryError(21, "Is a folder", path)
        if _folder(path) not in self._folders:
            raise FileNotFoundError(2, "No such folder", path)


class _MemoryLock:
    def __init__(self, held: dict[str, _MemoryLock], path: str) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        if self._held.get(self._path) is self:
            del self._held[self._path]


def _folder(path: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return folder if folder else ("" if not slash else "/" if path != "/" else "")


def _here(path: str) -> str:
    """Return a folder's path as the names in it begin: "." is what relative paths start from."""
    return "" if path == "." else path.rstrip("/") or path[:1]
