"""check_sink: a sink that breaks a law is found, and told which law and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from anyio.lowlevel import checkpoint

from flowrt.contract.errors import SinkError
from flowrt.contract.sink import Committable, Sink, SinkContext, SinkKind, Writer
from flowrt.contract.world import World
from flowrt.testing import LawBroken, MemoryFiles, RecordingSink, check_sink, manual_world

pytestmark = pytest.mark.anyio

VALUES = list(range(8))


class Table:
    """What every sink here writes to: rows that anybody sees, and rows that wait for a commit."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.waiting: dict[str, list[Any]] = {}
        self.committed: set[int] = set()
        self.connection: object = None


class TableSink(Sink[Any]):
    """Keeps every law; each test takes one away."""

    kind: SinkKind = "repeatable"

    def __init__(self, table: Table) -> None:
        self.table = table
        self.names = 0

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        return TableWriter(self, f"{ctx.generation}-{ctx.subtask}")

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        if epoch not in self.table.committed:
            self.table.committed.add(epoch)
            for name in committables:
                self.table.rows += self.table.waiting.pop(name)

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        if epoch is None and self.table.committed:
            raise SinkError("the table has rows of an earlier life")
        if epoch is not None:
            await self.commit(epoch, committables)
        self.table.waiting.clear()


class TableWriter:
    def __init__(self, sink: TableSink, name: str) -> None:
        self.sink = sink
        self.name = name
        self.rows: list[Any] = []

    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        self.rows += values

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        if not self.rows:
            return None
        name = f"{self.name}-{epoch}"
        self.sink.table.waiting[name] = self.rows
        self.rows = []
        return name

    async def close(self) -> None:
        return None


async def check(sink: Callable[[Table], Sink[Any]], **options: Any) -> None:
    tables: dict[str, Table] = {}

    def make(place: str) -> Sink[Any]:
        return sink(tables.setdefault(place, Table()))

    await check_sink(make, VALUES, lambda place: tables[place].rows, **options)


async def broken(sink: Callable[[Table], Sink[Any]], **options: Any) -> LawBroken:
    with pytest.raises(LawBroken) as caught:
        await check(sink, **options)
    return caught.value


async def test_a_lawful_sink_passes() -> None:
    await check(TableSink)


@pytest.mark.parametrize("kind", ["repeatable", "deciding", "direct"])
async def test_so_does_the_recording_sink_of_each_kind(kind: SinkKind) -> None:
    sinks: dict[str, RecordingSink[int]] = {}

    def make(place: str) -> RecordingSink[int]:
        return sinks.setdefault(place, RecordingSink(kind=kind))

    async def visible(place: str) -> list[int]:
        return sinks[place].rows

    await check_sink(make, VALUES, visible)


async def test_rows_that_are_seen_before_the_commit() -> None:
    class Hasty(TableSink):
        async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
            class HastyWriter(TableWriter):
                async def write(self, values: Sequence[Any], timestamps: Any) -> None:
                    self.sink.table.rows += values

            return HastyWriter(self, "")

    error = await broken(Hasty)

    assert error.law == "nothing is visible before its epoch is decided"
    assert error.where == "1 subtask, after 'write in epoch 1'"


async def test_a_commit_that_cannot_come_again() -> None:
    class Again(TableSink):
        async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
            for name in committables:
                self.table.rows += self.table.waiting[name]

    error = await broken(Again)

    assert error.law == "nothing is visible before its epoch is decided"
    assert error.where == "1 subtask, after 'commit epoch 1 again'"


async def test_rows_that_vanish_after_their_commit() -> None:
    class Overwrites(TableSink):
        async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
            if epoch not in self.table.committed:
                self.table.rows.clear()
            await super().commit(epoch, committables)

    error = await broken(Overwrites)

    assert error.law.startswith("what is committed is visible, and stays")
    assert error.where == "1 subtask, after 'commit epoch 2'"


async def test_rows_in_another_order() -> None:
    class Backwards(TableSink):
        async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
            for name in committables:
                self.table.waiting.get(name, []).reverse()
            await super().commit(epoch, committables)

    assert (await broken(Backwards)).law == "what is written becomes visible, once, in order"
    await check(Backwards, ordered=False)


async def test_a_recovery_that_forgets_to_commit() -> None:
    class Forgets(TableSink):
        async def recover(self, epoch: Any, committables: Any, ctx: SinkContext) -> None:
            await super().recover(None if epoch is None else 0, [], ctx)

    error = await broken(Forgets)

    assert error.law == "after a crash nothing is lost and nothing is there twice"
    assert error.where == "killed after 'decide epoch 1'"


