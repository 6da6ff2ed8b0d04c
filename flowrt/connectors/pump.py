"""Reads an async iterator ahead, in a task of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, Final, Generic, TypeVar

import anyio

T = TypeVar("T")

CAPACITY: Final = 1_024


class Pump(Generic[T]):
    """Keeps up to `CAPACITY` records of an async iterator ready, to be taken together.

    An iterator that is asked for its next value cannot be left: cancelling it there would end a
    generator and may lose a record. So it is asked in a task of its own, and whoever waits for
    records may be cancelled at no cost. The task is not in a task group: it must live from one read
    to the next, and a group can't. It begins with the first `wait` and ends in `stop`.
    """

    def __init__(self, values: AsyncIterator[T], ready: Iterable[T] = ()) -> None:
        self._values = values
        self._ready = list(ready)
        self._begun = False
        self._asking = False
        self._error: BaseException | None = None
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()
        self._arrival: anyio.Event | None = None
        self._room: anyio.Event | None = None
        self.ended = False
        """Whether the iterator ended or raised."""
        self.interrupted = False
        """Whether the iterator was cancelled while it was asked for a value."""

    async def wait(self) -> None:
        """Wait for a record, or the end."""
        if not self._begun:
            self._begun = True
            start_alone(self._run)
        if not self._ready and not self.ended:
            self._arrival = anyio.Event()
            await self._arrival.wait()

    @property
    def error(self) -> BaseException | None:
        """What the iterator raised; None while there are records that came before."""
        return None if self._ready else self._error

    def take(self, limit: int | None) -> list[T]:
        """Return the records that are ready, up to `limit`; [] after `wait` means the end."""
        if limit is None or len(self._ready) <= limit:
            taken, self._ready = self._ready, []
        else:
            taken = self._ready[:limit]
            del self._ready[:limit]
        if self._room is not None and len(self._ready) < CAPACITY:
            self._room.set()
        return taken

    async def stop(self, *, close: bool) -> None:
        """End the task, also while it waits for the iterator; `close` the iterator too."""
        with anyio.CancelScope(shield=True):
            if self._begun:
                self._scope.cancel()
                await self._finished.wait()
            end: Callable[[], Awaitable[Any]] | None = getattr(self._values, "aclose", None)
            if close and end is not None:
                await end()

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._fill()
            self.interrupted = self._scope.cancelled_caught and self._asking
        finally:
            self._finished.set()

    async def _fill(self) -> None:
        try:
            while True:
                self._asking = True
                value = await anext(self._values)
                self._asking = False
                self._ready.append(value)
                self._tell()
                if len(self._ready) >= CAPACITY:
                    self._room = anyio.Event()
                    await self._room.wait()
        except StopAsyncIteration:
            pass
        except Exception as error:
            self._error = error
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            self._error = error  # nobody asked for it: it is that of something it awaited
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None


# The event loop itself keeps weak references to its tasks only.
_tasks: set[asyncio.Task[None]] = set()


def start_alone(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function in a task without a parent; it must catch what it raises."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        trio.lowlevel.spawn_system_task(run, context=copy_context())
    else:
        task = asyncio.create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
