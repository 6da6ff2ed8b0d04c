"""One owner: a checkpoint folder belongs to one instance of a job at a time.

`lease.json` names the owner and its generation, a number that grows with each start. The owner
holds an operating system's lock on `lease-<generation>.lock` for as long as it lives. Whoever wants
to be the next owner needs the lock of the present generation (proof that its owner is gone, unless
it is taken over by force) and that of the next one (proof that nobody else is about to be).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec

from flowrt.checkpoint.disk import delete_quietly, disk_error, write_durably
from flowrt.checkpoint.names import LEASE, STATE_FOLDER, parse_fence, parse_manifest, parse_state
from flowrt.checkpoint.sealed import seal, unseal
from flowrt.contract.errors import CheckpointError, ConfigError, LeaseError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.folders import make_folder_durably
from flowrt.contract.world import FileLock, Files, World

_NO_FOLDER: Final = frozenset({errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG})
_LOCK = re.compile(r"lease-(\d+)\.lock")


class LeaseRecord(msgspec.Struct, frozen=True):
    """What `lease.json` says. Generation 0: the folder never had an owner."""

    generation: int = 0
    host: str = ""
    pid: int = 0
    started_ms: int = 0

    def owner(self) -> str:
        """Name the owner, for messages."""
        if not self.host:
            return f"somebody unknown ({LEASE} was deleted), generation {self.generation}"
        since = datetime.fromtimestamp(self.started_ms // 1_000, UTC)
        return (
            f"process {self.pid} on host {self.host}, generation {self.generation}, started at "
            f"{since:%Y-%m-%dT%H:%M:%SZ}"
        )


async def read_lease(files: Files, folder: str) -> LeaseRecord:
    """Return who owns a folder; `CheckpointError` where `lease.json` is damaged."""
    path = f"{folder}/{LEASE}"
    try:
        data = await files.read(path)
    except FileNotFoundError:
        return LeaseRecord(generation=await _newest_generation(files, folder))
    try:
        return msgspec.json.decode(unseal("lease", data, path), type=LeaseRecord)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Make sure that no instance of the job runs, then delete that file"
        ) from error


async def _newest_generation(files: Files, folder: str) -> int:
    # Without lease.json (deleted by hand) a number must not be used again all the same.
    names = await files.names(folder)
    states = map(parse_state, await files.names(f"{folder}/{STATE_FOLDER}"))
    every = (*map(parse_manifest, names), *map(parse_fence, names), *states)
    return max((made.generation for made in every if made is not None), default=0)


class Lease:
    """The right to write into a checkpoint folder: got with `take`, proved anew with `check`."""

    def __init__(self, world: World, folder: str, record: LeaseRecord, lock: FileLock) -> None:
        self.folder = folder
        self._world = world
        self._record = record
        self._lock = lock
        self._is_first = record.generation == 1
        self._next: LeaseRecord | None = None
        self._next_lock: FileLock | None = None

    @property
    def generation(self) -> int:
        """The number of this life of the job; no other ever has the same on this folder."""
        return self._record.generation

    @classmethod
    async def take(
        cls,
        world: World,
        folder: str,
        *,
        take_over: bool = False,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Lease:
        """Become the owner of a folder (made where missing).

        `before` is awaited when nothing is in the way any more; where it raises nothing has
        changed, and a present owner goes on. `LeaseError` where another instance owns the folder;
        with `take_over` that one loses it and cannot write or commit from then on.
        `CheckpointError` where the folder cannot be written, `ConfigError` where it is none and
        cannot be.
        """
        with _telling_of_the_disk(folder):
            await make_folder_durably(world.files, folder)
            present = await read_lease(world.files, folder)
            held = await world.files.lock(_lock_path(folder, present.generation))
        if held is None and not take_over:
            raise LeaseError(
                f"the checkpoint folder {folder} is in use by {present.owner()}. Stop that "
                "instance, give this job a folder of its own, or take the folder over "
                "(take_over=True) if that instance is lost"
            )
        try:
            if before is not None:
                await before()
            with _telling_of_the_disk(folder):
                return await cls._follow(world, folder, present)
        finally:
            if held is not None:
                held.release()

    @classmethod
    async def _follow(cls, world: World, folder: str, present: LeaseRecord) -> Lease:
        record = _successor(world, present)
        lock = await _lock_next(world.files, folder, record)
        try:
            await _succeed(world.files, folder, present, record, lambda _: None)
        except BaseException:
            lock.release()
            raise
        return cls(world, folder, record, lock)

    async def next_generation(self) -> None:
        """Begin a new life in the same process, after an error: nothing of the old one may count.

        `LeaseError` where the folder was taken over.
        """
        try:
            await self._take_what_is_ours()
            await self.check()
            await self._renew()
        except OSError as error:
            raise disk_error(error, "renew the lease", self.folder) from error

    async def _take_what_is_ours(self) -> None:
        """Go on from a renewal that failed behind its rename: `lease.json` names us already."""
        present = await read_lease(self._world.files, self.folder)
        if present == self._next and self._next_lock is not None:
            self._move_on(present, self._next_lock)

    async def _renew(self) -> None:
        record = self._next = _successor(self._world, self._record)
        lock = self._next_lock or await _lock_next(self._world.files, self.folder, record)
        self._next_lock = lock
        steps: list[str] = []
        try:
            await _succeed(self._world.files, self.folder, self._record, record, steps.append)
        except BaseException:
            # Nobody else may come in before the next try: our present lock is kept, and the next
            # one too where lease.json may name us already.
            if "synced" not in steps:
                lock.release()
                self._next_lock = None
            raise
        self._move_on(record, lock)

    def _move_on(self, record: LeaseRecord, lock: FileLock) -> None:
        self._lock.release()
        self._record, self._lock, self._next_lock = record, lock, None

    async def check(self) -> None:
        """Make sure that the folder is still owned; `LeaseError` where it was taken or is gone."""
        try:
            present = await read_lease(self._world.files, self.folder)
        except OSError as error:
            raise disk_error(error, "read the lease", self.folder) from error
        # The whole record: a folder that was deleted and made anew gives the same numbers again.
        if present == self._record:
            return
        # Without lease.json what lies in the folder says which generation came last.
        if present.host or present.generation > self.generation:
            raise self._taken_over(present)
        if present.generation < self.generation:
            raise self._gone()

    def _taken_over(self, present: LeaseRecord) -> LeaseError:
        return LeaseError(
            f"the checkpoint folder {self.folder} was taken over by {present.owner()}; this "
            f"instance ({self._who}) writes and commits nothing more. Stop it, or the other one"
        )

    def _gone(self) -> LeaseError:
        return LeaseError(
            f"the checkpoint folder {self.folder}, or {LEASE} in it, is gone: it was deleted, "
            f"moved or unmounted while this instance ({self._who}) ran, which writes and commits "
            "nothing more. Bring the folder back as it was and start again, restore a savepoint "
            "into a new folder, or start from nothing in a new folder"
        )

    @property
    def _who(self) -> str:
        return f"process {self._world.pid}, generation {self.generation}"

    async def withdraw(self) -> None:
        """Let the next instance in, and leave a folder that nobody had before as empty as it was.

        For a job that was refused before it ran. What an earlier life left, and a savepoint that
        was brought in, stay.
        """
        try:
            if self._is_first:
                await self._take_back()
        except (OSError, CheckpointError):
            pass  # taken over, or a disk that fails: the next start is the second life, that is all
        finally:
            self.release()

    async def _take_back(self) -> None:
        files, names = self._world.files, await self._world.files.names(self.folder)
        if any(map(parse_manifest, names)):
            return
        await self.check()
        for name in names:
            if parse_fence(name) is not None:
                await files.delete(f"{self.folder}/{name}")
        # Its lock goes last: whoever comes finds it held, so that what is deleted is ours. Whoever
        # takes the folder over by force at this moment is told that it is gone, and loses nothing.
        await files.delete(f"{self.folder}/{LEASE}")
        await files.delete(_lock_path(self.folder, self.generation))
        # The folder itself stays: whoever comes may be about to lock a file in it.

    def release(self) -> None:
        """Let the next instance in; may be called twice."""
        self._lock.release()
        if self._next_lock is not None:
            self._next_lock.release()


@contextmanager
def _telling_of_the_disk(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_FOLDER:
            raise ConfigError(
                f"{folder} is no folder, or lies below a file ({error}): name another one for "
                "the checkpoints"
            ) from error
        raise disk_error(error, "take the lease", folder) from error


def _successor(world: World, present: LeaseRecord) -> LeaseRecord:
    return LeaseRecord(
        generation=present.generation + 1,
        host=world.host,
        pid=world.pid,
        started_ms=world.clock.now_ms(),
    )


def _just_taken(folder: str) -> LeaseError:
    return LeaseError(
        f"another instance has just taken the checkpoint folder {folder}. Start only one, or give "
        "each a folder of its own"
    )


async def _lock_next(files: Files, folder: str, record: LeaseRecord) -> FileLock:
    lock = await files.lock(_lock_path(folder, record.generation))
    if lock is None:
        raise _just_taken(folder)
    return lock


async def _succeed(
    files: Files,
    folder: str,
    present: LeaseRecord,
    record: LeaseRecord,
    passed: Callable[[str], None],
) -> None:
    """Become `record`, the generation after `present`; the lock of `record` is held."""
    # Whoever was quicker holds that lock, or has written lease.json and gone on.
    if (await read_lease(files, folder)).generation != present.generation:
        raise _just_taken(folder)
    data = seal("lease", msgspec.json.encode(record))
    await write_durably(files, f"{folder}/{LEASE}", [data], passed)
    failpoint("lease.taken")
    await _delete_old_locks(files, folder, record.generation)


async def _delete_old_locks(files: Files, folder: str, generation: int) -> None:
    try:
        names = await files.names(folder)
    except OSError:
        return  # they are deleted the next time
    for name in names:
        match = _LOCK.fullmatch(name)
        if match is not None and int(match[1]) < generation:
            await delete_quietly(files, f"{folder}/{name}")


def _lock_path(folder: str, generation: int) -> str:
    return f"{folder}/lease-{generation}.lock"
