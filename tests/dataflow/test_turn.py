"""One at a time, in the order of asking, whatever is cancelled."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flowrt.dataflow.sources.turn import Turn

pytestmark = pytest.mark.anyio


async def turns(times: int = 10) -> None:
    """Let everybody go as far as they can."""
    for _ in range(times):
        await checkpoint()


async def test_one_at_a_time_in_the_order_of_asking() -> None:
    turn, seen, inside = Turn(), [], 0

    async def take(name: int) -> None:
        nonlocal inside
        async with turn:
            inside += 1
            assert inside == 1
            await turns(3)
            seen.append(name)
            inside -= 1

    async with anyio.create_task_group() as group:
        for name in range(5):
            group.start_soon(take, name)
            await checkpoint()

    assert seen == [0, 1, 2, 3, 4]


async def test_a_free_turn_is_taken_without_waiting() -> None:
    turn, others = Turn(), []

    async def other() -> None:
        others.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        async with turn:
            assert not others
        async with turn:
            assert not others


async def test_who_is_cancelled_while_waiting_is_passed_over() -> None:
    turn, seen = Turn(), []

    async def take(name: str) -> None:
        async with turn:
            seen.append(name)

    async with anyio.create_task_group() as group, anyio.create_task_group() as doomed, turn:
        doomed.start_soon(take, "doomed")
        await turns()
        group.start_soon(take, "patient")
        await turns()
        doomed.cancel_scope.cancel()
        await turns()

    assert seen == ["patient"]


async def test_a_turn_given_to_one_who_is_cancelled_goes_on_to_the_next() -> None:
    turn, seen = Turn(), []

    async def take(name: str) -> None:
        async with turn:
            seen.append(name)

    async with anyio.create_task_group() as group, anyio.create_task_group() as doomed:
        async with turn:
            doomed.start_soon(take, "doomed")
            await turns()
            group.start_soon(take, "patient")
            await turns()
            doomed.cancel_scope.cancel()
        await turns()

    assert "patient" in seen
    async with turn:
        pass


async def test_an_error_inside_gives_the_turn_back() -> None:
    turn = Turn()

    with pytest.raises(ValueError, match="inside"):
        async with turn:
            raise ValueError("inside")

    async with turn:
        pass
