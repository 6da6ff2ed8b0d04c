"""A service pushes events into a job that restarts, drains, crashes, finishes and starts again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

import flowrt
from flowrt import (
    FileSink,
    FixedDelay,
    Flow,
    Ingest,
    IngestClosed,
    IngestError,
    LeaseError,
    MemorySink,
)
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio

JOURNAL = "/journal"


def durable() -> Ingest[Any]:
    return Ingest("orders", journal=JOURNAL)


def counting(orders: Ingest[Any], sink: flowrt.Sink[Any]) -> Flow:
    """Counts the events seen, in state; an event "fail" fails, once in the life of the process."""
    failed: list[bool] = []

    def one(event: Any) -> str:
        if event == "fail" and not failed:
            failed.append(True)
            raise ValueError("this event fails once")
        return "all"

    flow = Flow("counting")
    flow.source(orders, name="orders").key_by(one).count(name="count").map(
        lambda pair: pair[1], name="number"
    ).sink(sink, name="out")
    return flow


def listing(orders: Ingest[Any], sink: flowrt.Sink[Any]) -> Flow:
    flow = Flow("listing")
    flow.source(orders, name="orders").sink(sink, name="out")
    return flow


async def test_senders_go_on_through_a_restart_and_each_event_counts_once() -> None:
    place, orders, sink = Place(), durable(), MemorySink[Any]()
    async with place.start(counting(orders, sink), restart=FixedDelay("1s")) as job:
        await orders.send_many(["a", "b"])
        await until(lambda: job.metrics().records_in == 2)
        await place.epoch(job)
        await orders.send("c")
        await orders.send("fail")
        await until(lambda: job.status().state == "restarting")
        sent: list[str] = []

        async def send(event: str) -> None:
            await orders.send(event)
            sent.append(event)

        async with anyio.create_task_group() as group:
            group.start_soon(send, "d")
            group.start_soon(send, "e")
            await turns()
            assert sent == []
            assert job.status().state == "restarting"
            place.clock.advance(1_000)
            await until(lambda: job.metrics().records_in == 6)
        orders.close()
        await place.finish(job)

    assert sink.rows == [1, 2, 3, 4, 5, 6]
    assert job.status().restarts == 1
    assert job.status().state == "finished"


async def test_a_journal_that_cannot_be_opened_again_is_one_more_failure() -> None:
    place, orders, sink = Place(), durable(), MemorySink[Any]()
    async with place.start(counting(orders, sink), restart=FixedDelay("1s", 5)) as job:
        await orders.send("a")
        for operation in ("lock", "read", "rename"):
            error = OSError(5, "Input/output error")
            place.files.fail(operation, JOURNAL, error)
        await orders.send("fail")
        async with place.passing_time():
            await orders.send("b")
        orders.close()
        await place.finish(job)

    assert sink.rows == [1, 2, 3]
    assert job.status().restarts == 4


async def test_a_source_that_fails_to_take_the_end_of_its_job_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Rude(Ingest[Any]):
        def ended(self) -> None:
            raise ValueError("not now")

    place, sink, orders = Place(), MemorySink[Any](), Rude("orders", journal=JOURNAL)
    async with place.start(listing(orders, sink)) as job:
        await orders.send(1)
        orders.close()
        await place.finish(job)

    assert (sink.rows, job.status().state) == ([1], "finished")
    assert "source 'orders' could not take the end of its job" in caplog.text


async def test_a_drained_job_goes_on_where_it_was() -> None:
    place, sink = Place(), FileSink("/out")
    orders = durable()
    async with place.start(counting(orders, sink)) as job:
        await orders.send_many(range(5))
        await until(lambda: job.metrics().records_in == 5)
    with pytest.raises(IngestClosed, match="its flow has ended"):
        await orders.send(5)

    orders = durable()
    async with place.start(counting(orders, sink)) as job:
        await orders.send_many(range(5))
        await until(lambda: job.metrics().records_in == 10)
    assert written(place) == list(range(1, 11))


async def test_a_closed_ingest_finishes_the_job_and_a_later_life_takes_more() -> None:
    place, sink = Place(), FileSink("/out")
    for life in range(3):
        orders = durable()
        async with place.start(counting(orders, sink)) as job:
            await orders.send_many(range(4))
            orders.close()
            await place.finish(job)
        assert job.status().state == "finished"
        assert written(place) == list(range(1, 4 * life + 5))


async def test_a_process_that_dies_has_what_was_acknowledged_once() -> None:
    place, sink = Place(), FileSink("/out")
    sent = 0
    for life in range(4):
        orders = durable()
        async with place.start(counting(orders, sink)) as job:
            for _ in range(3):
                await orders.send_many([sent, sent + 1])
                sent += 2
                if life % 2:
                    await place.epoch(job)
            await turns(20 * life)
            # From here on nothing that this process does reaches the disk.
            files, place.files = place.files, copied(place)
            await job.cancel()
        del files

    orders = durable()
    async with place.start(counting(orders, sink)) as job:
        orders.close()
        await place.finish(job)
    assert written(place) == list(range(1, sent + 1))


async def test_files_of_the_journal_go_when_epochs_commit() -> None:
    place, sink = Place(), MemorySink[Any]()
    orders: Ingest[Any] = Ingest("orders", journal=JOURNAL, journal_limit_bytes=4_000)
    async with place.start(listing(orders, sink)) as job:
        for turn in range(30):
            await orders.send_many([{"turn": turn, "text": "x" * 50}] * 10)
            await until(lambda: orders.waiting == 0)
            await place.epoch(job)
            await until(lambda: orders.journal_bytes < 3_000)
    assert len(sink.rows) == 300


async def test_a_second_instance_is_refused_before_its_body_runs() -> None:
    place = Place()
    async with place.start(listing(durable(), MemorySink())) as job:
        with pytest.raises(LeaseError, match="the journal /journal is in use"):
            async with place.start(listing(durable(), MemorySink()), checkpoints="/other"):
                pytest.fail("it runs")
        assert job.status().state == "running"


async def test_an_instance_that_hangs_is_replaced_with_its_journal() -> None:
    place, sink = Place(), FileSink("/out")
    old, new = durable(), durable()
    with pytest.raises(LeaseError, match="taken over"):
        async with place.start(counting(old, sink), on_failure="keep") as job:
            await old.send_many(range(3))
            await until(lambda: job.metrics().records_in == 3)
            await place.epoch(job)
            await old.send_many(range(2))
            async with place.start(counting(new, FileSink("/out")), take_over=True) as other:
                await new.send("a")
                with pytest.raises(IngestError, match="journal /journal was taken over by another"):
                    await old.send("b")  # nobody reads it
                await until(lambda: job.status().state == "failed")
                with pytest.raises(IngestClosed):
                    await old.send("c")
                await new.send("d")
                new.close()
                await place.finish(other)

    assert written(place) == list(range(1, 8))
    orders = durable()
    async with place.start(counting(orders, sink)) as job:
        await orders.send("e")
        orders.close()
        await place.finish(job)
    assert written(place) == list(range(1, 9))


async def test_a_replaced_instance_that_nobody_sends_to_stops_at_its_next_epoch() -> None:
    place, old, new, sink = Place(), durable(), durable(), MemorySink[Any]()
    with pytest.raises(LeaseError, match="taken over by process 2"):
        async with place.start(listing(old, MemorySink()), on_failure="keep") as job:
            await old.send(1)
            async with place.start(listing(new, sink), take_over=True) as other:
                place.clock.advance(1_000)
                await until(lambda: job.status().state == "failed")
                await new.send(2)
                new.close()
                await place.finish(other)
    assert sink.rows == [1, 2]


async def test_a_take_over_that_is_refused_harms_nobody() -> None:
    place, sink, orders = Place(), MemorySink[Any](), durable()
    async with place.start(listing(orders, sink)) as job:
        await orders.send(1)
        broken: Ingest[Any] = Ingest("orders", journal="/broken")
        place.files.fail("make_folder", "/broken", OSError(5, "Input/output error"))
        for refused, error in ((orders, flowrt.ConfigError), (broken, flowrt.InputError)):
            with pytest.raises(error):
                async with place.start(listing(refused, MemorySink()), take_over=True):
                    pytest.fail("it runs")
        await orders.send(2)
        await place.epoch(job)
        assert (sink.rows, job.status().generation) == ([1, 2], 1)
        orders.close()
        await place.finish(job)


@pytest.mark.parametrize("journal", [JOURNAL, None])
async def test_a_second_flow_on_the_same_ingest_is_refused_before_its_body_runs(
    journal: str | None,
) -> None:
    place, sink, orders = Place(), MemorySink[Any](), Ingest[int]("orders", journal=journal)
    async with place.start(listing(orders, sink)) as job:
        with pytest.raises(flowrt.ConfigError, match="'orders' is read already"):
            async with place.start(listing(orders, MemorySink()), checkpoints="/other"):
                pytest.fail("it runs")
        await orders.send(1)
        orders.close()
        await place.finish(job)
    assert sink.rows == [1]


async def test_a_second_source_on_the_same_ingest_is_refused_and_lets_it_go() -> None:
    place, orders = Place(), durable()
    flow = Flow("twice")
    flow.source(orders, name="one").union(flow.source(orders, name="two")).sink(MemorySink())
    with pytest.raises(flowrt.ConfigError, match="'orders' is read already"):
        async with place.start(flow):
            pytest.fail("it runs")
    await place.files.lock("/journal/journal.lock")


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (OSError(2, "No such file"), flowrt.ConfigError, "Name a folder that is there or can be"),
        (OSError(20, "Not a folder"), flowrt.ConfigError, "Name a folder that is there or can be"),
        (OSError(13, "Permission denied"), flowrt.InputError, "Permission denied. See whether"),
    ],
)
async def test_a_journal_that_cannot_be_opened_is_told_before_the_body_runs(
    error: OSError, raised: type[Exception], says: str
) -> None:
    place, orders = Place(), durable()
    place.files.fail("make_folder", JOURNAL, error)
    with pytest.raises(raised, match=f"'orders' cannot open its journal /journal: .*{says}"):
        async with place.start(listing(orders, MemorySink())):
            pytest.fail("it runs")
    with pytest.raises(IngestClosed):
        await orders.send(1)


async def test_a_damaged_journal_is_told_before_the_body_runs() -> None:
    place, orders = Place(), durable()
    async with place.start(listing(orders, MemorySink())):
        for number in range(3):
            await orders.send(number)
    (path,) = (path for path in place.files.paths() if path.endswith("000.journal"))
    data = place.files.contents(path)
    place.files.replace(path, data[:30] + b"?" + data[31:])

    with pytest.raises(flowrt.InputError, match="is damaged at byte 16"):
        async with place.start(listing(durable(), MemorySink())):
            pytest.fail("it runs")


async def test_a_journal_needs_a_job_with_checkpoints() -> None:
    with pytest.raises(
        flowrt.ConfigError, match=r"source 'orders', .*journal /journal.* pass checkpoints=\.\.\."
    ):
        async with Place().start(listing(durable(), MemorySink()), checkpoints=None):
            pytest.fail("it runs")


async def test_a_failed_job_sends_its_senders_away() -> None:
    place, orders = Place(), durable()
    with pytest.raises(flowrt.OperatorError):
        async with place.start(counting(orders, MemorySink()), on_failure="keep") as job:
            await orders.send("fail")
            await until(lambda: job.status().state == "failed")
            with pytest.raises(IngestClosed):
                await orders.send("a")


@pytest.mark.parametrize("make", [durable, lambda: Ingest("orders")])
async def test_lag_and_waiting_tell_what_is_to_be_read(make: Callable[[], Ingest[Any]]) -> None:
    place, orders = Place(), make()
    gate = anyio.Event()

    async def slow(event: Any) -> Any:
        await gate.wait()
        return event

    flow = Flow("slow")
    flow.source(orders, name="orders").map(slow, name="slow").sink(MemorySink(), name="out")
    async with place.start(flow) as job:
        await orders.send("first")
        await until(lambda: orders.waiting == 0)
        await orders.send_many("abc")
        assert await job.lag() == {"orders": (3, "events")}
        assert orders.waiting == 3
        gate.set()
        await until(lambda: orders.waiting == 0)


async def test_without_a_journal_the_job_warns_and_close_still_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, sink = Place(), MemorySink[Any]()
    orders: Ingest[int] = Ingest("orders")
    await orders.send(1)
    async with place.start(listing(orders, sink)) as job:
        await orders.send(2)
        orders.close()
        await place.finish(job)

    assert sink.rows == [1, 2]
    assert "source 'orders' cannot be read again" in caplog.text

    place.clock.advance(1)
    orders = Ingest("orders")
    async with place.start(listing(orders, sink)) as job:
        await orders.send(3)
        orders.close()
        await place.finish(job)
    assert sink.rows == [1, 2, 3]


async def test_without_checkpoints_a_job_reads_what_comes() -> None:
    place, sink, orders = Place(), MemorySink[Any](), Ingest[int]("orders")
    async with place.start(listing(orders, sink), checkpoints=None) as job:
        await orders.send(1)
        orders.close()
        await place.finish(job)
    assert sink.rows == [1]


async def test_a_repeated_send_is_left_out_by_its_key() -> None:
    place, sink, orders = Place(), MemorySink[Any](), durable()

    class Once(flowrt.Operator[dict[str, Any], dict[str, Any]]):
        seen = flowrt.ValueState(bool, default=False)

        def process(self, event: dict[str, Any], ctx: flowrt.Context) -> None:
            if not self.seen.get():
                self.seen.set(True)
                ctx.emit(event)

    flow = Flow("once")
    flow.source(orders).key_by(lambda event: event["key"]).process(Once).sink(sink)
    async with place.start(flow) as job:
        for key in ("a", "b", "a", "c", "b"):
            await orders.send({"key": key})
        orders.close()
        await place.finish(job)
    assert [event["key"] for event in sink.rows] == ["a", "b", "c"]


def written(place: Place) -> list[int]:
    parts = [path for path in place.files.paths() if path.startswith("/out/part-")]
    return [int(line) for path in parts for line in place.files.contents(path).splitlines()]


def copied(place: Place) -> Any:
    """Return the disk as it is after a power cut now."""
    import copy

    files = copy.deepcopy(place.files)
    files.crash()
    return files
