"""Event loops on which the same seed gives the same run: time jumps, and nothing waits outside.

Time is a `ManualClock` that jumps to its next alarm when no task can go on. Where there is none
either, nothing will ever happen again: `StuckError`.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Literal, TypeAlias, TypeVar
from unittest import mock

import trio
import trio.testing
from anyio._backends import _asyncio as anyio_on_asyncio

from flowrt.testing.world import ManualClock

T = TypeVar("T")
Loop: TypeAlias = Literal["asyncio", "trio"]

PATIENCE_SECONDS: Final = 100
"""How much of the loop's own time passes before a run counts as stuck: more than any timeout."""


class StuckError(AssertionError):
    """Every task waits for another."""


def run_simulated(loop: Loop, main: Callable[[], Awaitable[T]], clock: ManualClock, seed: str) -> T:
    """Run `main` to its end; on trio the seed also says in which order tasks that can run do."""
    if loop == "trio":
        return _on_trio(main, clock, seed)
    return _on_asyncio(main, clock)


# ------------------------------------------------------------------------------------------- trio


def _on_trio(main: Callable[[], Awaitable[T]], clock: ManualClock, seed: str) -> T:
    # Trio shuffles the tasks that can run, on purpose, and has this switch for such tests as these.
    scheduling: Any = trio._core._run
    loop_time = trio.testing.MockClock()
    results: list[T] = []
    errors: list[BaseException] = []

    async def driven() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_time, nursery.cancel_scope)
            try:
                results.append(await main())
            except (Exception, BaseExceptionGroup) as error:  # by hand: the nursery would wrap it
                errors.append(error)
            nursery.cancel_scope.cancel()

    async def pass_time(everything: trio.CancelScope) -> None:
        waited = 0
        while True:
            await trio.testing.wait_all_tasks_blocked()
            waited = 0 if _jump(clock) else waited + 1
            if waited > PATIENCE_SECONDS:
                errors.append(StuckError("every task waits, and no alarm is set"))
                everything.cancel()
                return
            loop_time.jump(min(waited, 1))

    with mock.patch.object(scheduling, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        scheduling._r.seed(seed)
        trio.run(driven, clock=loop_time)
    if errors:
        raise errors[0]
    return results[0]


# ---------------------------------------------------------------------------------------- asyncio


def _on_asyncio(main: Callable[[], Awaitable[T]], clock: ManualClock) -> T:
    loop = _SimulatedLoop(clock)

    async def driven() -> T:
        return await main()

    with _numbered_scopes():
        try:
            result = loop.run_until_complete(driven())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
    return result


class _SimulatedLoop(asyncio.SelectorEventLoop):
    """Where the loop would sleep, the clock jumps."""

    def __init__(self, clock: ManualClock) -> None:
        self._simulated_time = 0.0
        self._clock = clock
        super().__init__(_Idle(self._idle))
        numbers = count()
        self.set_task_factory(
            lambda loop, coro, **options: _NumberedTask(next(numbers), coro, loop=loop, **options)
        )

    def time(self) -> float:
        return self._simulated_time

    def _idle(self, seconds: float | None) -> None:
        if _jump(self._clock):
            return
        if seconds is None or self._simulated_time > PATIENCE_SECONDS * 1_000:
            raise StuckError("every task waits, and no alarm is set")
        self._simulated_time += seconds


class _Idle(selectors.DefaultSelector):
    """Never waits for the outside, for nothing comes from there."""

    def __init__(self, idle: Callable[[float | None], None]) -> None:
        super().__init__()
        self._idle = idle

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._idle(timeout)
        return []


class _NumberedTask(asyncio.Task[Any]):
    """Comes out of a set in the same order each time: by default that order is by address."""

    def __init__(self, number: int, *arguments: Any, **options: Any) -> None:
        self._number = number
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number


@contextmanager
def _numbered_scopes() -> Iterator[None]:
    """Let anyio's sets of scopes, too, be in the same order each time."""
    numbers = count()

    class NumberedScope(anyio_on_asyncio.CancelScope):
        __slots__ = ("number",)

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.number = next(numbers)
            super().__init__(*arguments, **options)

        def __hash__(self) -> int:
            return self.number

    with mock.patch.object(anyio_on_asyncio, "CancelScope", NumberedScope):
        yield


def _jump(clock: ManualClock) -> bool:
    """Let time jump to the next alarm; say whether there was one."""
    when_ms = clock.next_alarm_ms()
    if when_ms is None:
        return False
    clock.set_to(max(when_ms, clock.now_ms()))
    return True
