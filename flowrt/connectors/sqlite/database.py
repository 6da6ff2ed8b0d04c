"""An SQLite database file: connections in worker threads, errors that say what to do.

Every connection is opened here; sqlite3 itself is loaded only then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

from flowrt.connectors.sqlite.files import FileId, OpenFiles, beside, file_id
from flowrt.contract.errors import ConfigError, FlowrtError

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")

SLICE_MS: Final = 250
"""How long a thread waits for a lock at a time: a job that is cancelled waits no longer."""
SYNCHRONOUS: Final = "FULL"
"""What is committed must outlast a loss of power, for the checkpoint of its epoch is let go of."""

OPEN_TRIES: Final = 5
"""How often a database is opened that is replaced at that very moment."""

_BUSY, _LOCKED = 5, 6
_ADVICE: Final = {
    3: "let this process read and write the file and its folder",
    8: "let this process write to the file and its folder",
    10: "the disk or file system failed: look at its log",
    11: "the file is damaged: bring a backup back, or see what `PRAGMA integrity_check` says",
    13: "make room",
    14: "does it exist, with its folder, and may this process read and write both?",
    26: "is the path that of an SQLite database?",
}
"""What to do, by SQLite's primary result codes."""


@dataclass(frozen=True, slots=True)
class _Locked:
    """A call that found the database locked."""

    error: Exception


class Database:
    """One connection, opened when first used, and used by one worker thread at a time.

    `who` names the sink, source or lookup in errors. A call that finds the database locked is made
    again until `busy_ms` are over. After any other error of SQLite the connection is thrown away,
    for what it holds is not known, and the next call opens another.

    Before each call it is looked whether the file that is open still lies at the path. A connection
    that only reads opens what lies there now. One that writes raises `error`, then and ever after,
    and looks behind each call too: what it wrote may be in a file that nobody finds any more.

    `left_log` is the log that a former connection saw beside a database that was not its own:
    SQLite would take it for a part of that one, so nothing is opened beside it.
    """

    def __init__(
        self,
        path: str,
        who: str,
        error: type[FlowrtError],
        *,
        read_only: bool = False,
        busy_ms: int = 10_000,
        left_log: FileId | None = None,
    ) -> None:
        self.left_log = left_log
        self._path = path
        self._who = who
        self._error = error
        self._read_only = read_only
        self._busy_ms = busy_ms
        self._connection: Connection | None = None
        self._files: OpenFiles | None = None
        self._turn: CapacityLimiter | None = None

    async def run(self, call: Callable[[Connection], T]) -> T:
        """Return what `call(connection)` does; it runs in a worker thread, perhaps several times.

        Raises what `call` raises, and the database's own errors as `error`. Cancelled, it returns
        only once the thread is done: what `call` did is done, or undone as a whole.
        """
        if self._turn is None:
            self._turn = CapacityLimiter(1)
        left_ms = self._busy_ms
        while True:
            tried = await to_thread.run_sync(self._try, call, limiter=self._turn)
            if not isinstance(tried, _Locked):
                return tried
            left_ms -= SLICE_MS
            if left_ms <= 0:
                raise self._locked() from tried.error

    def close(self) -> None:
        """Close the connection; waits for nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._files is not None:
                self._files = self._files.without_log()
            connection.close()

    def __del__(self) -> None:
        # A lookup that belongs to a flow has nobody who knows when to close it.
        self.close()

    async def aclose(self) -> None:
        """Close the connection in a worker thread: the last one out writes the log back."""
        if self._connection is not None and self._turn is not None:
            with CancelScope(shield=True):
                await to_thread.run_sync(self.close, limiter=self._turn)

    def _try(self, call: Callable[[Connection], T]) -> T | _Locked:
        from sqlite3 import Error

        try:
            self._look()
            done = call(self._connection or self._open())
        except Error as error:
            if code_of(error) in (_BUSY, _LOCKED):
                return _Locked(error)
            self._look()
            self.close()
            raise self._failed(error) from error
        if not self._read_only:
            self._look()
        return done

    def _look(self) -> None:
        """Let go of a file that does not lie at the path any more; raise where it was written."""
        files = self._files
        change = None if files is None else files.change(with_log=not self._read_only)
        if files is None or change is None:
            return
        self.left_log = files.left_log() or self.left_log
        self.close()
        self._files = None
        if not self._read_only:
            self._files = files
            raise self._changed(change)

    def _open(self) -> Connection:
        """Open the file that lies at the path, and remember which it is.

        SQLite does not say which file it has opened. It is the one at the path if that was the same
        before and after.
        """
        for _ in range(OPEN_TRIES):
            self._look()
            self._refuse_left_log()
            before = file_id(self._path)
            connection = connect(self._path, self._read_only)
            files = OpenFiles.at(self._path)
            if before is not None and files.database == before:
                self._connection, self._files = connection, files
                return connection
            connection.close()
        raise self._changed("another file takes its place again and again")

    def _refuse_left_log(self) -> None:
        path = beside(self._path, "-wal")
        if self.left_log is not None and file_id(path) == self.left_log:
            raise self._error(
                f"{self._who} cannot use the database {self._path}: beside it lies the log of the "
                f"one that was there before, {path}, and SQLite would mix the two. End what has "
                "that one open, and delete the log, and -shm with it, before a database is replaced"
            )

    def _changed(self, what: str) -> FlowrtError:
        return self._error(
            f"{self._who} cannot use the database {self._path}: {what}. Put back the file that "
            "was there, with its -wal, or a backup, and start the flow again: it goes on where "
            "the database is one that its checkpoint knows, and else says so. Replace a database "
            "only while nobody has it open"
        )

    def _failed(self, error: Exception) -> FlowrtError:
        advice = _ADVICE.get(code_of(error))
        return self._error(
            f"{self._who} cannot use the database {self._path}: {error}"
            f"{f'; {advice}' if advice else ''}"
        )

    def _locked(self) -> FlowrtError:
        return self._error(
            f"{self._who} cannot use the database {self._path}: another connection has held it "
            f"locked for {self._busy_ms / 1_000:g} s. Who has a transaction open there? Let it "
            "end, or pass a longer busy_timeout"
        )


def connect(path: str, read_only: bool) -> Connection:
    """Return a connection that may be used in any thread, one at a time.

    A writer's is in WAL mode, so that readers never wait for it, and synced at each commit.
    """
    import sqlite3

    uri = f"{Path(path).absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    if not read_only:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        uri, uri=True, timeout=SLICE_MS / 1_000, isolation_level=None, check_same_thread=False
    )
    try:
        if not read_only:
            connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()  # opens the log
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: Connection, *, keep: bool = True) -> Iterator[None]:
    """Hold the right to write; at the end commit, or with `keep=False` undo what was done."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        if keep:
            connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def code_of(error: Exception) -> int:
    """Return SQLite's primary result code; 0 where the error has none."""
    code: Any = getattr(error, "sqlite_errorcode", 0)
    return int(code or 0) & 0xFF


def database_path(path: str | os.PathLike[str]) -> str:
    """Return the path of a database as text; `ConfigError` for one in memory."""
    text = os.fspath(path)
    if not isinstance(text, str) or text in ("", ":memory:"):
        raise ConfigError(
            f"{path!r} is no file: a database in memory ends with its connection, so a flow needs "
            "the path of a file"
        )
    return text


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it; `ConfigError` where nothing can be it."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise ConfigError(f"{name!r} is not a name of a table or column")
    return '"' + name.replace('"', '""') + '"'
