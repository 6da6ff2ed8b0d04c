"""What an SQLite sink does to its database: try out, commit, recover."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec

from flowrt.connectors.sqlite.database import Database, transaction
from flowrt.connectors.sqlite.table import Mark, Table, read_mark, write_mark
from flowrt.contract.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")


class Prepared(msgspec.Struct, frozen=True):
    """What a writer hands over for an epoch: its rows, in blocks, and what must come before them.

    `life` is that of the sink's mark, `before` the last epoch whose rows were in the table then.
    """

    subtask: int
    life: str
    before: int
    columns: list[str] = []
    blocks: list[bytes] = []


class Commits:
    """The database of one sink, from a `recover` to the next; knows what it has committed."""

    def __init__(self, database: Database, table: Table, sink: str) -> None:
        self.mark = Mark("", "", 0)
        self._database = database
        self._table = table
        self._sink = sink

    async def recover(
        self, epoch: int | None, prepared: list[Prepared], tokens: tuple[str, str]
    ) -> None:
        """Make the table where it is missing, take it over, commit the epoch again."""

        def take_over(connection: Connection) -> Mark:
            with transaction(connection):
                self._table.make(connection)
                found = read_mark(connection, self._sink, self._table.name)
                appends = not self._table.key
                again, mark = resolved(found, epoch, prepared, tokens, appends=appends)
                if again:
                    self._apply(connection, prepared, _DECIDED)
                write_mark(connection, self._sink, self._table.name, mark)
                return mark

        self.mark = await self._run(take_over)

    async def try_out(self, prepared: Prepared) -> None:
        """Write rows and take them back; `SinkError` where the table does not take them."""

        def write(connection: Connection) -> None:
            with transaction(connection, keep=False):
                self._apply(connection, [prepared], _UNDECIDED)

        await self._run(write)

    async def commit(self, epoch: int, prepared: list[Prepared]) -> None:
        """Write an epoch's rows with its mark, unless they are there."""
        mark = self.mark._replace(epoch=epoch)

        def write(connection: Connection) -> None:
            with transaction(connection):
                found = read_mark(connection, self._sink, self._table.name)
                if found is None or (found.life, found.owner) != (mark.life, mark.owner):
                    raise SinkError(
                        f"another instance writes to table {self._table.name!r} under this name, "
                        "or its mark in flowrt_commits was deleted, or replaced by that of a "
                        "backup: this one must stop"
                    )
                if found.epoch < self.mark.epoch:
                    raise SinkError(
                        f"the database has the rows until epoch {found.epoch} only, but this flow "
                        f"has committed those until {self.mark.epoch}: was a backup brought back "
                        "while it ran? Stop it; bring back the checkpoint folder of that time "
                        "too, or the database as it was"
                    )
                if found.epoch < epoch:
                    self._apply(connection, prepared, _DECIDED)
                    write_mark(connection, self._sink, self._table.name, mark)

        await self._run(write)
        self.mark = mark

    async def check(self) -> None:
        """Raise `SinkError` where the database was replaced or deleted since it was opened."""
        await self._run(lambda connection: None)

    async def close(self) -> None:
        """Close the connection."""
        await self._database.aclose()

    async def _run(self, call: Callable[[Connection], T]) -> T:
        with _named(f"sink {self._sink!r}"):
            return await self._database.run(call)

    def _apply(self, connection: Connection, prepared: list[Prepared], advice: str) -> None:
        try:
            for one in sorted(prepared, key=lambda one: one.subtask):
                self._table.apply(connection, one.columns, one.blocks)
        except SinkError as error:
            raise SinkError(f"{error}. {advice}") from error


_UNDECIDED = "Change it or leave it out before the sink, or mend the table"
_DECIDED = (
    "Its epoch is decided and its rows are in the checkpoint: mend the table so that it takes "
    "them, and start the flow again"
)


def resolved(
    found: Mark | None,
    epoch: int | None,
    prepared: Sequence[Prepared],
    tokens: tuple[str, str],
    *,
    appends: bool,
) -> tuple[bool, Mark]:
    """Return whether to write the epoch's rows again, and the mark of the life that begins.

    `SinkError` where table and checkpoint contradict each other, `ConfigError` where the flow
    starts from nothing and the table has rows of an earlier life. No I/O.
    """
    life, owner = tokens
    if epoch is None or not prepared:  # of this sink the checkpoint knows nothing
        if found is not None and found.epoch and appends:
            raise ConfigError(
                f"the table has rows of an earlier life of the flow (until epoch {found.epoch}), "
                "and the flow starts from nothing: it would write the same results again. Give it "
                "another table, start it with the checkpoint folder that it had, or if its rows "
                f"should stay: DELETE FROM flowrt_commits WHERE life = '{found.life}'"
            )
        return False, Mark(life, owner, 0)
    first = prepared[0]
    if found is None or found.life != first.life:
        raise SinkError(
            f"the database is not the one that the checkpoint of epoch {epoch} knows: was it "
            "deleted, moved, or written by another flow with a sink of the same name? Bring it "
            "back; or give the sink another name, so that it begins anew"
        )
    if found.epoch < first.before:
        raise SinkError(
            f"the database has the rows until epoch {found.epoch} only, but the checkpoint says "
            f"that those until {first.before} were there: was a backup brought back? Bring back "
            "the checkpoint folder of that time too; or start anew with an empty table"
        )
    if found.epoch > epoch and appends:
        raise SinkError(
            f"the table has rows until epoch {found.epoch}, and the flow goes back to epoch "
            f"{epoch}: it would write what followed again. Bring back a backup of that time, or "
            "delete what followed and its mark: UPDATE flowrt_commits "
            f"SET epoch = {epoch} WHERE life = '{found.life}'"
        )
    return found.epoch < epoch, Mark(found.life, owner, epoch)


@contextmanager
def _named(who: str) -> Iterator[None]:
    """Say in errors which sink it was."""
    try:
        yield
    except (SinkError, ConfigError) as error:
        if str(error).startswith(who):  # of the database: it says so itself
            raise
        raise type(error)(f"{who}: {error}") from error
