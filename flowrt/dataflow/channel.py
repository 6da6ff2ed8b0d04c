"""The bounded queue between two tasks: one sender, one receiver, everything in order.

The receiver takes all there is at once, so a record moves at once when the channel is idle, and
under load runs grow by themselves: there is no timer and no batch size to set. Records sent while
the last run has not been taken join that run.
"""

from __future__ import annotations

from typing import Final

from flowrt.contract.elements import Barrier, Element, Idle, Records, Watermark
from flowrt.dataflow.parking import ParkingSpot, parking_spot

RUN_LIMIT: Final = 1024
"""Records in one run that a task sends, and that runs join up to."""


class Channel:
    """Holds fewer than `capacity` records, plus the run that reached it; control always fits.

    A run is never cut, so the bound is `capacity - 1` plus the longest run that one `send` brings.
    Between two runs of records, or barriers, there is at most one watermark and one idleness, so
    control elements are bounded by the records and the epochs that are under way.
    """

    __slots__ = (
        "_barriers",
        "_elements",
        "_joinable",
        "_receiver",
        "_room",
        "_waiting",
        "capacity",
        "size",
    )

    def __init__(self, capacity: int, receiver: ParkingSpot) -> None:
        self.capacity = capacity
        self.size = 0
        self._elements: list[Element] = []
        self._receiver = receiver
        self._room = parking_spot()
        self._waiting = False
        self._barriers = 0
        # The last element, while it is a run that more records may join.
        self._joinable: Records | None = None

    async def send(self, records: Records) -> None:
        """Give a run away; waits first while the channel is full."""
        while self.size >= self.capacity:
            self._waiting = True
            await self._room.wait()
        values, timestamps, keys = records.values, records.timestamps, records.keys
        count = len(values)
        self.size += count
        last = self._joinable
        # Written out here, for a task that sends one record at a time pays for each call.
        if (
            last is not None
            and len(last.values) + count <= RUN_LIMIT
            and (last.timestamps is None) is (timestamps is None)
            and (last.keys is None) is (keys is None)
        ):
            last.values += values
            if timestamps is not None:
                last.timestamps += timestamps  # type: ignore[operator]
            if keys is not None:
                last.keys += keys  # type: ignore[operator]
        elif count:
            self._elements.append(records)
            self._joinable = records
            self._receiver.wake()

    def send_control(self, element: Element) -> None:
        """Send a watermark, barrier, idleness or end of stream.

        Never waits: control must not be held up.
        """
        self._joinable = None
        kind = type(element)
        if kind is Watermark or kind is Idle:
            self._drop_outdated(kind)
        elif kind is Barrier:
            self._barriers += 1
        self._elements.append(element)
        self._receiver.wake()

    def take(self) -> list[Element]:
        """Return all elements, up to and including the first barrier if there is one.

        [] when empty.
        """
        elements = self._elements
        if not elements:
            return elements
        if self._barriers:
            elements = self._take_to_barrier()
        else:
            self._elements = []
            self._joinable = None
            self.size = 0
        if self._waiting and self.size < self.capacity:
            self._waiting = False
            self._room.wake()
        return elements

    def __len__(self) -> int:
        return len(self._elements)

    def _drop_outdated(self, kind: type[Element]) -> None:
        # A slow receiver collects no heap: a newer watermark says all that the one before it said,
        # and that the sender is not idle any more; once more idle says nothing new.
        elements = self._elements
        if elements and type(elements[-1]) is Idle:
            elements.pop()
        if kind is Watermark and elements and type(elements[-1]) is Watermark:
            elements.pop()

    def _take_to_barrier(self) -> list[Element]:
        cut = next(i for i, e in enumerate(self._elements) if type(e) is Barrier) + 1
        taken, self._elements = self._elements[:cut], self._elements[cut:]
        self._barriers -= 1
        self.size -= sum(len(e.values) for e in taken if type(e) is Records)
        if not self._elements:
            self._joinable = None
        return taken
