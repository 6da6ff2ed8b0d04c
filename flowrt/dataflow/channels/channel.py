"""The bounded queue between two tasks: one sender, one receiver, everything in order.

The receiver takes all there is at once, so a record moves at once when the channel is idle, and
under load runs grow by themselves: there is no timer and no batch size to set. Records sent while
the last run has not been taken join that run.
"""

from __future__ import annotations

from collections.abc import Callable

from flowrt.contract.elements import Barrier, Element, Idle, Records, Sampled, Watermark
from flowrt.dataflow.channels.parking import ParkingSpot, parking_spot
from flowrt.dataflow.channels.run_length import RUN_LIMIT, RunLength


class Channel:
    """Holds fewer than `capacity` records, plus the run that reached it; control always fits.

    A run longer than `capacity` comes in pieces, so fewer than twice as many records wait. Between
    two runs of records, or barriers, there is at most one watermark and one idleness, so control
    elements are bounded by the records and the epochs that are under way.

    With `adapts`, the capacity is what the receiver does in some 20 ms, and at most `capacity`:
    barriers come behind what waits (Flink calls it buffer debloating, FLIP-183). Who receives says
    how long it took (see `waited_for`), and for that only looks at the clock where a sender waits.
    With `now_ns`, a clock, the channel knows how long its sender waited for room.
    """

    __slots__ = (
        "_adapting",
        "_barriers",
        "_blocked_ns",
        "_blocked_since",
        "_elements",
        "_joinable",
        "_now_ns",
        "_receiver",
        "_room",
        "_waiting",
        "capacity",
        "size",
        "waited_for",
    )

    def __init__(
        self,
        capacity: int,
        receiver: ParkingSpot,
        *,
        adapts: bool = False,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        self._adapting = RunLength(capacity) if adapts else None
        self.capacity = self._adapting.limit if self._adapting else capacity
        self.size = 0
        self.waited_for: int | None = None
        """How many records a sender waited for that were taken last; None where none waited."""
        self._elements: list[Element] = []
        self._receiver = receiver
        self._room = parking_spot()
        self._waiting = False
        self._barriers = 0
        self._now_ns = now_ns
        self._blocked_ns = 0
        self._blocked_since: int | None = None
        # The last element, while it is a run that more records may join.
        self._joinable: Records | None = None

    async def send(self, records: Records) -> None:
        """Give a run away; waits first while the channel is full."""
        if self.size >= self.capacity:
            await self._wait_for_room()
        values, timestamps, keys = records.values, records.timestamps, records.keys
        count = len(values)
        if count > self.capacity:
            await self._send_in_pieces(records)
            return
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
        elif element == Sampled(None) and self._take_mark_back():
            return
        self._elements.append(element)
        self._receiver.wake()

    def take(self) -> list[Element]:
        """Return all elements, up to and including the first barrier if there is one.

        [] when empty.
        """
        elements = self._elements
        if not elements:
            return elements
        size = self.size
        if self._barriers:
            elements = self._take_to_barrier()
        else:
            self._elements = []
            self._joinable = None
            self.size = 0
        if self._waiting and self.size < self.capacity:
            self._waiting = False
            self._room.wake()
            if self._adapting is not None:
                self.waited_for = size - self.size
        return elements

    def took(self, nanoseconds: int | None) -> None:
        """Hear how long the receiver took for what a sender waited for: the capacity follows.

        None where that says nothing about its pace.
        """
        if nanoseconds is not None and self.waited_for and self._adapting is not None:
            self._adapting.took(self.waited_for, nanoseconds)
            self.capacity = self._adapting.limit
        self.waited_for = None

    def blocked_ns(self) -> int:
        """Return how long the sender waited for room, with the wait that is under way."""
        if self._blocked_since is None or self._now_ns is None:
            return self._blocked_ns
        return self._blocked_ns + self._now_ns() - self._blocked_since

    def __len__(self) -> int:
        return len(self._elements)

    async def _wait_for_room(self) -> None:
        if self._now_ns is not None:
            self._blocked_since = self._now_ns()
        try:
            while self.size >= self.capacity:
                self._waiting = True
                await self._room.wait()
        finally:
            self._blocked_ns, self._blocked_since = self.blocked_ns(), None

    async def _send_in_pieces(self, records: Records) -> None:
        start = 0
        while start < len(records.values):
            # Read anew for each piece: the capacity may change while one waits.
            piece = slice(start, start + self.capacity)
            start = piece.stop
            await self.send(records.part(piece))

    def _drop_outdated(self, kind: type[Element]) -> None:
        # A slow receiver collects no heap: a newer watermark says all that the one before it said,
        # and that the sender is not idle any more; once more idle says nothing new.
        elements = self._elements
        if elements and type(elements[-1]) is Idle:
            elements.pop()
        if kind is Watermark and elements and type(elements[-1]) is Watermark:
            elements.pop()

    def _take_mark_back(self) -> bool:
        """Forget the beginning of a trace that no records followed; say whether it was still here.

        Traces are bounded by the records that wait, as all control is.
        """
        elements = self._elements
        at = len(elements) - 1
        while at >= 0 and type(elements[at]) in (Watermark, Idle):
            at -= 1
        if at < 0 or type(elements[at]) is not Sampled:
            return False
        behind = elements[at + 1 :]
        del elements[at:]
        for element in behind:
            self._drop_outdated(type(element))
            elements.append(element)
        return True

    def _take_to_barrier(self) -> list[Element]:
        cut = next(i for i, e in enumerate(self._elements) if type(e) is Barrier) + 1
        taken, self._elements = self._elements[:cut], self._elements[cut:]
        self._barriers -= 1
        self.size -= sum(len(e.values) for e in taken if type(e) is Records)
        if not self._elements:
            self._joinable = None
        return taken
