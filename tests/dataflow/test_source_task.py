"""Splits in, a chain, channels out: positions, epochs, endings, event time, and who is blamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from flowrt.contract.elements import (
    MAX_TIMESTAMP,
    Barrier,
    EndOfStream,
    Idle,
    Records,
    Watermark,
)
from flowrt.contract.errors import ConfigError, InputError, OperatorError
from flowrt.contract.snapshot import EpochCommitted, OpenEpoch, SplitState
from flowrt.contract.source import Chunk, Position, SourceContext, Split
from flowrt.contract.steps import AssignTimestamps, FlatMap, Map
from flowrt.contract.time import BoundedOutOfOrderness, WatermarkStrategy
from flowrt.dataflow.channels.outputs import Forward, Outputs
from flowrt.dataflow.sources.source_splits import FORGET_AFTER_MS
from flowrt.dataflow.sources.source_task import SourceTask
from tests.dataflow.kit import (
    FedSource,
    Feed,
    Letters,
    Reception,
    chain_of,
    final,
    process,
    settle,
)

pytestmark = pytest.mark.anyio

BY_VALUE: WatermarkStrategy[Any] = WatermarkStrategy.monotonous().with_timestamps(lambda v: v)


class Stage:
    """A source task between feeds and one channel."""

    def __init__(
        self,
        feeds: Mapping[str, Feed] | FedSource,
        *steps: Any,
        capacity: int = 1_000,
        subtask: int = 0,
        parallelism: int = 1,
        **options: Any,
    ) -> None:
        self.source = feeds if isinstance(feeds, FedSource) else FedSource(feeds)
        self.letters = Letters()
        self.out = Reception(capacity)
        outputs = Outputs([Forward(self.out.channel)])
        self.task = SourceTask(
            self.letters.desk(),
            self.source,
            SourceContext("numbers", subtask, parallelism, self.letters.world),
            chain_of(outputs, *steps, world=self.letters.world),
            outputs,
            **options,
        )
        self.done = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the task beside the body; stops it at the end if it still runs."""

        async def run() -> None:
            try:
                await self.task.open()
                await self.task.run()
                self.done = True
            finally:
                await self.task.close()

        async with create_task_group() as group:
            group.start_soon(run)
            await settle()
            yield
            group.cancel_scope.cancel()

    async def finish(self, epoch: int, *, end: bool = True) -> None:
        """Let the final epoch through, and commit it."""
        self.task.receive(final(epoch, end=end))
        await settle()
        while not self.letters.acknowledged:
            self.out.take()
            await settle()
        self.task.receive(EpochCommitted(epoch))
        await settle()


async def failed(stage: Stage) -> Exception:
    """Run until it fails; return the error."""
    with pytest.raises(ExceptionGroup) as raised:
        async with stage.running():
            pass
    error: BaseException = raised.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, Exception)
    return error


# ----------------------------------------------------------------------------- the whole way


async def test_a_bounded_source_is_read_to_its_end_and_says_so_once() -> None:
    stage = Stage({"a": Feed(1, 2, ends=True)}, Map(lambda v: v * 10))
    async with stage.running():
        assert stage.letters.ended == 1

        await stage.finish(1)

        assert stage.done
        assert stage.letters.ended == 1
    assert stage.out.all() == [
        Records([10, 20]),
        Watermark(MAX_TIMESTAMP),
        Barrier(1, final=True),
        EndOfStream(),
    ]
    assert stage.letters.splits(1)["a"] == SplitState("a", None, 2, ended=True, records=2)
    assert stage.source.commits == [(1, {"a": 2})]


async def test_a_source_without_splits_of_its_own_ends_at_once() -> None:
    stage = Stage({})
    async with stage.running():
        assert stage.letters.ended == 1
        assert stage.out.take() == [Idle()]


async def test_a_drain_ends_the_records_but_not_the_event_time() -> None:
    feed = Feed(1, 2)
    stage = Stage({"a": feed})
    async with stage.running():
        assert not stage.letters.ended

        await stage.finish(4, end=False)

        assert stage.done
    assert stage.out.all() == [
        Records([1, 2]),
        Barrier(4, final=True),
        EndOfStream(),
    ]
    assert feed.story == ["closed"]


