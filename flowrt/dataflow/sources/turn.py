"""Who may send now: one at a time, in the order of asking.

Taken for every chunk of a source, so it must cost next to nothing while nobody else wants it; an
`anyio.Lock` asks the event loop each time who is calling.
"""

from __future__ import annotations

from collections import deque

from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot


class Turn:
    """A fair mutex for tasks of one event loop; `async with turn:` holds it."""

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[ParkingSpot] = deque()

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        spot = parking_spot()
        self._waiting.append(spot)
        try:
            await spot.wait()
        except BaseException:
            if spot in self._waiting:
                self._waiting.remove(spot)
            else:
                # Given the turn and cancelled at the same moment: it must go on to the next.
                self._give()
            raise

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._give()

    def _give(self) -> None:
        if self._waiting:
            # Stays held: it passes to the one who waits longest.
            self._waiting.popleft().wake()
        else:
            self._held = False