async def test_rows_that_only_the_process_held() -> None:
    class Volatile(TableSink):
        """Keeps what is prepared in the instance: gone when the process is."""

        def __init__(self, table: Table) -> None:
            super().__init__(table)
            self.table = Table()
            self.table.rows = table.rows
            self.table.committed = table.committed

    error = await broken(Volatile)

    assert error.where == "killed after 'decide epoch 1'"
    assert "KeyError" in str(error)


async def test_a_writer_that_commits_as_it_closes() -> None:
    class Closes(TableSink):
        async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
            class ClosingWriter(TableWriter):
                async def close(self) -> None:
                    self.sink.table.rows += self.rows

            return ClosingWriter(self, f"{ctx.generation}-{ctx.subtask}")

    error = await broken(Closes)

    assert error.law == "nothing is visible before its epoch is decided"
    assert error.where == "restarted after 'write in epoch 1'"


async def test_names_that_two_subtasks_share() -> None:
    class OneName(TableSink):
        async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
            return TableWriter(self, "same")

    with pytest.raises(KeyError):  # in the uninterrupted run: as it was raised
        await check(OneName)


async def test_a_committable_that_no_snapshot_can_keep() -> None:
    class Odd(TableSink):
        async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
            class OddWriter(TableWriter):
                async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
                    return object()

            return OddWriter(self, "")

    error = await broken(Odd)

    assert error.law == "what prepare returns is plain data"
    assert error.where == "epoch 1, writer 0"


async def test_a_new_job_that_takes_old_results_for_its_own() -> None:
    class Trusting(TableSink):
        async def recover(self, epoch: Any, committables: Any, ctx: SinkContext) -> None:
            if epoch is not None:
                await self.commit(epoch, committables)
            self.table.waiting.clear()

    error = await broken(Trusting)

    assert error.law == "results of an earlier life are not mistaken for those of a new job"


async def test_a_deciding_sink_that_does_not_know_what_it_committed() -> None:
    class Unsure(TableSink):
        kind = "deciding"

        async def last_committed(self, ctx: SinkContext) -> int | None:
            return 1 if self.table.committed else None

    error = await broken(Unsure)

    assert error.law == "a deciding sink knows the last epoch that it committed"
    assert "it says 1; epoch 2 was committed" in str(error)


async def test_a_direct_sink_that_holds_rows_over_a_snapshot() -> None:
    class Buffers(TableSink):
        kind = "direct"

        async def recover(self, epoch: Any, committables: Any, ctx: SinkContext) -> None:
            return None

        async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
            class Buffering(TableWriter):
                async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
                    if final:
                        await self.close()
                    return None

                async def close(self) -> None:
                    self.sink.table.rows += self.rows
                    self.rows = []

            return Buffering(self, "")

    error = await broken(Buffers)

    assert error.law.startswith("after a crash nothing is lost, and only what followed")


class UnsyncedFiles(Sink[int]):
    """Appears by rename, as it should, but `sync` is up to each test."""

    kind = "repeatable"

    def __init__(self, folder: str, *, sync: bool) -> None:
        self.folder = folder
        self.sync = sync
        self.world: World | None = None

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[int]:
        return FileWriter(self, ctx)

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        self.world = ctx.world
        await ctx.world.files.make_folder(self.folder)
        if epoch is None and await ctx.world.files.names(f"{self.folder}"):
            found = [n for n in await ctx.world.files.names(self.folder) if n.startswith("part")]
            if found:
                raise SinkError("not empty")
        if epoch is not None:
            await self.commit(epoch, committables)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        assert self.world is not None
        files = self.world.files
        for staged, name in committables:
            if await files.size(staged) is not None:
                await files.rename(staged, name)
        await files.sync_folder(self.folder)


class FileWriter:
    def __init__(self, sink: UnsyncedFiles, ctx: SinkContext) -> None:
        self.sink = sink
        self.ctx = ctx
        self.rows: list[int] = []

    async def write(self, values: Sequence[int], timestamps: Sequence[int | None] | None) -> None:
        self.rows += values

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        if not self.rows:
            return None
        files, name = self.ctx.world.files, f"{epoch}-{self.ctx.subtask}"
        staged = f"{self.sink.folder}/.staged-{self.ctx.generation}-{name}"
        await files.write(staged, [msgspec.json.encode(self.rows)])
        if self.sink.sync:
            await files.sync(staged)
            await files.sync_folder(self.sink.folder)
        self.rows = []
        return [staged, f"{self.sink.folder}/part-{name}"]

    async def close(self) -> None:
        return None


@pytest.mark.parametrize("sync", [True, False])
async def test_files_that_are_not_synced_are_lost_with_the_power(sync: bool) -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)

    def visible(place: str) -> list[int]:
        paths = [path for path in files.paths() if path.startswith(f"/{place}/part-")]
        return [row for path in paths for row in msgspec.json.decode(files.contents(path) or b"[]")]

    def make(place: str) -> Sink[int]:
        return UnsyncedFiles(f"/{place}", sync=sync)

    if sync:
        await check_sink(make, VALUES, visible, world=world)
        return
    with pytest.raises(LawBroken) as caught:
        await check_sink(make, VALUES, visible, world=world)
    assert caught.value.where.startswith("powerless")