async def test_each_subtask_reads_its_own_splits() -> None:
    ids = [f"split {n}" for n in range(20)]
    read: list[list[str]] = []
    for subtask in range(3):
        stage = Stage({id: Feed(id) for id in ids}, subtask=subtask, parallelism=3)
        async with stage.running():
            stage.out.take()
        read.append(stage.out.values)

    assert sorted(chain.from_iterable(read)) == sorted(ids)
    assert all(read)


# ----------------------------------------------------------------------------- epochs


async def test_a_barrier_falls_between_two_chunks_and_carries_their_positions() -> None:
    feed = Feed(1, 2)
    stage = Stage({"a": feed})
    async with stage.running():
        stage.task.receive(OpenEpoch(1))
        await settle()
        feed.give(3)
        await settle()
        stage.task.receive(OpenEpoch(2))
        await settle()

    assert stage.out.all() == [Records([1, 2]), Barrier(1), Records([3]), Barrier(2)]
    assert stage.letters.splits(1)["a"].position == 2
    assert stage.letters.splits(2)["a"].position == 3


async def test_the_source_hears_of_the_epoch_that_was_committed() -> None:
    feed = Feed(1)
    stage = Stage({"a": feed})
    async with stage.running():
        stage.task.receive(OpenEpoch(1))
        await settle()
        feed.give(2)
        await settle()
        stage.task.receive(EpochCommitted(1))
        await settle()

    assert stage.source.commits == [(1, {"a": 1})]


async def test_a_barrier_waits_until_what_is_half_sent_is_sent() -> None:
    """A flat_map of one record fills the channel many times; its position must not count before."""
    feed = Feed(1)
    stage = Stage({"a": feed}, FlatMap(lambda v: range(5_000)), capacity=10)
    async with stage.running():
        stage.task.receive(final(1, end=False))
        await settle()
        assert not stage.letters.acknowledged

        for _ in range(510):
            assert not stage.letters.acknowledged or len(stage.out.values) > 4_980
            stage.out.take()
            await settle()
    assert stage.out.values == [*range(5_000)]
    assert stage.letters.splits(1)["a"].position == 1
    assert stage.out.elements[-2:] == [Barrier(1, final=True), EndOfStream()]


async def test_when_a_drain_catches_other_splits_waiting_positions_are_those_of_what_was_sent() -> (
    None
):
    feeds = {id: Feed(*((id, n) for n in range(50))) for id in "abc"}
    for feed in feeds.values():
        feed.give((feed, "later"))
    stage = Stage(feeds, capacity=1)
    async with stage.running():
        stage.task.receive(final(1, end=False))
        for _ in range(200):
            await settle()
            stage.out.take()

    for id in "abc":
        sent = [
            value for value in stage.out.values if value in [*feeds[id].given, (feeds[id], "later")]
        ]
        assert stage.letters.splits(1)[id].position == len(sent)


async def test_what_a_cancelled_job_half_sent_is_in_no_snapshot() -> None:
    stage = Stage({"a": Feed(1)}, FlatMap(lambda v: range(5_000)), capacity=10)
    async with stage.running():
        stage.task.receive(OpenEpoch(1))
        await settle()
    assert not stage.letters.acknowledged
    assert stage.source.feeds["a"].story == ["closed"]


async def test_a_reader_is_asked_no_more_after_a_drain() -> None:
    feed = Feed(1)
    stage = Stage({"a": feed})
    async with stage.running():
        await stage.finish(1, end=False)
        feed.give(2)
        await settle()
        stage.out.take()
    assert stage.out.values == [1]
    assert len(feed.limits) == 2


async def test_reading_goes_on_where_the_snapshot_was() -> None:
    restored = [
        SplitState("a", None, 7, records=7),
        SplitState("b", None, 3, ended=True, records=3),
        SplitState("gone", None, 1),
    ]
    feeds = {id: Feed() for id in ("a", "b", "c", "gone")}
    source = FedSource(feeds)
    stage = Stage(source, restored=restored)
    listed = [Split("a"), Split("b"), Split("c")]
    source.splits = lambda ctx: _later(listed)  # type: ignore[method-assign]
    async with stage.running():
        # A split under way that the source lists no more is read on.
        assert sorted(source.opened) == [("a", 7), ("c", None), ("gone", 1)]
        stage.task.receive(OpenEpoch(1))
        await settle()
    assert stage.letters.splits(1)["b"].ended
    assert stage.task.splits.records() == 10


