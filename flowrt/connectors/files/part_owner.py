"""Who may write to a prefix in a folder: one sink, says a mark; one job, says a lock."""

from __future__ import annotations

from flowrt.connectors.files.part_names import PartNames
from flowrt.contract.errors import ConfigError, LeaseError
from flowrt.contract.logs import flow_log
from flowrt.contract.sink import SinkContext
from flowrt.contract.world import FileLock

_log = flow_log("flowrt.connectors.files")


class PartOwner:
    """Holds a prefix for one attempt of a job to run.

    `goes_on` says that the job has an epoch to go on from: parts that are there are its own.
    """

    def __init__(self, ctx: SinkContext, folder: str, names: PartNames, *, goes_on: bool) -> None:
        self._ctx = ctx
        self._files = ctx.world.files
        self._folder = folder
        self._names = names
        self._goes_on = goes_on
        self._lock: FileLock | None = None
        self._new_mark: bytes | None = None

    async def take(self) -> None:
        """Take the prefix; `ConfigError` where another sink has it, `LeaseError` another job."""
        await self._mark()
        await self._take_lock()

    def stay(self) -> None:
        """Hear that an epoch was committed: the prefix is this sink's from now on."""
        self._new_mark = None

    async def let_go(self) -> None:
        """Let the next job write; where no epoch came, leave nothing. May be called twice."""
        try:
            await self._unmark()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    async def _mark(self) -> None:
        """Mark the prefix as this sink's. Two that do so at the same time see each other's mark."""
        files, path = self._files, self._at(self._names.owner)
        await self._refuse_other_sink()
        is_ours = await files.size(path) is not None
        if is_ours and not self._ctx.take_over:
            return
        # With a token, so that an instance that hung does not take the mark from its successor.
        mark = f"{self._names.operator}\n{self._ctx.world.randomness.token()}\n".encode()
        await files.write(path, [mark])
        if is_ours:
            return
        try:
            await self._refuse_other_sink()
        except ConfigError:
            await files.delete(path)
            raise
        self._new_mark = mark

    async def _unmark(self) -> None:
        """Take a new mark back: the flow was refused, or failed before it had anything to show.

        A sink of another name, which the error may have asked for, would be refused otherwise.
        """
        mark, self._new_mark = self._new_mark, None
        if mark is None:
            return
        names = self._names
        is_ours = [names.token_of, names.epoch_of] if self._goes_on else [names.token_of]
        try:
            found = await self._files.names(self._folder)
            if any(says(name) is not None for says in is_ours for name in found):
                return
            if await self._files.read(self._at(names.owner)) == mark:
                await self._files.delete(self._at(names.owner))
                if self._lock is not None:
                    await self._files.delete(self._at(names.lock))
        except OSError as error:
            _log.warning(
                "sink %r left its mark in %s: %s",
                names.operator,
                self._folder,
                error,
                extra={"operator": names.operator},
            )

    async def _refuse_other_sink(self) -> None:
        names = self._names
        for name in filter(names.is_other_owner, await self._files.names(self._folder)):
            raise ConfigError(
                f"sink {names.operator!r}: the files {self._at(names.prefix)}-* belong to another "
                f"sink, says {self._at(name)}. Give each sink a folder or a prefix of its own; if "
                "that sink is gone for good, delete that file"
            )

    async def _take_lock(self) -> None:
        """Keep every other job out, also one that has a copy of this one's checkpoints."""
        path, names = self._at(self._names.lock), self._names
        if self._ctx.take_over:
            await self._files.delete(path)  # whoever hangs holds a file without a name
        self._lock = await self._files.lock(path)
        if self._lock is None:
            raise LeaseError(
                f"sink {names.operator!r}: another job writes to {self._at(names.prefix)}-* and "
                f"holds {path}. Stop that job, or give this one a folder or a prefix of its own; "
                "take_over=True takes it from a job that hangs"
            )

    def _at(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"
