"""The world behind small interfaces: clock, files, randomness. A job injects it.

The kernel uses no other.

Paths are plain text. Every method that touches a disk is a coroutine and runs off the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Alarm(Protocol):
    """A pending call of a clock."""

    def cancel(self) -> None:
        """Forget the call; no effect once it was made."""
        ...


class Clock(Protocol):
    """Processing time."""

    def now_ms(self) -> int:
        """Return the wall clock: milliseconds since 1970."""
        ...

    def monotonic_ns(self) -> int:
        """Return a clock that never goes back, in nanoseconds; only differences mean something."""
        ...

    def call_at(self, when_ms: int, call: Callable[[], None]) -> Alarm:
        """Call `call()` in the event loop once `now_ms() >= when_ms`, never inside `call_at`."""
        ...


class FileLock(Protocol):
    """An exclusive lock that the operating system gives back when the process dies."""

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        ...


class Entry(NamedTuple):
    """A name in a folder: that of a folder, or of a file with its size in bytes.

    `size` is None for what is neither, or cannot be looked at: `Files.size` says what it is.
    `is_link` says of a folder that it lies elsewhere, perhaps around this one.
    """

    name: str
    size: int | None
    is_folder: bool = False
    is_link: bool = False


class Files(Protocol):
    """Files and folders. `OSError` as in the standard library; a full disk is `OSError(ENOSPC)`."""

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return up to `size` bytes (None: all) from `offset`; fewer at the end of the file."""
        ...

    async def write(self, path: str, chunks: Iterable[bytes]) -> int:
        """Create or replace a file; return its size. Not durable before `sync`."""
        ...

    async def write_at(self, path: str, offset: int, data: bytes) -> None:
        """Cut the file at `offset` (creating it for 0) and write `data` there. Not durable."""
        ...

    async def sync(self, path: str) -> None:
        """Make a file's bytes durable."""
        ...

    async def sync_folder(self, path: str) -> None:
        """Make a folder's names (creations, renames, deletions) durable."""
        ...

    async def rename(self, old: str, new: str) -> None:
        """Rename atomically within one file system, replacing `new`."""
        ...

    async def delete(self, path: str) -> None:
        """Delete a file; a missing one is no error."""
        ...

    async def make_folder(self, path: str) -> None:
        """Make a folder and its parents; an existing one is no error."""
        ...

    async def names(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; [] where there is no such folder."""
        ...

    async def entries(self, path: str) -> list[Entry] | None:
        """Return what is in a folder, by name, looked up in one go; None where it is no folder."""
        ...

    async def size(self, path: str) -> int | None:
        """Return a file's size in bytes; None where there is none, `OSError` for a pipe."""
        ...

    async def is_folder(self, path: str) -> bool:
        """Say whether `path` is a folder; `OSError` where the disk cannot say."""
        ...

    async def lock(self, path: str) -> FileLock | None:
        """Lock a file (created where missing) at once; None where another process holds it."""
        ...


class Randomness(Protocol):
    """Chance, so that a test can fix it."""

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        ...

    def token(self) -> str:
        """Return a new identifier of 16 hexadecimal digits."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What a job may touch; `host` and `pid` are for messages only."""

    clock: Clock
    files: Files
    randomness: Randomness
    host: str = "localhost"
    pid: int = 0