async def _later(value: Any) -> Any:
    return value


async def test_an_ended_split_is_opened_again_at_its_end_if_there_may_be_more() -> None:
    restored = [
        SplitState("same", None, 3, ended=True, version=30),
        SplitState("longer", None, 3, ended=True, version=30),
    ]
    feeds = {"same": Feed(), "longer": Feed("new", ends=True)}
    source = FedSource(feeds)
    stage = Stage(source, restored=restored)
    listed = [Split("same", None, 30), Split("longer", None, 40)]
    source.splits = lambda ctx: _later(listed)  # type: ignore[method-assign]
    async with stage.running():
        assert source.opened == [("longer", 3)]
        stage.out.take()
        assert stage.out.values == ["new"]
        assert stage.letters.ended == 1


async def test_two_splits_with_one_id_are_refused() -> None:
    source = FedSource({})
    stage = Stage(source)
    source.splits = lambda ctx: _later([Split("a", 1), Split("a", 2)])  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="source 'numbers' lists two splits with the id 'a'"):
        await stage.task.open()


async def test_a_source_that_lists_nothing_known_is_told(caplog: pytest.LogCaptureFixture) -> None:
    source = FedSource({"a": Feed(ends=True)})
    stage = Stage(source, restored=[SplitState("b", None, 3, ended=True, version=30)])
    async with stage.running():
        assert "no split that the checkpoint knows is listed any more" in caplog.text


# ----------------------------------------------------------------------------- splits


class OneByOne(FedSource):
    max_open_splits = 1


async def test_with_one_open_split_they_are_read_one_after_the_other_in_order() -> None:
    feeds = {id: Feed(id, ends=True) for id in ("c", "a", "b")}
    stage = Stage(OneByOne(feeds))
    async with stage.running():
        stage.out.take()
        assert stage.out.values == ["c", "a", "b"]
        assert stage.letters.ended == 1


async def test_with_one_open_split_the_next_is_opened_when_the_one_before_is_closed() -> None:
    feeds = {"a": Feed("a"), "b": Feed("b", ends=True)}
    stage = Stage(OneByOne(feeds))
    async with stage.running():
        assert stage.source.opened == [("a", None)]
        feeds["a"].end()
        await settle()
        assert stage.source.opened == [("a", None), ("b", None)]
        assert feeds["a"].story == ["closed"]


class Watched(FedSource):
    discovery_interval_ms = 100


async def test_a_split_found_while_running_is_read() -> None:
    stage = Stage(Watched({"a": Feed(1)}))
    async with stage.running():
        stage.source.feeds["b"] = Feed(2)
        await settle()
        assert [id for id, _ in stage.source.opened] == ["a"]

        stage.letters.clock.advance(100)
        await settle()
        stage.source.feeds["c"] = Feed(3)
        stage.letters.clock.advance(100)
        await settle()

        stage.out.take()
        assert stage.out.values == [1, 2, 3]
        assert not stage.letters.ended


async def test_a_split_that_ended_is_remembered_and_a_day_after_it_was_listed_forgotten() -> None:
    stage = Stage(Watched({"a": Feed(1, ends=True), "b": Feed(2)}))
    async with stage.running():
        stage.letters.clock.advance(100)
        await settle()
        assert stage.task.splits.runs["a"].ended
        assert sorted(id for id, _ in stage.source.opened) == ["a", "b"]

        del stage.source.feeds["a"]
        stage.letters.clock.advance(100)
        await settle()
        assert [*stage.task.splits.runs] == ["a", "b"]
        stage.letters.clock.advance(FORGET_AFTER_MS)
        await settle()
        assert [*stage.task.splits.runs] == ["b"]


class Returning(Watched):
    """Splits a and b come back longer; of these b is another one."""

    async def goes_on(self, split: Split, position: Any, ctx: SourceContext) -> bool:
        assert (split.version, position) == (2, 1)
        return split.id == "a"


