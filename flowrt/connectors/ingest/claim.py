"""Who may write into a journal's folder: a lock, and a number that grows when it is taken over.

The owner holds an operating system's lock on `journal.lock`, or on `journal-<generation>.lock` once
the journal was taken over. Whoever takes it over by force does so by making the file of the next
generation, and only then looks where the journal ends. The old owner looks for that file behind
each sync and before it acknowledges anything: what it acknowledges was in the journal before the
file was, so that the new owner reads it. These files stay: a missing one always tells the truth.
They need no sync of their own, for a power cut ends both owners, and whatever the new one writes is
durable no sooner than they are.
"""

from __future__ import annotations

import re
from typing import Final

from flowrt.contract.errors import LeaseError
from flowrt.contract.world import FileLock, Files

_LOCK: Final = re.compile(r"journal-(\d+)\.lock")


class Claim:
    """The right to write into a journal's folder: got with `take`, proved anew with `check`."""

    def __init__(self, files: Files, folder: str, generation: int, lock: FileLock) -> None:
        self.generation = generation
        self._files = files
        self._folder = folder
        self._lock = lock

    @classmethod
    async def take(cls, files: Files, folder: str, *, take_over: bool = False) -> Claim:
        """Become the owner of a folder, which exists.

        `LeaseError` where another one has it; with `take_over` that one loses it, and acknowledges
        nothing more that is not in the journal when this returns.
        """
        names = await files.names(folder)
        matches = [match for name in names if (match := _LOCK.fullmatch(name))]
        generation = max((int(match[1]) for match in matches), default=0)
        lock = await files.lock(_lock_path(folder, generation))
        if lock is None and take_over:
            generation += 1
            lock = await files.lock(_lock_path(folder, generation))
        if lock is None:
            raise in_use(folder)
        claim = cls(files, folder, generation, lock)
        try:
            await claim.check()
        except BaseException:
            lock.release()
            raise
        return claim

    async def check(self) -> None:
        """Make sure that nobody took the journal over; `LeaseError` where somebody did."""
        if await self._files.size(_lock_path(self._folder, self.generation + 1)) is not None:
            raise LeaseError(
                f"the journal {self._folder} was taken over by another instance; this one writes "
                "nothing more. Stop it, or the other one"
            )

    def release(self) -> None:
        """Let the next owner in; may be called twice."""
        self._lock.release()


def in_use(folder: str) -> LeaseError:
    """Return the error for a journal that another owner has."""
    return LeaseError(
        f"the journal {folder} is in use by another process, or another Ingest of this one: stop "
        "that, give this one a folder of its own, or take the journal over with its checkpoint "
        "folder (take_over=True) if that instance is lost"
    )


def _lock_path(folder: str, generation: int) -> str:
    return f"{folder}/journal-{generation}.lock" if generation else f"{folder}/journal.lock"
