"""Where one task waits until another wakes it.

The kernel's only use of an event loop's own primitives: a bare future costs a quarter of an
`anyio.Event` (see docs/decisions), and every hop of a record pays for one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class ParkingSpot(Protocol):
    """One waiter at a time; a wake while nobody waits is kept for the next `wait`."""

    def wake(self) -> None:
        """Let the waiter go on, now or when it comes; only from the event loop's own thread."""
        ...

    async def wait(self) -> None:
        """Wait for a `wake`.

        Returns at once, without giving the loop a turn, when there was one. A wake may be reported
        twice, so look again at what you wait for. A wait that is cancelled takes no wake with it.
        """
        ...


class AsyncioParkingSpot:
    """A parking spot on asyncio and uvloop."""

    __slots__ = ("_awake", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._awake = False

    def wake(self) -> None:
        """See `ParkingSpot.wake`."""
        waiter = self._waiter
        if waiter is None or waiter.cancelled():
            self._awake = True
        elif not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """See `ParkingSpot.wait`."""
        if self._awake:
            self._awake = False
            return
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            # Woken and cancelled in the same turn of the loop: the wake is kept for the next wait.
            self._awake = self._awake or not waiter.cancelled()
            raise
        finally:
            self._waiter = None


class TrioParkingSpot:
    """A parking spot on trio."""

    __slots__ = ("_awake", "_lowlevel", "_waiter")

    def __init__(self, lowlevel: Any) -> None:
        self._lowlevel = lowlevel
        self._waiter: Any = None
        self._awake = False

    def wake(self) -> None:
        """See `ParkingSpot.wake`."""
        if self._waiter is None:
            self._awake = True
        else:
            self._lowlevel.reschedule(self._waiter)
            # Rescheduled once only: a second wake before it runs is kept, and costs one empty turn.
            self._waiter = None

    async def wait(self) -> None:
        """See `ParkingSpot.wait`."""
        if self._awake:
            self._awake = False
            return
        self._waiter = self._lowlevel.current_task()
        await self._lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: object) -> Any:
        self._waiter = None
        return self._lowlevel.Abort.SUCCEEDED


def parking_spot() -> ParkingSpot:
    """Return a parking spot for the event loop that runs the caller."""
    try:
        return AsyncioParkingSpot(asyncio.get_running_loop())
    except RuntimeError:
        from trio import lowlevel

        return TrioParkingSpot(lowlevel)