async def test_a_split_that_was_away_goes_on_where_the_source_says_so() -> None:
    feeds = {"a": Feed(1, ends=True), "b": Feed(1, ends=True)}
    source, versions = Returning(feeds), {"a": 1, "b": 1}
    source.splits = lambda ctx: _later(  # type: ignore[method-assign]
        [Split(id, None, version) for id, version in versions.items()]
    )
    stage = Stage(source)
    async with stage.running():
        for seen in ({}, {"a": 2, "b": 2}):
            versions.clear()
            versions.update(seen)
            source.feeds.update({"a": Feed(2, ends=True), "b": Feed(3, ends=True)})
            stage.letters.clock.advance(100)
            await settle()

        assert sorted(source.opened[:2]) == [("a", None), ("b", None)]
        assert set(source.opened[2:]) == {("a", 1), ("b", None)}
        stage.out.take()
        assert sorted(stage.out.values) == [1, 1, 2, 3]


async def test_slow_listing_holds_up_no_barrier() -> None:
    source = Watched({"a": Feed(1)})
    stage = Stage(source)
    async with stage.running():
        source.splits = lambda ctx: anyio.sleep_forever()  # type: ignore[assignment, return-value]
        stage.letters.clock.advance(100)
        await settle()
        stage.task.receive(final(1, end=False))
        await settle()
        assert stage.letters.acknowledged == [1]


async def test_the_lag_is_that_of_the_splits_being_read() -> None:
    feeds = {"a": Feed(1), "b": Feed(2), "c": Feed(3, ends=True), "d": Feed(4)}
    feeds["a"].left, feeds["b"].left, feeds["c"].left = (5, "bytes"), (7, "bytes"), (100, "bytes")
    stage = Stage(feeds)
    async with stage.running():
        assert await stage.task.lag() == (12, "bytes")
    assert await stage.task.lag() is None


# ----------------------------------------------------------------------------- event time


async def test_the_watermark_is_the_smallest_of_the_splits() -> None:
    a, b = Feed(), Feed()
    stage = Stage({"a": a, "b": b}, strategy=BY_VALUE)
    async with stage.running():
        a.give(10)
        await settle()
        assert stage.out.take() == [Records([10], [10])]

        b.give(5)
        await settle()
        assert stage.out.take() == [Records([5], [5]), Watermark(4)]

        b.end()
        await settle()
        assert stage.out.take() == [Watermark(9)]
    assert stage.task.statistics()["watermark"] == 9


async def test_a_split_holds_the_watermark_up_before_its_reader_is_open() -> None:
    class SlowToOpen(FedSource):
        async def reader(self, split: Split, position: Any, ctx: SourceContext) -> Feed:
            if split.id == "slow":
                await anyio.sleep_forever()
            return await super().reader(split, position, ctx)

    stage = Stage(SlowToOpen({"slow": Feed(), "a": Feed(10)}), strategy=BY_VALUE)
    async with stage.running():
        assert stage.out.take() == [Records([10], [10])]


async def test_timestamps_of_the_source_itself_make_watermarks_too() -> None:
    feed = Feed()
    stage = Stage({"a": feed}, strategy=WatermarkStrategy.monotonous())
    async with stage.running():
        feed.give("x", "y", "z", at=[5, None, 8])
        feed.give("w", at=[None])
        await settle()
        assert stage.out.take() == [
            Records(["x", "y", "z"], [5, None, 8]),
            Watermark(7),
            Records(["w"], [None]),
        ]


async def test_a_chunk_without_records_moves_the_position_only() -> None:
    feed = Feed()
    stage = Stage({"a": feed}, strategy=BY_VALUE)
    async with stage.running():
        feed.chunks.append(Chunk([], 42))
        feed.give()
        await settle()
        assert stage.out.take() == []
        assert stage.task.splits.positions() == {"a": 0}


IDLE = BY_VALUE.with_idleness("100ms")


async def test_an_idle_split_is_left_out_until_it_speaks_again() -> None:
    a, b = Feed(), Feed()
    stage = Stage({"a": a, "b": b}, strategy=IDLE)
    async with stage.running():
        stage.letters.clock.advance(60)
        a.give(10)
        await settle()
        stage.letters.clock.advance(50)
        await settle()
        assert stage.out.take() == [Records([10], [10]), Watermark(9)]

        b.give(5)
        await settle()
        a.give(20)
        await settle()
        # b is late, and holds up the watermark again.
        assert stage.out.take() == [Records([5, 20], [5, 20])]


