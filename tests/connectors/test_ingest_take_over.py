"""A journal that is taken from an owner which hangs: at any step, and goes on at any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from flowrt.connectors.ingest.journal import Journal, Replay
from flowrt.contract.errors import LeaseError
from flowrt.contract.world import Entry, FileLock
from flowrt.testing import MemoryFiles
from flowrt.testing.world import SeededRandomness

pytestmark = pytest.mark.anyio

FOLDER = "j"
LIMIT = 1_024


class OwnFiles:
    """One process's way to a disk that others use too; `turn` is awaited around each operation."""

    def __init__(self, disk: MemoryFiles) -> None:
        self.disk = disk

    async def turn(self) -> None:
        await checkpoint()

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        await self.turn()
        data = await self.disk.read(path, offset, size)
        await self.turn()
        return data

    async def write(self, path: str, chunks: Iterable[bytes]) -> int:
        await self.turn()
        size = await self.disk.write(path, chunks)
        await self.turn()
        return size

    async def write_at(self, path: str, offset: int, data: bytes) -> None:
        await self.turn()
        await self.disk.write_at(path, offset, data)
        await self.turn()

    async def sync(self, path: str) -> None:
        await self.turn()
        await self.disk.sync(path)
        await self.turn()

    async def sync_folder(self, path: str) -> None:
        await self.turn()
        await self.disk.sync_folder(path)
        await self.turn()

    async def rename(self, old: str, new: str) -> None:
        await self.turn()
        await self.disk.rename(old, new)
        await self.turn()

    async def delete(self, path: str) -> None:
        await self.turn()
        await self.disk.delete(path)
        await self.turn()

    async def make_folder(self, path: str) -> None:
        await self.turn()
        await self.disk.make_folder(path)
        await self.turn()

    async def names(self, path: str) -> list[str]:
        await self.turn()
        names = await self.disk.names(path)
        await self.turn()
        return names

    async def entries(self, path: str) -> list[Entry] | None:
        raise NotImplementedError

    async def size(self, path: str) -> int | None:
        await self.turn()
        size = await self.disk.size(path)
        await self.turn()
        return size

    async def is_folder(self, path: str) -> bool:
        return await self.disk.is_folder(path)

    async def lock(self, path: str) -> FileLock | None:
        await self.turn()
        lock = await self.disk.lock(path)
        await self.turn()
        return lock


class HangingFiles(OwnFiles):
    """Hangs in its `hang_at`th turn until it is let go."""

    def __init__(self, disk: MemoryFiles, hang_at: int) -> None:
        super().__init__(disk)
        self.hangs = anyio.Event()
        self.let_go = anyio.Event()
        self._left = hang_at

    async def turn(self) -> None:
        if self._left == 0:
            self.hangs.set()
            await self.let_go.wait()
        self._left -= 1


class SlowFiles(OwnFiles):
    """Takes any number of turns for each operation, and now and then very many."""

    def __init__(self, disk: MemoryFiles, chance: SeededRandomness) -> None:
        super().__init__(disk)
        self._chance = chance

    async def turn(self) -> None:
        long = self._chance.fraction() < 0.04
        for _ in range(int(self._chance.fraction() * (150 if long else 4))):
            await checkpoint()


@dataclass
class Owner:
    """One that has the journal: what it found, what it was promised, how it ended."""

    name: str
    found: list[bytes] = field(default_factory=list)
    acknowledged: list[bytes] = field(default_factory=list)
    has_begun: bool = False
    was_replaced: bool = False
    has_ended: bool = False

    async def live(self, files: Any, events: int, *, take_over: bool = False) -> None:
        """Open the journal, write events one by one, end the stream in the middle of them."""
        try:
            journal = await Journal.open(files, FOLDER, LIMIT, take_over=take_over)
            self.found = await everything(journal)
            self.has_begun = True
            for number in range(events):
                await self._write(journal, f"{self.name}{number}".encode())
                if number == events // 2:
                    await journal.end_stream()
            journal.close()
        except LeaseError:
            self.was_replaced = True
        finally:
            self.has_ended = True

    async def _write(self, journal: Journal, event: bytes) -> None:
        try:
            await journal.append([event, b"x" * 20])
        except OSError:
            return
        self.acknowledged += [event, b"x" * 20]


async def everything(journal: Journal) -> list[bytes]:
    begin, _ = journal.bounds(0)
    replay, found = Replay(journal, begin, journal.end), list[bytes]()
    while (piece := await replay.next()) is not None:
        assert piece[0].number == journal.number_at(begin) + len(found)
        found += piece[1]
    return found


