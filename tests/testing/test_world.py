"""The world under control: what a crash loses, when alarms ring, faults on order."""

from __future__ import annotations

import errno

import anyio
import pytest

from flowrt.contract.world import Entry
from flowrt.testing.world import ManualClock, MemoryFiles, SeededRandomness, manual_world

pytestmark = pytest.mark.anyio


async def test_alarms_ring_in_order_each_at_its_time() -> None:
    clock = ManualClock(100)
    rang: list[tuple[str, int]] = []
    clock.call_at(130, lambda: rang.append(("late", clock.now_ms())))
    clock.call_at(110, lambda: rang.append(("early", clock.now_ms())))
    clock.call_at(110, lambda: rang.append(("early too", clock.now_ms())))
    clock.call_at(120, lambda: rang.append(("never", clock.now_ms()))).cancel()

    clock.advance(9)
    assert rang == []

    clock.advance(30)
    assert rang == [("early", 110), ("early too", 110), ("late", 130)]
    assert clock.now_ms() == 139
    assert clock.monotonic_ns() == 39_000_000


async def test_an_alarm_may_set_the_next_one() -> None:
    clock = ManualClock()
    rang: list[int] = []

    def ring() -> None:
        rang.append(clock.now_ms())
        clock.call_at(clock.now_ms() + 10, ring)

    clock.call_at(10, ring)
    clock.advance(35)

    assert rang == [10, 20, 30]
    assert clock.next_alarm_ms() == 40


async def test_what_is_due_already_rings_in_the_next_turn() -> None:
    clock = ManualClock(50)
    rang = anyio.Event()

    clock.call_at(50, rang.set)

    assert not rang.is_set()
    await rang.wait()


def test_outside_an_event_loop_it_rings_when_the_clock_moves() -> None:
    clock = ManualClock(50)
    rang: list[int] = []
    clock.call_at(50, lambda: rang.append(clock.now_ms()))

    clock.advance(0)

    assert rang == [50]


async def test_the_wall_clock_may_go_back_but_the_other_may_not() -> None:
    clock = ManualClock(100)

    clock.set_to(40)

    assert clock.now_ms() == 40
    assert clock.monotonic_ns() == 0


async def test_bytes_that_were_not_synced_are_lost() -> None:
    files = MemoryFiles()
    await files.make_folder("/data")
    await files.write("/data/a", [b"synced"])
    await files.sync("/data/a")
    await files.sync_folder("/data")
    await files.write("/data/a", [b"not synced"])

    files.crash()

    assert files.contents("/data/a") == b"synced"


async def test_names_that_were_not_synced_are_lost() -> None:
    files = MemoryFiles()
    await files.make_folder("/data")
    await files.write("/data/old", [b"bytes"])
    await files.sync("/data/old")
    await files.sync_folder("/data")
    await files.rename("/data/old", "/data/new")
    await files.write("/data/other", [b"bytes"])
    await files.sync("/data/other")
    assert files.paths() == ["/data/new", "/data/other"]

    files.crash()

    assert files.paths() == ["/data/old"]


async def test_a_deletion_is_lost_too() -> None:
    files = MemoryFiles()
    await files.write("a", [b"bytes"])
    await files.sync_folder("")
    await files.delete("a")

    files.crash()

    assert files.contents("a") == b""


async def test_by_chance_what_was_not_synced_survives_whole_or_torn() -> None:
    survivors = set()
    for seed in range(100):
        files = MemoryFiles()
        await files.write("a", [b"0123456789"])
        files.crash(SeededRandomness(seed))
        survivors.add(files.contents("a") if files.paths() else None)

    assert {None, b"", b"0123456789"} <= survivors
    assert any(some is not None and 0 < len(some) < 10 for some in survivors)


async def test_a_crash_and_a_kill_give_locks_back() -> None:
    files = MemoryFiles()
    first = await files.lock("lock")
    assert first is not None
    assert await files.lock("lock") is None

    files.kill()
    second = await files.lock("lock")
    assert second is not None
    first.release()
    assert await files.lock("lock") is None, "the lock of a dead process releases nothing"
    second.release()
    assert await files.lock("lock") is not None


async def test_a_fault_on_order_tears_a_write() -> None:
    files = MemoryFiles()
    files.fail("write", "a", OSError(errno.ENOSPC, "full"), torn=3)

    with pytest.raises(OSError, match="full"):
        await files.write("a", [b"0123", b"456"])

    assert files.contents("a") == b"012"
    assert await files.write("a", [b"0123"]) == 4


