"""The queue between two tasks: order, room, joining, and what a slow receiver collects."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from anyio import CancelScope, create_task_group

from flowrt.contract.elements import (
    Barrier,
    Element,
    EndOfStream,
    Idle,
    Records,
    Sampled,
    Watermark,
)
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.channels.run_length import RUN_LIMIT
from tests.dataflow.kit import settle

pytestmark = pytest.mark.anyio


def channel(capacity: int = 100) -> Channel:
    return Channel(capacity, parking_spot())


def run(*values: Any) -> Records:
    return Records([*values])


async def waits(sending: Awaitable[None], receiver: Channel) -> list[list[Element]]:
    """Send, taking once whenever the sender waits; return what each `take` brought."""
    taken: list[list[Element]] = []
    done = False

    async def send() -> None:
        nonlocal done
        await sending
        done = True

    async with create_task_group() as group:
        group.start_soon(send)
        await settle()
        while not done:
            taken.append(receiver.take())
            await settle()
    return taken


async def test_what_was_sent_is_taken_in_order_and_at_once() -> None:
    line = channel()
    await line.send(run(1, 2))
    line.send_control(Watermark(5))
    await line.send(run(3))
    line.send_control(EndOfStream())

    assert line.take() == [run(1, 2), Watermark(5), run(3), EndOfStream()]
    assert line.take() == []


async def test_records_that_nobody_took_yet_are_joined_to_one_run() -> None:
    line = channel()
    await line.send(Records([1], [10], ["a"]))
    await line.send(Records([2, 3], [20, None], ["b", "c"]))

    assert line.take() == [Records([1, 2, 3], [10, 20, None], ["a", "b", "c"])]


@pytest.mark.parametrize(
    "other", [Records([2]), Records([2], [0]), Records([2], None, ["k"]), Records([2], [0], ["k"])]
)
async def test_runs_of_another_shape_are_not_joined(other: Records) -> None:
    line = channel()
    first = Records([1], [0], ["k"]) if other.keys is None else Records([1])
    await line.send(first)
    await line.send(other)

    assert line.take() == [first, other]


async def test_joined_runs_stay_short_enough_to_be_one_turn() -> None:
    line = channel(capacity=10 * RUN_LIMIT)
    for value in range(RUN_LIMIT + 1):
        await line.send(run(value))

    assert [len(element.values) for element in line.take() if isinstance(element, Records)] == [
        RUN_LIMIT,
        1,
    ]


async def test_a_run_that_was_taken_is_joined_no_more() -> None:
    line = channel()
    await line.send(run(1))
    taken = line.take()
    await line.send(run(2))

    assert taken == [run(1)]
    assert line.take() == [run(2)]


async def test_a_run_behind_a_barrier_can_still_be_joined_when_the_barrier_was_taken() -> None:
    line = channel()
    await line.send(run(1))
    line.send_control(Barrier(1))
    await line.send(run(2))

    assert line.take() == [run(1), Barrier(1)]
    await line.send(run(3))
    assert line.take() == [run(2, 3)]


async def test_an_empty_run_is_nothing() -> None:
    line = channel()
    await line.send(run())
    assert len(line) == 0


async def test_take_stops_behind_each_barrier() -> None:
    line = channel()
    line.send_control(Barrier(1))
    await line.send(run(1))
    line.send_control(Barrier(2))
    line.send_control(EndOfStream())

    assert [line.take() for _ in range(3)] == [
        [Barrier(1)],
        [run(1), Barrier(2)],
        [EndOfStream()],
    ]
    assert line.size == 0


async def test_a_full_channel_holds_the_sender_until_all_was_taken() -> None:
    line = channel(capacity=3)

    async def send() -> None:
        for value in range(7):
            await line.send(run(value))

    assert await waits(send(), line) == [[run(0, 1, 2)], [run(3, 4, 5)]]
    assert line.take() == [run(6)]


async def test_records_behind_a_barrier_count_as_long_as_they_are_there() -> None:
    line = channel(capacity=2)
    line.send_control(Barrier(1))
    await line.send(run(1, 2))

    assert await waits(line.send(run(3)), line) == [[Barrier(1)], [run(1, 2)]]
    assert line.take() == [run(3)]


async def test_control_never_waits() -> None:
    line = channel(capacity=1)
    await line.send(run(1))
    for element in (Watermark(1), Barrier(1), Idle(), EndOfStream()):
        line.send_control(element)

    assert line.take() == [run(1), Watermark(1), Barrier(1)]


async def test_a_run_longer_than_the_capacity_comes_in_pieces() -> None:
    line = channel(capacity=4)
    long = Records([*range(10)], [*range(10, 20)], [*range(20, 30)])

    first, second = await waits(line.send(long), line)
    third = line.take()

    assert first == [Records([0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23])]
    assert second == [Records([4, 5, 6, 7], [14, 15, 16, 17], [24, 25, 26, 27])]
    assert third == [Records([8, 9], [18, 19], [28, 29])]


async def test_an_adapting_capacity_begins_small_and_grows_where_the_receiver_is_quick() -> None:
    line = Channel(100, parking_spot(), adapts=True)
    capacities = [line.capacity]

    async with create_task_group() as group:
        group.start_soon(line.send, run(*range(1_000)))
        for _ in range(8):
            await settle()
            line.take()
            line.took(1_000)
            capacities.append(line.capacity)
        group.cancel_scope.cancel()

    assert capacities == [1, 2, 4, 8, 16, 32, 64, 100, 100]


async def test_it_shrinks_to_what_a_slow_receiver_does_in_20_ms() -> None:
    line = Channel(100, parking_spot(), adapts=True)

    async with create_task_group() as group:
        group.start_soon(line.send, run(*range(1_000)))
        for capacity in (2, 4, 8, 16):
            await settle()
            line.take()
            line.took(1_000)
            assert line.capacity == capacity
        await settle()
        line.take()
        assert line.waited_for is not None
        line.took(line.waited_for * 5_000_000)
        assert line.capacity == 4
        await settle()
        assert 4 <= line.size < 8
        group.cancel_scope.cancel()


async def test_time_without_a_sender_that_waits_says_nothing() -> None:
    line = Channel(100, parking_spot(), adapts=True)
    await line.send(run(1))

    line.take()
    assert line.waited_for is None
    line.took(10**12)

    assert line.capacity == 1
    fixed = channel(capacity=1)
    async with create_task_group() as group:
        group.start_soon(fixed.send, run(1, 2, 3))
        await settle()
        fixed.take()
        assert fixed.waited_for is None
        group.cancel_scope.cancel()


async def test_a_sender_that_is_cancelled_while_it_waits_sent_nothing() -> None:
    line = channel(capacity=1)
    await line.send(run(1))
    scope = CancelScope()

    async def send() -> None:
        with scope:
            await line.send(run(2))

    async with create_task_group() as group:
        group.start_soon(send)
        await settle()
        scope.cancel()

    assert line.take() == [run(1)]
    # The room that it asked for belongs to the next one.
    await line.send(run(3))
    assert await waits(line.send(run(4)), line) == [[run(3)]]


async def test_the_receiver_is_woken_by_whatever_comes_first() -> None:
    for element in (Watermark(1), Idle(), Barrier(1), EndOfStream(), None):
        spot = parking_spot()
        line = Channel(10, spot)
        if element is None:
            await line.send(run(1))
        else:
            line.send_control(element)
        await spot.wait()
        assert len(line) == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ([Watermark(1), Watermark(2)], [Watermark(2)]),
        ([Idle(), Idle()], [Idle()]),
        ([Idle(), Watermark(1)], [Watermark(1)]),
        ([Watermark(1), Idle()], [Watermark(1), Idle()]),
        ([Watermark(1), Idle(), Watermark(2)], [Watermark(2)]),
        ([Watermark(1), Idle(), Idle()], [Watermark(1), Idle()]),
        ([Watermark(1), EndOfStream()], [Watermark(1), EndOfStream()]),
    ],
)
async def test_newer_watermarks_and_rests_replace_the_older(
    sent: list[Element], kept: list[Element]
) -> None:
    line = channel()
    for element in sent:
        line.send_control(element)
    assert line.take() == kept


async def test_a_watermark_is_not_moved_across_a_barrier_or_a_record() -> None:
    line = channel()
    line.send_control(Watermark(1))
    line.send_control(Barrier(1))
    line.send_control(Watermark(2))
    await line.send(run(1))
    line.send_control(Watermark(3))

    assert line.take() == [Watermark(1), Barrier(1)]
    assert line.take() == [Watermark(2), run(1), Watermark(3)]


async def test_a_storm_of_control_leaves_no_heap() -> None:
    line = channel(capacity=10)
    for time in range(10_000):
        line.send_control(Watermark(time))
        line.send_control(Idle())
    assert line.take() == [Watermark(9_999), Idle()]


async def test_what_is_traced_stands_between_two_marks() -> None:
    line = channel()
    await line.send(run(1))
    line.send_control(Sampled("trace"))
    await line.send(run(2))
    line.send_control(Watermark(5))
    line.send_control(Sampled(None))
    await line.send(run(3))

    marked = [Sampled("trace"), run(2), Watermark(5), Sampled(None)]
    assert line.take() == [run(1), *marked, run(3)]


async def test_a_mark_that_no_record_followed_is_taken_back() -> None:
    line = channel()
    line.send_control(Watermark(1))
    for number in range(2, 100):
        line.send_control(Sampled("trace"))
        line.send_control(Idle())
        line.send_control(Watermark(number))
        line.send_control(Sampled(None))

    assert line.take() == [Watermark(99)]


async def test_a_mark_whose_beginning_was_taken_stays() -> None:
    line = channel()
    line.send_control(Sampled("trace"))
    line.take()
    line.send_control(Sampled(None))

    assert line.take() == [Sampled(None)]