async def at_the_end(disk: MemoryFiles, *, power_cut: bool) -> list[bytes]:
    """Return what the journal holds for the next owner, when all processes are dead."""
    disk.crash() if power_cut else disk.kill()
    journal = await Journal.open(disk, FOLDER, LIMIT)
    found = await everything(journal)
    assert journal.number == len(found)
    journal.close()
    return found


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("before", [0, 1, 5])
async def test_an_owner_that_hangs_anywhere_is_replaced_and_acknowledges_nothing_more(
    before: int, power_cut: bool
) -> None:
    hang_at, hung = 0, True
    while hung:
        disk = MemoryFiles()
        await Owner("before").live(disk, before)
        old, new = Owner("old"), Owner("new")
        files = HangingFiles(disk, hang_at)
        async with anyio.create_task_group() as group:
            group.start_soon(old.live, files, 8)
            while not (old.has_ended or files.hangs.is_set()):
                await checkpoint()
            hung = files.hangs.is_set()
            journal = await Journal.open(disk, FOLDER, LIMIT, take_over=True)
            new.found = await everything(journal)
            for number in range(5):
                await new._write(journal, b"new%d" % number)
            files.let_go.set()
            while not old.has_ended:
                await checkpoint()
            for number in range(5, 20):
                await new._write(journal, b"new%d" % number)

        assert await everything(journal) == new.found + new.acknowledged
        assert (old.found + old.acknowledged) == new.found[: len(old.found + old.acknowledged)]
        assert await at_the_end(disk, power_cut=power_cut) == new.found + new.acknowledged
        hang_at += 1
    assert hang_at > 60


@given(seed=st.integers(0, 10**9), owners=st.integers(2, 4))
async def test_whoever_comes_next_finds_what_was_acknowledged_in_its_order(
    seed: int, owners: int
) -> None:
    chance, disk = SeededRandomness(seed), MemoryFiles()
    lives = [Owner("abcd"[number]) for number in range(owners)]

    async def live(owner: Owner, turns: int, *, take_over: bool) -> None:
        for _ in range(turns):
            await checkpoint()
        await owner.live(SlowFiles(disk, chance), 10, take_over=take_over)

    for _ in range(int(chance.fraction() * 3)):
        operation: Any = ("sync", "write", "write_at", "size")[int(chance.fraction() * 4)]
        part = "journal-" if operation == "size" else ".journal"
        disk.fail(operation, part, OSError(5, "I/O error"), torn=int(chance.fraction() * 80))
    async with anyio.create_task_group() as group:
        for number, owner in enumerate(lives):
            turns = int(chance.fraction() * 300) if number else 0
            group.start_soon(live_unless_disk_fails, live, owner, turns, number > 0)

    disk._faults.clear()
    last = await at_the_end(disk, power_cut=chance.fraction() < 0.5)
    for owner in lives:
        if owner.has_begun:
            seen = owner.found + owner.acknowledged
            assert in_order(last, seen) == seen
    events = [event for event in last if not event.startswith(b"x")]
    assert len(set(events)) == len(events)


async def live_unless_disk_fails(live: Any, owner: Owner, turns: int, take_over: bool) -> None:
    try:
        await live(owner, turns, take_over=take_over)
    except OSError:
        assert not owner.has_begun or owner.acknowledged  # while it opened, or ended the stream


def in_order(last: list[bytes], seen: list[bytes]) -> list[bytes]:
    """Return what was seen and is in `last`, up to the first that is not there in its turn."""
    left = iter(last)
    return [event for event in seen if event in left]


async def test_taking_over_a_free_journal_is_taking_it() -> None:
    disk = MemoryFiles()
    await Owner("a").live(disk, 3, take_over=True)
    await Owner("b").live(disk, 3, take_over=True)

    assert f"{FOLDER}/journal.lock" in disk.paths()
    assert not any("journal-" in path or "cut-" in path for path in disk.paths())


async def test_who_was_replaced_is_told_and_cannot_have_it_back_unasked() -> None:
    disk = MemoryFiles()
    old = await Journal.open(disk, FOLDER, LIMIT)
    await old.append([b"a"])
    new = await Journal.open(disk, FOLDER, LIMIT, take_over=True)

    with pytest.raises(LeaseError, match="the journal j was taken over by another instance"):
        await old.append([b"b"])
    old.close()
    with pytest.raises(LeaseError, match="the journal j is in use by another process"):
        await Journal.open(disk, FOLDER, LIMIT)
    await new.append([b"c"])
    new.close()
    assert await at_the_end(disk, power_cut=False) == [b"a", b"c"]


async def test_what_was_cut_off_is_deleted_and_a_second_owner_goes_on_from_it() -> None:
    disk = MemoryFiles()
    for name in "abc":  # none of them lets it go
        journal = await Journal.open(disk, FOLDER, LIMIT, take_over=True)
        await journal.append([name.encode()])
    assert await at_the_end(disk, power_cut=True) == [b"a", b"b", b"c"]
    await Owner("d").live(disk, 30)
    assert sorted(path for path in disk.paths() if "events" not in path) == [
        "j/cut-1-000000-000000000000000",
        "j/cut-2-000000-000000000000037",
        "j/journal-1.lock",
        "j/journal-2.lock",
        "j/journal.lock",
    ]
    assert not any(path.endswith("00000000.journal") for path in disk.paths())


async def test_what_an_owner_that_was_replaced_deletes_late_is_no_gap() -> None:
    disk = MemoryFiles()
    old = await Journal.open(disk, FOLDER, LIMIT)
    for number in range(20):
        await old.append([b"%d" % number])
    sizes = 0

    class Overtaken(OwnFiles):
        async def size(self, path: str) -> int | None:
            nonlocal sizes
            if ".journal" in path:
                sizes += 1
                if sizes == 2:
                    await old.forget({0: 500})
            return await super().size(path)

    files = Overtaken(disk)
    new = await Journal.open(files, FOLDER, LIMIT, take_over=True)

    found = await everything(new)
    assert found
    assert [int(event) for event in found] == list(range(20 - len(found), 20))
    new.close()
    old.close()
