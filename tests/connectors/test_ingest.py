"""Pushing events: how senders wait, what a journal keeps, how the input ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EIO, ENOSPC
from typing import Any

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from flowrt.connectors.ingest.gate import Gate
from flowrt.connectors.ingest.source import Ingest
from flowrt.contract.errors import (
    ConfigError,
    IngestClosed,
    IngestError,
    IngestFull,
    InputError,
    LeaseError,
)
from flowrt.contract.source import Chunk, Position, Reader
from flowrt.contract.world import World
from flowrt.testing import MemoryFiles, check_source, manual_world
from flowrt.testing.world import SeededRandomness
from tests.connectors.kit import open_reader, source_context

pytestmark = pytest.mark.anyio

FOLDER = "/var/orders"


class Order(msgspec.Struct, frozen=True):
    id: int
    at: datetime | None = None


@dataclass
class Cart:
    ids: list[int]


class CountedFiles(MemoryFiles):
    """Counts syncs of files, and holds one back while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs = 0
        self.hold: anyio.Event | None = None

    async def sync(self, path: str) -> None:
        self.syncs += 1
        if self.hold is not None:
            await self.hold.wait()
        await super().sync(path)


def world_of(files: MemoryFiles) -> World:
    world = manual_world()
    return World(world.clock, files, world.randomness)


def durable(**options: Any) -> Ingest[Any]:
    return Ingest("orders", journal=FOLDER, **options)


@dataclass
class Life:
    """One process's life: an ingest, and the reader of its last split."""

    ingest: Ingest[Any]
    reader: Reader[Any]
    position: Position = None

    async def read(self, limit: int = 1_000) -> list[Any] | None:
        chunk = await self.reader.read(limit)
        if chunk is None:
            return None
        self.position = chunk.position
        return chunk.values

    async def read_count(self, count: int, limit: int = 1_000) -> list[Any]:
        values: list[Any] = []
        while len(values) < count:
            more = await self.read(min(limit, count - len(values)))
            assert more is not None
            values += more
        return values


async def live(world: World, position: Position = None, **options: Any) -> Life:
    """Open a journaled ingest as a new process does."""
    ingest = durable(**options)
    ctx = source_context(world)
    splits = await ingest.splits(ctx)
    return Life(ingest, await ingest.reader(splits[-1], position, ctx), position)


