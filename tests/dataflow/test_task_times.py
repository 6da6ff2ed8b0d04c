"""At work, idle, paused: exact on a clock that stands still unless told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from flowrt.contract.elements import Records
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.tasks.task_times import TaskTimes, resting
from flowrt.testing import ManualClock
from tests.dataflow.kit import settle

MS = 1_000_000


def figures(times: TaskTimes) -> tuple[int, int, int]:
    """Elapsed, idle and paused, in ms."""
    return times.elapsed_ns() // MS, times.idle_ns() // MS, times.paused_ns() // MS


def test_nothing_is_spent_before_the_beginning_and_after_the_end() -> None:
    clock = ManualClock()
    times = TaskTimes(clock)
    clock.advance(10)
    assert figures(times) == (0, 0, 0)

    times.begin()
    clock.advance(5)
    times.rest()
    clock.advance(3)
    times.end()
    clock.advance(100)

    assert figures(times) == (8, 3, 0)


def test_a_wait_that_is_under_way_counts() -> None:
    clock = ManualClock()
    times = TaskTimes(clock)
    times.begin()
    times.rest()
    clock.advance(7)
    assert figures(times) == (7, 7, 0)

    times.work()
    clock.advance(1)
    assert figures(times) == (8, 7, 0)


def test_a_task_is_idle_while_all_that_it_does_waits() -> None:
    clock = ManualClock()
    times = TaskTimes(clock)
    times.begin()
    times.work()
    times.rest()
    clock.advance(4)  # one of two still works
    times.rest()
    clock.advance(2)
    times.work()
    times.work()

    assert figures(times) == (6, 2, 0)


def test_a_pause_is_none_while_another_works_and_ends_when_one_begins() -> None:
    clock = ManualClock()
    times = TaskTimes(clock)
    times.begin()
    times.work()
    times.pause()
    clock.advance(1)  # the other works
    times.rest()
    clock.advance(2)  # the other waits
    assert figures(times) == (3, 0, 2)

    times.work()
    clock.advance(4)
    times.go_on()
    times.rest()
    times.rest()
    clock.advance(8)

    assert figures(times) == (15, 8, 2)


# ------------------------------------------------------------------------------------ resting


@pytest.mark.anyio
async def test_what_is_done_before_an_answer_waits_is_work() -> None:
    clock = ManualClock()
    times = TaskTimes(clock)
    spot = parking_spot()
    answers: list[str] = []

    async def answer() -> str:
        clock.advance(1)
        await spot.wait()
        clock.advance(2)
        return "here"

    async def ask() -> None:
        times.begin()
        answers.append(await resting(answer(), times))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await settle()
        clock.advance(10)
        spot.wake()

    assert answers == ["here"]
    assert figures(times) == (13, 10, 0)


@pytest.mark.anyio
async def test_not_closely_all_behind_the_first_wait_is_waiting() -> None:
    clock = ManualClock()
    times = TaskTimes(clock)
    spot = parking_spot()

    async def answer() -> str:
        clock.advance(1)
        await anyio.lowlevel.checkpoint()
        clock.advance(2)
        await spot.wait()
        clock.advance(4)
        return "here"

    async def ask() -> None:
        times.begin()
        assert await resting(answer(), times, closely=False) == "here"

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await settle()
        clock.advance(10)
        spot.wake()

    # trio gives an answer a value of its own behind each wait: there all is watched.
    assert figures(times)[0] == 17
    assert figures(times)[1] in (16, 10)


@pytest.mark.anyio
@pytest.mark.parametrize("closely", [True, False])
async def test_an_error_and_a_cancellation_go_through(closely: bool) -> None:
    clock = ManualClock()
    times = TaskTimes(clock)
    seen: list[str] = []

    async def fails(after: Callable[[], Awaitable[None]] | None = None) -> None:
        if after is not None:
            await after()
            await after()
        raise ValueError("no")

    async def cleans_up() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("cleaned up")

    times.begin()
    with pytest.raises(ValueError, match="no"):
        await resting(fails(), times, closely=closely)
    with pytest.raises(ValueError, match="no"):
        await resting(fails(after=anyio.lowlevel.checkpoint), times, closely=closely)
    with anyio.move_on_after(0):
        await resting(cleans_up(), times, closely=closely)
    clock.advance(3)

    assert seen == ["cleaned up"]
    assert figures(times) == (3, 0, 0)


@pytest.mark.anyio
async def test_an_answer_may_wait_often_and_swallow_what_is_thrown_into_it() -> None:
    times = TaskTimes(ManualClock())

    async def patient(ask: Callable[[], Awaitable[None]]) -> str:
        for _ in range(3):
            await ask()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep_forever()
        return "done"

    times.begin()

    assert await resting(patient(anyio.lowlevel.checkpoint), times) == "done"


def test_an_answer_that_is_dropped_is_closed() -> None:
    times = TaskTimes(ManualClock())
    seen: list[str] = []

    class Never:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield "a wait"

    async def waits() -> None:
        try:
            await Never()
        finally:
            seen.append("closed")

    times.begin()
    answer = resting(waits(), times)
    answer.send(None)
    answer.close()

    assert seen == ["closed"]


# ------------------------------------------------------------------------------------ channels


@pytest.mark.anyio
async def test_a_channel_knows_how_long_its_sender_waited_for_room() -> None:
    clock = ManualClock()
    channel = Channel(2, parking_spot(), now_ns=clock.monotonic_ns)

    async def send() -> None:
        await channel.send(Records([1, 2]))
        await channel.send(Records([3]))

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await settle()
        clock.advance(5)
        assert channel.blocked_ns() == 5 * MS
        channel.take()
        await settle()
        clock.advance(5)

    assert channel.blocked_ns() == 5 * MS


@pytest.mark.anyio
async def test_a_wait_for_room_that_is_cancelled_is_over() -> None:
    clock = ManualClock()
    channel = Channel(1, parking_spot(), now_ns=clock.monotonic_ns)
    await channel.send(Records([1]))

    async with anyio.create_task_group() as group:
        group.start_soon(channel.send, Records([2]))
        await settle()
        clock.advance(5)
        group.cancel_scope.cancel()
    clock.advance(5)

    assert channel.blocked_ns() == 5 * MS