async def test_folders_are_lost_with_what_is_in_them_where_that_is_asked_for() -> None:
    files = MemoryFiles(lose_folders=True)
    for folder in ("/kept", "/lost"):
        await files.make_folder(f"{folder}/inner")
        await files.write(f"{folder}/inner/a", [b"bytes"])
        await files.sync(f"{folder}/inner/a")
        await files.sync_folder(f"{folder}/inner")
        await files.sync_folder(folder)
        if folder == "/kept":
            await files.sync_folder("/")

    files.crash()

    assert files.paths() == ["/kept/inner/a"]
    assert await files.names("/") == ["kept"]


async def test_by_chance_folders_survive() -> None:
    survivors = set()
    for seed in range(50):
        files = MemoryFiles(lose_folders=True)
        await files.make_folder("/a/b")
        files.crash(SeededRandomness(seed))
        survivors.add((await files.is_folder("/a"), await files.is_folder("/a/b")))

    assert survivors == {(False, False), (True, False), (True, True)}


async def test_by_chance_the_length_survives_without_the_bytes() -> None:
    survivors = set()
    for seed in range(200):
        files = MemoryFiles()
        await files.write("a", [b"01"])
        await files.sync_folder(".")
        files.crash(SeededRandomness(seed))
        survivors.add(files.contents("a"))

    assert {b"", b"0\0", b"\0\0", b"01"} <= survivors


async def test_after_a_sync_that_failed_only_writing_again_helps() -> None:
    files = MemoryFiles()
    await files.write("a", [b"01"])
    await files.sync("a")
    await files.sync_folder(".")
    await files.write_at("a", 2, b"23")
    await files.fail_sync("a")
    await files.write_at("a", 4, b"45")
    await files.sync("a")
    files.crash()
    assert files.contents("a") == b"01"

    await files.write_at("a", 2, b"23")
    await files.fail_sync("a")
    await files.write_at("a", 2, b"23")
    await files.sync("a")
    files.crash()
    assert files.contents("a") == b"0123"


async def test_a_lock_is_on_the_file_and_not_on_its_name() -> None:
    files = MemoryFiles()
    old = await files.lock("lock")
    assert old is not None
    await files.delete("lock")

    new = await files.lock("lock")
    assert new is not None
    old.release()

    assert await files.lock("lock") is None


async def test_atomic_operations_give_no_turn() -> None:
    turns: list[str] = []

    async def turn() -> None:
        turns.append("other")

    async with anyio.create_task_group() as group:
        group.start_soon(turn)
        await MemoryFiles(atomic=True).write("a", [b""])
        turns.append("written")

    assert turns == ["written", "other"]


async def test_folders_and_their_errors() -> None:
    files = MemoryFiles()
    await files.make_folder("/a/b")
    await files.write("/a/b/file", [b""])

    assert await files.names("/a") == ["b"]
    assert await files.names("/a/b/") == ["file"]
    assert await files.names("/nowhere") == []
    await files.make_folder("here")
    assert await files.names("/") == ["a"]
    assert await files.names(".") == ["here"]
    assert await files.is_folder("/a")
    assert not await files.is_folder("/a/b/file")
    with pytest.raises(FileNotFoundError):
        await files.write("/c/file", [b""])
    with pytest.raises(FileNotFoundError):
        await files.sync_folder("/c")
    with pytest.raises(FileNotFoundError):
        await files.read("/a/none")
    with pytest.raises(FileExistsError):
        await files.make_folder("/a/b/file")
    with pytest.raises(IsADirectoryError):
        await files.write("/a/b", [b""])


async def test_entries_are_the_names_in_a_folder_with_sizes() -> None:
    files = MemoryFiles()
    await files.make_folder("a/b")
    await files.write("a/file", [b"12345"])

    assert await files.entries("a/") == [Entry("b", None, is_folder=True), Entry("file", 5)]
    assert await files.entries("a/b") == []
    assert await files.entries(".") == [Entry("a", None, is_folder=True)]
    assert await files.entries("a/file") is None
    assert await files.entries("nowhere") is None


async def test_write_at_cuts_and_fills() -> None:
    files = MemoryFiles()

    await files.write_at("a", 0, b"one two")
    await files.write_at("a", 4, b"2")
    assert files.contents("a") == b"one 2"
    with pytest.raises(FileNotFoundError):
        await files.write_at("b", 4, b"2")


async def test_the_same_seed_gives_the_same_world() -> None:
    one, two, other = manual_world(seed=7), manual_world(seed=7), manual_world(seed=8)

    assert one.randomness.token() == two.randomness.token() != other.randomness.token()
    assert 0 <= one.randomness.fraction() < 1