async def soon(*calls: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run calls side by side."""
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)


# ------------------------------------------------------------------------------------ in memory


async def test_events_are_read_in_the_order_of_sending() -> None:
    orders: Ingest[int] = Ingest("orders")
    for number in range(3):
        await orders.send(number)  # before anybody reads
    reader = await open_reader(orders, source_context())

    assert await reader.read(2) == Chunk([0, 1], 2)
    orders.send_nowait(3)
    assert orders.waiting == 2
    assert await reader.lag(None) == (2, "events")
    assert await reader.read(10) == Chunk([2, 3], 4)
    await reader.close()


async def test_a_reader_wakes_when_something_comes() -> None:
    orders: Ingest[str] = Ingest("orders")
    reader = await open_reader(orders, source_context())
    got: list[Any] = []

    async def read() -> None:
        got.append(await reader.read(10))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await orders.send_many(["a", "b"])

    assert got == [Chunk(["a", "b"], 2)]


@pytest.mark.parametrize("journal", [None, FOLDER])
async def test_send_waits_when_the_flow_is_behind_in_the_order_of_asking(
    journal: str | None,
) -> None:
    orders: Ingest[int] = Ingest("orders", capacity=2, journal=journal)
    reader = await open_reader(orders, source_context(manual_world()))
    sent: list[int] = []

    async def send(number: int) -> None:
        await orders.send(number)
        sent.append(number)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(send, number)
            await anyio.wait_all_tasks_blocked()
        assert sent == [0, 1]
        with pytest.raises(IngestFull, match="'orders' is full: 2 of 2 events wait"):
            orders.send_nowait(9)
        chunk = await reader.read(1)
        assert chunk is not None
        assert chunk.values == [0]
        await anyio.wait_all_tasks_blocked()
        assert sent == [0, 1, 2]
        with pytest.raises(IngestFull):  # there is one before it in line
            orders.send_nowait(9)
        chunk = await reader.read(2)
        assert chunk is not None
        await anyio.wait_all_tasks_blocked()

    assert sent == [0, 1, 2, 3]
    assert orders.waiting == 1
    await reader.close()


@pytest.mark.parametrize("journal", [None, FOLDER])
async def test_who_is_cancelled_in_line_sends_nothing_and_holds_nobody_up(
    journal: str | None,
) -> None:
    orders: Ingest[int] = Ingest("orders", capacity=1, journal=journal)
    reader = await open_reader(orders, source_context(manual_world()))
    await orders.send(0)
    scope = anyio.CancelScope()

    async def given_up() -> None:
        with scope:
            await orders.send(1)

    async with anyio.create_task_group() as group:
        group.start_soon(given_up)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(orders.send, 2)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        first = await reader.read(5)
        second = await reader.read(5)

    assert first is not None
    assert second is not None
    assert first.values + second.values == [0, 2]
    await reader.close()


@pytest.mark.parametrize("journal", [None, FOLDER])
async def test_who_is_let_in_and_cancelled_at_once_makes_room_for_the_next(
    journal: str | None,
) -> None:
    orders: Ingest[int] = Ingest("orders", capacity=1, journal=journal)
    reader = await open_reader(orders, source_context(manual_world()))
    await orders.send(0)
    scope = anyio.CancelScope()

    async def given_up() -> None:
        with scope:
            await orders.send(1)

    async with anyio.create_task_group() as group:
        group.start_soon(given_up)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(orders.send, 2)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        chunk = await reader.read(5)  # lets the first in line in, before it hears of its end
        assert chunk is not None
        assert chunk.values == [0]
        chunk = await reader.read(5)
        assert chunk is not None
        assert chunk.values == [2]

    assert orders.waiting == 0
    await reader.close()


@pytest.mark.parametrize("journal", [None, FOLDER])
async def test_close_ends_the_input_behind_what_was_taken(journal: str | None) -> None:
    orders: Ingest[int] = Ingest("orders", capacity=2, journal=journal)
    orders.send_nowait(1)
    orders.send_nowait(2)
    errors: list[str] = []

    async def send() -> None:
        try:
            await orders.send(3)
        except IngestClosed as error:
            errors.append(str(error))

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        orders.close()
    reader = await open_reader(orders, source_context(manual_world()))
    chunk = await reader.read(5)
    assert chunk is not None
    assert chunk.values == [1, 2]
    assert await reader.read(5) is None
    assert await reader.read(5) is None
    await reader.close()

    assert errors == ["ingest 'orders' is closed: no event can be sent any more"]
    with pytest.raises(IngestClosed, match="is closed"):
        orders.send_nowait(4)


async def test_close_wakes_a_reader_that_waits() -> None:
    for journal in (None, FOLDER):
        orders: Ingest[int] = Ingest("orders", journal=journal)
        reader = await open_reader(orders, source_context(manual_world()))
        got: list[Any] = []

        async def read(reader: Reader[int] = reader, got: list[Any] = got) -> None:
            got.append(await reader.read(10))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            orders.close()
        assert got == [None]
        await reader.close()


@pytest.mark.parametrize("journal", [None, FOLDER])
async def test_once_the_job_has_ended_a_send_is_an_error_until_another_one_reads(
    journal: str | None,
) -> None:
    orders: Ingest[int] = Ingest("orders", capacity=1, journal=journal)
    ctx = source_context(manual_world())
    reader = await open_reader(orders, ctx)
    await orders.send(1)
    errors: list[str] = []

    async def send() -> None:
        try:
            await orders.send(2)
        except IngestClosed as error:
            errors.append(str(error))

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        await reader.close()
        orders.ended()
    with pytest.raises(IngestClosed, match="its flow has ended, start it again"):
        await orders.send(3)
    reader = await open_reader(orders, ctx)
    chunk = await reader.read(5)
    await orders.send(4)

    assert chunk is not None
    assert chunk.values == [1]
    assert len(errors) == 1
    await reader.close()


async def test_without_a_journal_nothing_can_be_read_again() -> None:
    orders: Ingest[int] = Ingest("orders")
    ctx = source_context(manual_world(now_ms=5))

    assert not orders.replayable
    assert orders.describe() == "ingest orders (memory)"
    assert durable().replayable
    assert durable().describe() == f"ingest orders (journal {FOLDER})"
    (split,) = await orders.splits(ctx)
    later = source_context(manual_world(now_ms=6))
    after = Ingest[int]("orders")
    assert await after.splits(later) != [split]
    reader = await after.reader(split, 3, later)
    assert await reader.read(1) is None  # what an earlier life had is gone
    assert await reader.lag(3) == (0, "events")
    await reader.close()


@pytest.mark.parametrize("journal", [None, FOLDER])
async def test_an_ingest_is_read_by_one_flow(journal: str | None) -> None:
    orders: Ingest[int] = Ingest("orders", journal=journal)
    ctx = source_context(manual_world())
    reader = await open_reader(orders, ctx)

    with pytest.raises(ConfigError, match="is read already"):
        await open_reader(orders, ctx)
    with pytest.raises(ConfigError, match="is read already"):
        await orders.claim(ctx)
    orders.ended()  # the job that was refused
    await orders.send(1)  # and the other was not disturbed
    assert await reader.read(1) is not None
    await reader.close()


@pytest.mark.parametrize("journal", [None, FOLDER])
async def test_another_thread_is_told_how_to_send(journal: str | None) -> None:
    orders: Ingest[int] = Ingest("orders", journal=journal)
    reader = await open_reader(orders, source_context(manual_world()))

    def elsewhere() -> None:
        calls: list[Callable[[], object]] = [
            lambda: anyio.run(orders.send, 1),
            lambda: anyio.run(orders.send_many, [1]),
            lambda: orders.send_nowait(1),
            orders.close,
        ]
        for call in calls:
            with pytest.raises(IngestError, match=r"another thread.*anyio.from_thread.run\(orders"):
                call()
        anyio.from_thread.run(orders.send, 2)

    await anyio.to_thread.run_sync(elsewhere)
    chunk = await reader.read(5)

    assert chunk is not None
    assert chunk.values == [2]
    await reader.close()
    orders.ended()
    with pytest.raises(IngestClosed):
        await anyio.to_thread.run_sync(anyio.run, orders.send, 3)


@pytest.mark.parametrize(
    "options",
    [{"capacity": 0}, {"journal_limit_bytes": 10}, {"journal": "j", "type": Order | Cart}],
)
async def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ingest 'orders'"):
        Ingest("orders", **options)


# --------------------------------------------------------------------------------- with a journal


async def test_an_event_whose_send_returned_survives_a_crash_of_the_machine() -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    life = await live(world)
    await soon(*(lambda number=number: life.ingest.send(number) for number in range(5)))
    await life.ingest.send(5)

    world.files.crash()
    life = await live(world)
    values = await life.read_count(6)
    await life.reader.close()

    assert sorted(values) == [0, 1, 2, 3, 4, 5]
    assert values[-1] == 5


async def test_an_event_is_given_to_the_flow_only_once_it_is_durable() -> None:
    files = CountedFiles()
    life = await live(world_of(files))
    files.hold = anyio.Event()
    got: list[Any] = []

    async def read() -> None:
        got.append(await life.read())

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(life.ingest.send, "a")
        await anyio.wait_all_tasks_blocked()
        assert got == []
        files.hold.set()

    assert got == [["a"]]
    await life.reader.close()


async def test_all_who_send_during_one_sync_share_the_next() -> None:
    files = CountedFiles()
    life = await live(world_of(files))
    await life.ingest.send(0)
    files.syncs, files.hold = 0, anyio.Event()
    async with anyio.create_task_group() as group:
        for number in range(1, 101):
            group.start_soon(life.ingest.send, number)
            if number == 1:
                await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        files.hold.set()

    assert files.syncs == 2
    assert sorted(await life.read_count(101)) == list(range(101))
    await life.reader.close()


async def test_send_many_needs_one_sync() -> None:
    files = CountedFiles()
    life = await live(world_of(files), capacity=10)
    files.syncs = 0
    await life.ingest.send_many(range(10))
    assert files.syncs == 1

    async with anyio.create_task_group() as group:
        group.start_soon(life.ingest.send_many, range(10, 50))  # more than there is room for
        assert await life.read_count(50) == list(range(50))
    await life.reader.close()


async def test_events_sent_before_the_job_runs_wait_for_its_journal() -> None:
    world = manual_world()
    orders = durable()
    done: list[str] = []

    async def send() -> None:
        await orders.send("a")
        done.append("a")

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        orders.send_nowait("b")
        assert (done, orders.waiting) == ([], 2)
        reader = await open_reader(orders, source_context(world))
    chunk = await reader.read(5)

    assert done == ["a"]
    assert chunk is not None
    assert chunk.values == ["a", "b"]
    await reader.close()


async def test_a_send_that_is_cancelled_before_the_write_leaves_nothing() -> None:
    orders = durable()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await orders.send("a")
    assert orders.waiting == 0


async def test_a_send_that_is_cancelled_during_the_sync_may_count() -> None:
    files = CountedFiles()
    life = await live(world_of(files))
    files.hold = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(life.ingest.send, "a")
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    files.hold.set()

    assert await life.read() == ["a"]
    await life.reader.close()


async def test_closing_the_reader_makes_durable_what_was_taken() -> None:
    world = manual_world()
    life = await live(world)
    life.ingest.send_nowait("a")
    await life.reader.close()

    life = await live(world)
    assert await life.read() == ["a"]
    await life.reader.close()


async def test_a_reader_waits_for_the_writer_of_the_one_before() -> None:
    files = CountedFiles()
    world = world_of(files)
    life = await live(world)
    ctx = source_context(world)
    files.hold = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(life.ingest.send, "a")
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            group.start_soon(cancel_when_blocked, scope)
            await life.reader.close()  # cut off: the disk is slow
        assert scope.cancelled_caught
        readers: list[Reader[Any]] = []

        async def again() -> None:
            (split,) = await life.ingest.splits(ctx)
            readers.append(await life.ingest.reader(split, None, ctx))

        group.start_soon(again)
        await anyio.wait_all_tasks_blocked()
        assert readers == []
        files.hold.set()

    life.reader = readers[0]
    assert await life.read() == ["a"]
    await life.ingest.send("b")
    assert await life.read() == ["b"]
    await life.reader.close()


async def cancel_when_blocked(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


async def test_what_send_nowait_took_stays_in_line_for_the_next_job() -> None:
    orders = durable()
    errors: list[IngestError] = []

    async def send() -> None:
        try:
            await orders.send("a")
        except IngestClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        orders.send_nowait("b")
        orders.ended()
    assert len(errors) == 1
    assert orders.waiting == 1
    reader = await open_reader(orders, source_context(manual_world()))
    chunk = await reader.read(5)
    assert chunk is not None
    assert chunk.values == ["b"]
    await reader.close()


async def test_a_small_event_does_not_overtake_a_large_one_in_line() -> None:
    gate = Gate("orders", 10, lambda: 100)
    await gate.enter(60)
    entered: list[int] = []

    async def enter(size: int) -> None:
        await gate.enter(size)
        entered.append(size)

    async with anyio.create_task_group() as group:
        for size in (70, 40):
            group.start_soon(enter, size)
            await anyio.wait_all_tasks_blocked()
        assert entered == []
        with pytest.raises(IngestFull):
            gate.enter_nowait(1)
        gate.leave(1, 60)
        await anyio.wait_all_tasks_blocked()
        assert entered == [70]
        gate.leave(1, 70)
    assert entered == [70, 40]


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_restart_in_process_repeats_from_the_position_and_loses_nothing(limit: int) -> None:
    world = manual_world()
    life = await live(world)
    orders, ctx = life.ingest, source_context(world)
    for number in range(4):
        await orders.send(number)
    assert await life.read_count(2, limit) == [0, 1]
    kept = life.position
    assert await life.read_count(2, limit) == [2, 3]
    await orders.send(4)
    await life.reader.close()

    async with anyio.create_task_group() as group:
        group.start_soon(orders.send, 5)  # it waits while nobody reads
        await anyio.wait_all_tasks_blocked()
        (split,) = await orders.splits(ctx)
        life.reader = await orders.reader(split, kept, ctx)
        assert orders.waiting >= 3
        assert await life.read_count(4, limit) == [2, 3, 4, 5]
    assert orders.waiting == 0
    await orders.send(6)
    assert await life.read() == [6]
    await life.reader.close()


async def test_a_position_may_lie_inside_a_batch() -> None:
    world = manual_world()
    life = await live(world)
    await life.ingest.send_many("abcde")
    assert await life.read(2) == ["a", "b"]
    inside = life.position
    await life.reader.close()

    life = await live(world, inside)
    assert await life.read(2) == ["c", "d"]
    assert await life.read(2) == ["e"]
    await life.reader.close()


@pytest.mark.parametrize("taken", [1, 2, 3])
async def test_a_checkpoint_that_knows_more_than_the_journal_is_an_error(taken: int) -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    life = await live(world)
    await life.ingest.send("before")
    await life.read()
    await life.ingest.send_many("abc")
    await life.read(taken)
    await life.reader.close()
    path = next(path for path in files.paths() if path.endswith(".journal"))
    files.replace(path, files.contents(path)[:-1])  # as if the disk had lost it

    with pytest.raises(InputError, match="it was cut, replaced or deleted, or the checkpoint is"):
        await live(world, life.position)


# ----------------------------------------------------------------------------------------- events


async def test_events_of_a_declared_type_come_back_as_it() -> None:
    world = manual_world()
    order = Order(1, datetime(2024, 5, 1, tzinfo=UTC))
    life = await live(world, type=Order)
    await life.ingest.send(order)
    assert await life.read() == [order]
    await life.reader.close()

    life = await live(world, type=Order)
    assert await life.read() == [order]
    await life.reader.close()


async def test_what_the_flow_gets_is_no_longer_the_senders() -> None:
    life = await live(manual_world(), type=Cart)
    cart = Cart([1])
    await life.ingest.send(cart)
    cart.ids.append(2)

    assert await life.read() == [Cart([1])]
    await life.reader.close()


@pytest.mark.parametrize(
    ("event", "names"),
    [
        ((1, 2), "type tuple in its journal: it holds a tuple"),
        ({"at": datetime(2024, 1, 1)}, "type dict in its journal: it holds a datetime"),  # noqa: DTZ001
        ({"a": [{(1, 2): 3}]}, "it holds a tuple"),
        (Order(1), "type Order in its journal: it holds a Order"),
    ],
)
async def test_an_event_without_a_form_is_refused_by_its_type(event: Any, names: str) -> None:
    life = await live(manual_world())
    with pytest.raises(IngestError, match="cannot keep an event of") as caught:
        await life.ingest.send(event)
    assert names in str(caught.value)
    assert "declare it with type=" in str(caught.value)
    with pytest.raises(IngestError):
        life.ingest.send_nowait(event)
    assert life.ingest.waiting == 0
    await life.reader.close()


def in_itself() -> list[Any]:
    event: list[Any] = []
    event.append(event)
    return event


@pytest.mark.parametrize(
    ("event", "advice"),
    [
        (
            2**70,
            "type int.* in its journal: .* between -2\\*\\*63 and 2\\*\\*64 - 1: send a larger",
        ),
        ([-(2**63) - 1], "send a larger one as text"),
        ("\ud800", "type str.* in its journal: .* half a surrogate pair, .* leave it out"),
        ({"\udfff": 1}, "half a surrogate pair"),
        (in_itself(), "holds itself, or is nested too deeply"),
    ],
)
@pytest.mark.parametrize("declared", [None, Any])
async def test_a_value_that_no_type_gives_a_form_gets_advice_of_its_own(
    event: Any, advice: str, declared: Any
) -> None:
    life = await live(manual_world(), type=declared)
    with pytest.raises(IngestError, match=advice) as caught:
        await life.ingest.send(event)
    assert "declare it" not in str(caught.value)
    assert life.ingest.waiting == 0
    await life.reader.close()


@pytest.mark.parametrize("event", [None, True, -5, 1.5, "é", b"\x00", [1, [2]], {"a": {1: None}}])
async def test_plain_events_need_no_type(event: Any) -> None:
    life = await live(manual_world())
    await life.ingest.send(event)
    assert await life.read() == [event]
    await life.reader.close()


async def test_an_event_of_another_type_than_declared_is_refused_where_it_is_sent() -> None:
    life = await live(manual_world(), type=Order)
    with pytest.raises(IngestError, match="type Cart as Order in its journal"):
        await life.ingest.send(Cart([1]))
    await life.reader.close()


async def test_a_type_that_changed_names_the_event() -> None:
    world = manual_world()
    life = await live(world)
    await life.ingest.send_many([{"id": 1}, {"no": 2}])
    await life.reader.close()

    life = await live(world, type=Order)
    with pytest.raises(InputError, match="event 1 in the journal /var/orders does not fit"):
        await life.read()
    await life.reader.close()


# ------------------------------------------------------------------------------------ disk faults


async def test_a_full_disk_is_an_error_of_send_and_nothing_is_lost_or_twice() -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    life = await live(world)
    await life.ingest.send("a")
    files.fail("write_at", ".journal", OSError(ENOSPC, "No space left on device"), torn=7)
    with pytest.raises(IngestError, match=r"could not write an event .* No space left"):
        await life.ingest.send("b")
    await life.ingest.send("c")
    files.crash()

    life = await live(world)
    assert await life.read_count(2) == ["a", "c"]
    await life.reader.close()


@pytest.mark.parametrize("operation", ["sync", "write", "sync_folder"])
async def test_a_failed_sync_is_never_taken_for_a_good_one(operation: Any) -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    life = await live(world)
    await life.ingest.send("a")
    if operation == "sync":
        (path,) = (path for path in files.paths() if path.endswith(".journal"))
        await files.fail_sync(path)
    files.fail("sync", ".journal", OSError(EIO, "I/O error"))
    with pytest.raises(IngestError):
        await life.ingest.send("b")
    if operation != "sync":
        files.fail(operation, FOLDER, OSError(EIO, "I/O error"))
        with pytest.raises(IngestError):
            await life.ingest.send("b")
    await life.ingest.send("c")
    assert await life.read_count(2) == ["a", "c"]
    position = life.position
    await life.ingest.send("d")
    files.crash()

    life = await live(world, position)
    assert await life.read() == ["d"]
    await life.reader.close()


async def test_a_write_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    life = await live(world)
    world.files.fail("write", ".journal", OSError(ENOSPC, "No space left"), times=3)
    for _ in range(3):
        with pytest.raises(IngestError):
            await life.ingest.send("a")
    await life.ingest.send("b")
    assert life.ingest.waiting == 1
    await life.reader.close()

    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == ["ingest orders cannot write its journal: [Errno 28] No space left"]


async def test_an_end_that_cannot_be_written_is_an_error_of_the_flow_and_tried_again() -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    life = await live(world)
    world.files.fail("write", "events-000001", OSError(EIO, "I/O error"))
    life.ingest.close()
    with pytest.raises(InputError, match="cannot write its journal"):
        await life.read()
    await life.reader.close()
    ctx = source_context(world)
    (split,) = await life.ingest.splits(ctx)
    life.reader = await life.ingest.reader(split, None, ctx)
    assert await life.read() is None
    await life.reader.close()


# ------------------------------------------------------------------------------------- size, order


async def committed(life: Life, *, times: int = 2) -> None:
    """Tell that what was read is committed, and the epoch behind it."""
    for epoch in range(times):
        await life.ingest.committed(epoch, {"0": life.position})


async def test_files_are_deleted_one_epoch_behind_the_one_that_covers_them() -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    life = await live(world, journal_limit_bytes=2_000)
    for number in range(20):
        await life.ingest.send(number)
    files = world.files.paths()
    await life.read_count(20)
    used = life.ingest.journal_bytes

    await life.ingest.committed(1, {"0": life.position})
    assert world.files.paths() == files  # a recovery may pass over a damaged checkpoint
    await life.ingest.committed(2, {"0": life.position})
    left = [path for path in world.files.paths() if path.endswith(".journal")]
    assert len(left) == 1
    assert life.ingest.journal_bytes < 300 < used
    position = life.position
    await life.reader.close()

    life = await live(world, position)
    await life.ingest.send("next")
    assert await life.read() == ["next"]
    await life.reader.close()
    with pytest.raises(InputError, match=r"should go on from offset 0 of the journal .* holds"):
        await live(world, [0, 0])


async def test_a_full_journal_holds_senders_up_until_epochs_commit() -> None:
    world = manual_world()
    life = await live(world, journal_limit_bytes=1_024)
    sent: list[int] = []

    async def send_all() -> None:
        for number in range(60):
            await life.ingest.send({"number": number, "text": "x" * 40})
            sent.append(number)

    got: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(send_all)
        while len(got) < 60:
            await anyio.wait_all_tasks_blocked()
            assert life.ingest.journal_bytes <= 1_024
            if len(sent) < 60:
                with pytest.raises(IngestFull, match="or the journal is full"):
                    life.ingest.send_nowait("too much")
            got += await life.read_count(len(sent) - len(got))
            await committed(life)
    await life.reader.close()

    assert [event["number"] for event in got] == list(range(60))


async def test_events_of_any_size_up_to_half_the_journal_find_room() -> None:
    life = await live(manual_world(), journal_limit_bytes=1_024)
    with pytest.raises(IngestError, match="an event of 600 bytes is too large for a journal"):
        await life.ingest.send(b"x" * 597)
    for size in (470, 10, 470, 200, 200, 470, 470):
        async with anyio.create_task_group() as group:
            group.start_soon(life.ingest.send, b"x" * size)
            await anyio.wait_all_tasks_blocked()
            await committed(life)
            assert await life.read() == [b"x" * size]
            await committed(life)
    await life.reader.close()


@pytest.mark.parametrize("operation", ["delete", "sync_folder"])
@pytest.mark.parametrize("seed", range(8))
async def test_a_crash_while_files_are_deleted_leaves_no_gap(operation: Any, seed: int) -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    life = await live(world, journal_limit_bytes=2_000)
    for number in range(40):
        await life.ingest.send(number)
    await life.read_count(38)
    await committed(life, times=1)
    chance = SeededRandomness(seed)
    segments = [path for path in files.paths() if path.endswith(".journal")]
    where = segments[seed % 4] if operation == "delete" else FOLDER
    files.fail(operation, where, OSError(EIO, "I/O error"))
    await committed(life, times=1)
    position = life.position
    files.crash(chance)

    life = await live(world, position, journal_limit_bytes=2_000)
    assert await life.read_count(2) == [38, 39]
    await life.reader.close()


async def test_a_file_that_cannot_be_deleted_is_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    life = await live(world, journal_limit_bytes=2_000)
    for number in range(20):
        await life.ingest.send(number)
    await life.read_count(20)
    world.files.fail("delete", ".journal", OSError(EIO, "I/O error"))
    await committed(life)
    assert "cannot delete what it needs no more" in caplog.text
    await life.ingest.send("next")
    assert await life.read() == ["next"]
    position = life.position
    await life.reader.close()

    life = await live(world, position)
    await committed(life)
    left = [path for path in world.files.paths() if path.endswith(".journal")]
    assert len(left) == 1
    await life.reader.close()


# ------------------------------------------------------------------------------------------ owners


async def test_a_second_process_is_refused_before_its_flow_begins() -> None:
    world = manual_world()
    assert isinstance(world.files, MemoryFiles)
    life = await live(world)

    with pytest.raises(LeaseError, match="the journal /var/orders is in use by another process"):
        await live(world)
    with pytest.raises(LeaseError):
        await durable().reader(
            (await life.ingest.splits(source_context(world)))[0], None, source_context(world)
        )
    await life.ingest.send("a")
    world.files.kill()
    life = await live(world)
    assert await life.read() == ["a"]
    await life.reader.close()


async def test_a_journal_that_was_ended_by_another_process_meanwhile_is_refused() -> None:
    world = manual_world()
    mine = await live(world)
    ctx = source_context(world)
    await mine.reader.close()
    other = await live(world)
    other.ingest.close()
    assert await other.read() is None
    await other.reader.close()

    (split,) = await mine.ingest.splits(ctx)
    with pytest.raises(LeaseError):
        await mine.ingest.reader(split, None, ctx)


# --------------------------------------------------------------------------------- the input ended


async def test_a_closed_ingest_goes_on_as_another_stream_in_the_next_life() -> None:
    world = manual_world()
    ctx = source_context(world)
    life = await live(world)
    await life.ingest.send_many(["a", "b"])
    life.ingest.close()
    assert await life.read(1) == ["a"]
    kept = life.position
    assert await life.read(1) == ["b"]
    assert await life.read() is None
    assert [split.id for split in await life.ingest.splits(ctx)] == ["0"]
    await life.reader.close()

    orders = durable()
    first, second = await orders.splits(ctx)
    old = await orders.reader(first, kept, ctx)
    await orders.send("c")
    chunk = await old.read(5)
    assert chunk is not None
    assert chunk.values == ["b"]
    assert await old.read(5) is None
    await old.close()
    new = await orders.reader(second, None, ctx)
    await orders.send("d")
    values: list[str] = []
    while len(values) < 2:
        chunk = await new.read(5)
        assert chunk is not None
        values += chunk.values
    assert values == ["c", "d"]
    await orders.committed(1, {"0": kept, "1": chunk.position})
    await orders.committed(2, {"0": kept, "1": chunk.position})
    assert len(await orders.splits(ctx)) == 2  # the first is not covered
    await new.close()


async def test_lives_without_events_do_not_keep_the_journal_from_being_emptied() -> None:
    world = manual_world()
    ctx = source_context(world)
    for _ in range(3):
        life = await live(world, journal_limit_bytes=1_024)
        life.ingest.close()
        assert await life.read() is None
        await life.reader.close()
    life = await live(world, journal_limit_bytes=1_024)
    assert [split.id for split in await life.ingest.splits(ctx)] == ["1", "2", "3"]
    for number in range(100):
        await life.ingest.send(number)
        assert await life.read() == [number]
        positions = {"1": None, "2": None, "3": life.position}
        await life.ingest.committed(number, positions)
    assert [split.id for split in await life.ingest.splits(ctx)] == ["3"]
    await life.reader.close()


async def test_two_subtasks_share_the_journal() -> None:
    world = manual_world()
    ctx = source_context(world)
    life = await live(world)
    await life.ingest.send("a")
    life.ingest.close()
    await life.read()
    assert await life.read() is None
    await life.reader.close()
    orders = durable()
    first, second = await orders.splits(ctx)
    readers: list[Reader[Any]] = []

    async def opened(split: Any) -> None:
        readers.append(await orders.reader(split, None, ctx))

    await soon(lambda: opened(first), lambda: opened(second))
    await orders.send("b")
    got = [await reader.read(5) for reader in readers]
    assert sorted(chunk.values[0] for chunk in got if chunk is not None) == ["a", "b"]
    await readers[0].close()
    await orders.send("c")
    await readers[1].close()


# ------------------------------------------------------------------------------------------- laws


async def made(events: list[Any], *, closed: bool, limit_bytes: int = 100_000) -> World:
    """Return a world with a journal that has these events, some of them in one batch."""
    world = manual_world()
    life = await live(world, journal_limit_bytes=limit_bytes)
    await life.ingest.send_many(events[:3])
    for event in events[3:]:
        await life.ingest.send(event)
    if closed:
        life.ingest.close()
        await life.read_count(len(events))
        assert await life.read() is None
    await life.reader.close()
    return world


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("limit_bytes", [1_024, 100_000])
async def test_laws_of_a_journal(closed: bool, limit_bytes: int) -> None:
    events = ["a", "b", "c", "d", "e", "f"]
    world = await made(events, closed=closed, limit_bytes=limit_bytes)

    def make() -> Ingest[Any]:
        return Ingest("orders", journal=FOLDER, journal_limit_bytes=limit_bytes)

    await check_source(make, {"0": events, "1": []} if closed else events, world=world)


async def test_laws_of_a_typed_journal() -> None:
    world = manual_world()
    life = await live(world, type=Order)
    await life.ingest.send_many([Order(1), Order(2)])
    await life.reader.close()

    await check_source(lambda: durable(type=Order), [Order(1), Order(2)], world=world)


async def test_laws_of_what_is_in_memory_alone() -> None:
    def make() -> Ingest[int]:
        orders: Ingest[int] = Ingest("orders")
        for number in range(3):
            orders.send_nowait(number)
        orders.close()
        return orders

    await check_source(make, [0, 1, 2], world=manual_world())


async def test_a_loop_of_sends_that_need_not_wait_is_bounded_by_the_capacity() -> None:
    orders: Ingest[int] = Ingest("orders", capacity=10)
    with anyio.move_on_after(0.0):
        for number in range(1_000):
            await orders.send(number)
    await checkpoint()

    assert orders.waiting == 10
