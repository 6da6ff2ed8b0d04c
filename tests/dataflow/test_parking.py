"""A task waits until another wakes it; no wake is lost, whatever comes between."""

from __future__ import annotations

import anyio
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot
from tests.dataflow.kit import settle

pytestmark = pytest.mark.anyio


async def parked(spot: ParkingSpot) -> bool:
    """Say whether a wait at the spot does not return by itself."""
    returned = False

    async def wait() -> None:
        nonlocal returned
        await spot.wait()
        returned = True

    async with create_task_group() as group:
        group.start_soon(wait)
        await settle()
        group.cancel_scope.cancel()
    return not returned


async def test_a_waiter_goes_on_when_it_is_woken() -> None:
    spot, story = parking_spot(), []

    async def wait() -> None:
        story.append("waits")
        await spot.wait()
        story.append("goes on")

    async with create_task_group() as group:
        group.start_soon(wait)
        await settle()
        story.append("woken")
        spot.wake()

    assert story == ["waits", "woken", "goes on"]


async def test_a_wake_while_nobody_waits_is_kept_for_the_next_wait() -> None:
    spot = parking_spot()
    spot.wake()
    await spot.wait()


async def test_several_wakes_are_kept_as_one() -> None:
    spot = parking_spot()
    spot.wake()
    spot.wake()
    await spot.wait()
    assert await parked(spot)


async def test_a_second_wake_of_the_same_waiter_does_no_harm() -> None:
    spot, turns = parking_spot(), 0

    async def wait() -> None:
        nonlocal turns
        await spot.wait()
        turns += 1

    async with create_task_group() as group:
        group.start_soon(wait)
        await settle()
        spot.wake()
        spot.wake()

    assert turns == 1


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    spot = parking_spot()
    assert await parked(spot)
    assert await parked(spot)

    spot.wake()
    await spot.wait()


@pytest.mark.parametrize("wake_first", [True, False])
async def test_a_wake_in_the_turn_of_a_cancellation_is_not_lost(wake_first: bool) -> None:
    spot = parking_spot()
    scope = anyio.CancelScope()
    woken = False

    async def wait() -> None:
        nonlocal woken
        with scope:
            await spot.wait()
            woken = True

    async with create_task_group() as group:
        group.start_soon(wait)
        await settle()
        if wake_first:
            spot.wake()
        scope.cancel()
        if not wake_first:
            spot.wake()
        await settle()

        # Either the waiter had the wake, or the next one has it.
        assert woken or not await parked(spot)


async def test_two_tasks_hand_the_turn_to_each_other() -> None:
    here, there = parking_spot(), parking_spot()
    story: list[str] = []

    async def answer() -> None:
        for turn in range(100):
            await there.wait()
            story.append(f"answer {turn}")
            here.wake()

    async with create_task_group() as group:
        group.start_soon(answer)
        for turn in range(100):
            story.append(f"question {turn}")
            there.wake()
            await here.wait()

    assert story == [f"{who} {turn}" for turn in range(100) for who in ("question", "answer")]


async def test_a_kept_wake_does_not_give_the_loop_a_turn() -> None:
    spot, story = parking_spot(), []

    async def other() -> None:
        story.append("other")

    async with create_task_group() as group:
        group.start_soon(other)
        spot.wake()
        await spot.wait()
        story.append("this")
        await checkpoint()

    assert story == ["this", "other"]
