"""Which files a connection has open, and whether they still lie where they were opened.

SQLite goes on with a file that was renamed or deleted, as every program does that has it open: what
it writes then is in no database that anybody finds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self, TypeAlias

FileId: TypeAlias = tuple[int, int]
"""Device and inode: the same for two paths only where they lead to one file."""


def file_id(path: str) -> FileId | None:
    """Return which file lies at a path, behind links; None where there is none to be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The files of a connection: the database, and beside it the log and the log's index.

    The latter two are None where they are not known, or the database has none.
    """

    path: str
    database: FileId | None
    log: FileId | None = None
    index: FileId | None = None

    @classmethod
    def at(cls, path: str) -> Self:
        """Return the files that lie there now."""
        return cls(
            path, file_id(path), file_id(beside(path, "-wal")), file_id(beside(path, "-shm"))
        )

    def without_log(self) -> OpenFiles:
        """Return what is known once the connection is closed: the last one deletes the log."""
        return OpenFiles(self.path, self.database)

    def change(self, *, with_log: bool) -> str | None:
        """Say what became of the files; None where all are where they were."""
        database = file_id(self.path)
        if database is None:
            return "it was deleted or moved away while it was in use"
        if database != self.database:
            return "another file took its place while it was in use"
        for known, ending in ((self.log, "-wal"), (self.index, "-shm")) if with_log else ():
            path = beside(self.path, ending)
            if known is not None and file_id(path) != known:
                return f"its file {path} was deleted or replaced while it was in use"
        return None

    def left_log(self) -> FileId | None:
        """Return the log of this database where it lies beside another by now, with content."""
        path = beside(self.path, "-wal")
        if self.log is None or file_id(path) != self.log or file_id(self.path) == self.database:
            return None
        return self.log if _has_content(path) else None


def beside(path: str, ending: str) -> str:
    """Return where SQLite puts a file that belongs to a database: beside it, behind links."""
    return os.path.realpath(path) + ending


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False
