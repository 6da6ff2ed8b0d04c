"""Durable files: written under a temporary name, synced, renamed; what to say when that fails."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from flowrt.contract.errors import CheckpointError
from flowrt.contract.folders import folder_of
from flowrt.contract.world import Files

TEMPORARY = ".tmp"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def disk_error(error: OSError, doing: str, folder: str) -> CheckpointError:
    """Return the error that says what could not be done, in which folder, and what to do."""
    if error.errno in _FULL:
        reason = "the disk is full. Make room there, or choose a checkpoint folder on another disk"
    elif error.errno in _FORBIDDEN:
        reason = f"it is forbidden ({error}). Give the job's user the right to write there"
    elif error.errno == errno.ENOENT:
        return CheckpointError(
            f"cannot {doing} in {folder}: {error}. Was something there deleted or moved, or is its "
            "disk not mounted? With the folder as it was, a new start goes on from the last "
            "checkpoint"
        )
    else:
        reason = f"{error}. See whether the disk is there and healthy"
    return CheckpointError(
        f"cannot {doing} in {folder}: {reason}. Nothing committed is harmed: a new start goes on "
        "from the last checkpoint"
    )


async def write_durably(
    files: Files, path: str, chunks: Iterable[bytes], passed: Callable[[str], None]
) -> None:
    """Create or replace a file so that after a crash it is there whole, or as before.

    Calls `passed` with "written", "synced", "renamed" and "folder_synced" after each step.
    `OSError` where a step fails; the temporary file is then gone.
    """
    temporary = path + TEMPORARY
    try:
        await files.write(temporary, chunks)
        passed("written")
        await files.sync(temporary)
        passed("synced")
        await files.rename(temporary, path)
    except OSError:
        await delete_quietly(files, temporary)
        raise
    passed("renamed")
    await files.sync_folder(folder_of(path))
    passed("folder_synced")


async def delete_quietly(files: Files, path: str) -> None:
    """Delete a file that nobody needs; where that fails it is left to a later clean-up."""
    try:
        await files.delete(path)
    except OSError:
        pass
