"""Folders that a crash leaves where they are."""

from __future__ import annotations

import errno
from typing import Final

from flowrt.contract.world import Files

_FAILURES: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


async def make_folder_durably(files: Files, path: str) -> None:
    """Make a folder, and those above it where they are missing, so that a crash leaves them there.

    Also where it exists: whoever made it may have died before it was durable. `OSError` where the
    disk fails.
    """
    await files.make_folder(path)
    folder = path.rstrip("/") or path
    while (above := folder_of(folder)) != folder:
        try:
            await files.sync_folder(above)
        except OSError as error:
            # One that must not be read, or is on a file system without this, was not made by us.
            if error.errno in _FAILURES:
                raise
        folder = above


def folder_of(path: str) -> str:
    """Return the folder that a path lies in; "." for a bare name."""
    above, slash, _ = path.rpartition("/")
    return above or slash or "."