async def test_a_recovery_that_takes_what_was_never_decided() -> None:
    class Greedy(TableSink):
        async def recover(self, epoch: Any, committables: Any, ctx: SinkContext) -> None:
            if epoch is not None:
                for rows in self.table.waiting.values():
                    self.table.rows += rows
                self.table.waiting.clear()
                committables = []
            await super().recover(epoch, committables, ctx)

    error = await broken(Greedy)

    assert error.law == "after a crash nothing is lost and nothing is there twice"
    assert error.where == "killed after 'prepare epoch 3, writer 0'"


@pytest.mark.parametrize("marks_first", [True, False])
async def test_a_commit_that_can_be_left_halfway(marks_first: bool) -> None:
    class Halfway(TableSink):
        async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
            if epoch in self.table.committed:
                return
            if marks_first:
                self.table.committed.add(epoch)
                await checkpoint()
            for name in committables:
                self.table.rows += self.table.waiting[name]
            await checkpoint()
            self.table.committed.add(epoch)

    error = await broken(Halfway)

    assert error.where == "killed 0 turns into 'commit epoch 1'"
    lost, repeated = "  - 0" in str(error), "  + 0" in str(error)
    assert (lost, repeated) == (marks_first, not marks_first)


async def test_a_commit_of_one_subtask_only() -> None:
    class One(TableSink):
        async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
            await super().commit(epoch, committables[:1])

    error = await broken(One)

    assert error.where == "2 subtasks, after 'commit epoch 1'"


class Hoarder(TableSink):
    """Holds rows back until there are `most`; the rows held belong to the committable."""

    most = 4

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        writer = HoardingWriter(self, f"{ctx.generation}-{ctx.subtask}")
        if ctx.subtask == 0:
            writer.rows = [row for one in prepared for row in one["held"]]
        return writer

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        await super().commit(epoch, [one["name"] for one in committables if one["name"]])


class HoardingWriter(TableWriter):
    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        assert isinstance(self.sink, Hoarder)
        if len(self.rows) < self.sink.most and not final:
            return {"name": None, "held": list(self.rows)}
        return {"name": await super().prepare(epoch, final), "held": []}


async def test_rows_may_be_held_back_where_that_is_said() -> None:
    await check(Hoarder, holds_back=True)
    assert (await broken(Hoarder)).law.startswith("what is committed is visible")


async def test_rows_that_are_held_back_for_ever() -> None:
    class Miser(Hoarder):
        async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
            class Miserly(HoardingWriter):
                async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
                    return await super().prepare(epoch)

            return Miserly(self, f"{ctx.generation}-{ctx.subtask}")

    error = await broken(Miser, holds_back=True)

    assert error.law == "what is written becomes visible, once, in order"


async def test_rows_that_vanish_where_some_are_held_back() -> None:
    class Overwrites(Hoarder):
        async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
            if epoch not in self.table.committed:
                self.table.rows.clear()
            await super().commit(epoch, committables)

    error = await broken(Overwrites, holds_back=True)

    assert error.law.startswith("what is committed is visible, and stays")


async def test_a_direct_sink_that_loses_rows_as_it_dies() -> None:
    class Slow(TableSink):
        kind = "direct"

        async def recover(self, epoch: Any, committables: Any, ctx: SinkContext) -> None:
            return None

        async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
            class Lazy(TableWriter):
                """Lets the rows of an epoch go in the next one."""

                async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
                    await checkpoint()
                    return None

                async def write(self, values: Sequence[Any], timestamps: Any) -> None:
                    self.sink.table.rows += self.rows
                    self.rows = list(values)

                async def close(self) -> None:
                    self.sink.table.rows += self.rows

            return Lazy(self, "")

    assert (await broken(Slow)).law.startswith("after a crash nothing is lost, and only what")


async def test_what_the_system_does_for_a_process_that_dies() -> None:
    class Connected(TableSink):
        """Lets one connection write at a time, as a database with a lock on the table."""

        async def recover(self, epoch: Any, committables: Any, ctx: SinkContext) -> None:
            if self.table.connection not in (None, self):
                raise SinkError("the table is locked")
            self.table.connection = self
            await super().recover(epoch, committables, ctx)

        async def close(self) -> None:
            if self.table.connection is self:
                self.table.connection = None

    async def cut(sink: Connected) -> None:
        sink.table.connection = None

    error = await broken(Connected)
    assert error.where == "killed after 'recover'"
    assert "the table is locked" in str(error)
    await check(Connected, kill=cut)
    await check(Connected, kill=Connected.close)