async def test_when_all_splits_are_idle_the_task_says_so_and_when_one_wakes_too() -> None:
    a, b = Feed(10), Feed(20)
    stage = Stage({"a": a, "b": b}, Map(lambda v: v), strategy=IDLE)
    async with stage.running():
        stage.out.take()
        stage.letters.clock.advance(100)
        await settle()
        # None is held up by the other any more.
        assert stage.out.take() == [Watermark(19), Idle()]
        stage.letters.clock.advance(1_000)
        await settle()
        assert stage.out.take() == []

        a.give(11)
        await settle()
        assert stage.out.take() == [Watermark(19), Records([11], [11])]


async def test_a_rest_is_over_even_if_no_record_gets_through() -> None:
    a = Feed(10)
    stage = Stage({"a": a}, FlatMap(lambda v: ()), strategy=IDLE)
    async with stage.running():
        stage.letters.clock.advance(100)
        await settle()
        assert stage.out.take() == [Watermark(9), Idle()]
        a.give(3)
        await settle()
        assert stage.out.take() == [Watermark(9)]


async def test_a_split_that_waits_for_room_is_not_idle() -> None:
    """Else backpressure would let the watermark run ahead of records that were read already."""
    a, b = Feed(1), Feed(2)
    stage = Stage({"a": a, "b": b}, FlatMap(lambda v: [v] * 30), capacity=10, strategy=IDLE)
    async with stage.running():
        stage.letters.clock.advance(1_000)
        await settle()
        for _ in range(10):
            stage.out.take()
            await settle()
    controls = [e for e in stage.out.elements if not isinstance(e, Records)]
    assert controls == [Watermark(0)]
    assert sorted(stage.out.values) == [1] * 30 + [2] * 30


async def test_a_throttled_split_is_not_idle_and_the_clock_does_not_spin() -> None:
    a = Feed(1)
    a.give(2)
    stage = Stage({"a": a}, strategy=IDLE, max_rate=0.5)
    async with stage.running():
        stage.letters.clock.advance(1_000)
        await settle()
        assert stage.out.take() == [Records([1], [1]), Watermark(0)]
        stage.letters.clock.advance(1_000)
        await settle()
        assert stage.out.take() == [Records([2], [2]), Watermark(1)]


async def test_restored_splits_know_their_watermark_and_their_rest() -> None:
    restored = [
        SplitState("a", None, 1, watermark=30, idle=True),
        SplitState("b", None, 1, watermark=20, idle=True),
    ]
    stage = Stage({"a": Feed(), "b": Feed()}, strategy=IDLE, restored=restored)
    async with stage.running():
        assert stage.out.take() == [Watermark(29), Idle()]


async def test_a_restored_split_that_was_awake_is_waited_for() -> None:
    restored = [
        SplitState("a", None, 1, watermark=30, idle=True),
        SplitState("b", None, 1, watermark=20),
    ]
    stage = Stage({"a": Feed(), "b": Feed()}, strategy=IDLE, restored=restored)
    async with stage.running():
        assert stage.out.take() == [Watermark(19)]


async def test_a_subtask_whose_splits_ended_holds_nobody_up() -> None:
    stage = Stage({"a": Feed(10, ends=True)}, strategy=BY_VALUE)
    async with stage.running():
        assert stage.out.take() == [Records([10], [10]), Watermark(9), Idle()]


async def test_also_where_a_step_makes_the_event_time() -> None:
    stage = Stage({"a": Feed(10, ends=True)}, AssignTimestamps(BY_VALUE))
    async with stage.running():
        assert stage.out.take() == [Records([10], [10]), Watermark(9), Idle()]


# ----------------------------------------------------------------------------- rates and turns


async def test_a_throttle_spreads_records_and_reads_small_chunks() -> None:
    feed = Feed(1)
    feed.give(2, 3)
    feed.give(4)
    stage = Stage({"a": feed}, max_rate=10)
    async with stage.running():
        seen = []
        for _ in range(5):
            await settle()
            stage.out.take()
            seen.append(len(stage.out.values))
            stage.letters.clock.advance(100)
    assert seen == [1, 3, 3, 4, 4]
    assert set(feed.limits) == {1}


async def test_a_drain_does_not_wait_for_the_throttle_nor_count_what_it_held() -> None:
    feed = Feed(1)
    feed.give(2)
    stage = Stage({"a": feed}, max_rate=0.001)
    async with stage.running():
        await stage.finish(1, end=False)
        assert stage.done
    stage.out.take()
    assert stage.out.values == [1]
    assert stage.letters.splits(1)["a"].position == 1


async def test_a_source_that_always_has_data_gives_the_others_their_turn() -> None:
    class Endless(Feed):
        turns = 0

        async def read(self, limit: int) -> Chunk[Any] | None:
            Endless.turns += 1
            return Chunk([1] * 100, Endless.turns)

    stage = Stage({"a": Endless()}, FlatMap(lambda v: ()))
    with anyio.CancelScope() as scope:
        async with create_task_group() as group:
            await stage.task.open()
            group.start_soon(stage.task.run)
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            scope.cancel()
    assert Endless.turns < 50 * 30


async def test_processing_time_timers_of_the_chain_ring() -> None:
    stage = Stage({"a": Feed(1)}, AssignTimestamps(IDLE))
    async with stage.running():
        assert stage.out.take() == [Records([1], [1]), Watermark(0)]
        stage.letters.clock.advance(100)
        await settle()
        assert stage.out.take() == [Idle()]


# ----------------------------------------------------------------------------- errors


async def test_a_reader_that_fails_is_reported_with_split_and_position() -> None:
    feed = Feed(1, 2)
    feed.fail(ValueError("no such line"))
    error = await failed(Stage({"a": feed}))
    assert isinstance(error, InputError)
    assert str(error) == (
        "source 'numbers' could not read split 'a' behind position 2: ValueError: no such line"
    )
    assert feed.story == ["closed"]


async def test_an_input_error_of_the_reader_itself_is_left_as_it_is() -> None:
    feed = Feed()
    feed.fail(InputError("file x, byte 3: not JSON"))
    assert str(await failed(Stage({"a": feed}))) == "file x, byte 3: not JSON"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("splits", "source 'numbers' could not list its splits: OSError: away"),
        ("reader", "source 'numbers' could not open split 'a': OSError: away"),
    ],
)
async def test_a_source_that_cannot_be_asked_is_reported(method: str, message: str) -> None:
    async def fails(*_: Any) -> Any:
        raise OSError("away")

    source = FedSource({"a": Feed()})
    setattr(source, method, fails)
    with pytest.raises((ExceptionGroup, InputError)) as raised:
        stage = Stage(source)
        async with stage.running():
            pass
    error: BaseException = raised.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert str(error) == message


async def test_a_reader_that_cannot_be_closed_is_reported() -> None:
    class Stuck(Feed):
        async def close(self) -> None:
            raise OSError("stuck")

    error = await failed(Stage({"a": Stuck(1, ends=True)}))
    assert str(error) == "source 'numbers' could not close split 'a': OSError: stuck"


async def test_a_commit_that_the_source_refuses_is_reported() -> None:
    class Refuses(FedSource):
        async def committed(self, epoch: int, positions: Mapping[str, Position]) -> None:
            raise OSError("no")

    stage = Stage(Refuses({"a": Feed()}))
    stage.task.receive(OpenEpoch(1))
    stage.task.receive(EpochCommitted(1))
    error = await failed(stage)
    assert str(error) == "source 'numbers' could not take the commit of epoch 1: OSError: no"


async def test_a_timestamp_function_that_fails_is_blamed_with_its_record() -> None:
    strategy = WatermarkStrategy.monotonous().with_timestamps(lambda v: v["at"])
    error = await failed(Stage({"a": Feed({"at": 1}, {})}, strategy=strategy))
    assert isinstance(error, OperatorError)
    assert (error.operator, error.value) == ("numbers", {})


async def test_a_watermark_generator_that_fails_is_blamed() -> None:
    class Broken(BoundedOutOfOrderness):
        def observe(self, timestamps: Any) -> None:
            raise ValueError("broken")

    strategy = WatermarkStrategy.custom(Broken).with_timestamps(lambda v: v)
    error = await failed(Stage({"a": Feed(1)}, strategy=strategy))
    assert "operator 'numbers' raised ValueError: broken in the watermark generator" in str(error)


async def test_a_step_that_fails_is_blamed_and_the_reader_closed() -> None:
    feed = Feed(1, 0)
    error = await failed(Stage({"a": feed}, process(lambda v, ctx: 1 // v)))
    assert isinstance(error, OperatorError)
    assert (error.operator, error.value) == ("0", 0)
    assert feed.story == ["closed"]
