"""What arrives at a task: the channels, the alignment of barriers, the minimum of watermarks.

`Alignment` and `WatermarkMinimum` decide without waiting; `Inputs` joins them with the channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowrt.contract.elements import MIN_TIMESTAMP, Element
from flowrt.dataflow.channels.channel import Channel


class Alignment:
    """Which inputs delivered the barrier of the epoch under way (Chandy-Lamport, as in Flink).

    With `blocking`, an input that delivered it must not be read until all have: exactly once.
    Without it, what follows the barrier on a fast input is also in the snapshot: at least once.
    """

    def __init__(self, inputs: int, *, blocking: bool) -> None:
        self._inputs = inputs
        self._blocking = blocking
        self._delivered: set[int] = set()
        self.epoch: int | None = None

    def deliver(self, index: int, epoch: int) -> bool:
        """Take a barrier from an input; say whether the epoch's barrier is now complete."""
        if self.epoch is None:
            self.epoch = epoch
        if self.epoch != epoch or index in self._delivered:
            raise AssertionError(f"barrier {epoch} from input {index} while aligning {self.epoch}")
        self._delivered.add(index)
        if len(self._delivered) < self._inputs:
            return False
        self._delivered.clear()
        self.epoch = None
        return True

    def blocked(self, index: int) -> bool:
        """Say whether an input must not be read now."""
        return self._blocking and index in self._delivered


class WatermarkMinimum:
    """The watermark of several inputs: the smallest of those not idle; it never goes back.

    When all are idle none holds the others up any more: it is the largest.
    """

    def __init__(self, inputs: int, current: int = MIN_TIMESTAMP) -> None:
        self._watermarks = [MIN_TIMESTAMP] * inputs
        self._idle = [False] * inputs
        self.current = current
        self.idle = False

    def advance(self, index: int, watermark: int) -> int | None:
        """Take an input's watermark; return what to send on, if anything.

        That is the minimum if it grew, or as it was if all inputs were idle: whoever heard of it
        must hear that this is over.
        """
        woken = self.wake(index)
        self._watermarks[index] = max(watermark, self._watermarks[index])
        return self.current if self._grow() or woken else None

    def wake(self, index: int) -> bool:
        """Take note that an input is not idle; say whether all were."""
        woken, self.idle = self.idle, False
        self._idle[index] = False
        return woken

    def rest(self, index: int) -> int | None:
        """Leave an idle input out; return the new minimum if it grew, else None."""
        self._idle[index] = True
        self.idle = all(self._idle)
        return self.current if self._grow() else None

    def _grow(self) -> bool:
        if self.idle:
            smallest = max(self._watermarks)
        else:
            watermarks = zip(self._watermarks, self._idle, strict=True)
            smallest = min(watermark for watermark, idle in watermarks if not idle)
        if smallest <= self.current:
            return False
        self.current = smallest
        return True


class LeftWatermark(WatermarkMinimum):
    """The watermark of the first `left` inputs: a broadcast one has no say in event time.

    Rules have no event time, or one of their own that ends long before that of what they rule.
    """

    def __init__(self, left: int, current: int = MIN_TIMESTAMP) -> None:
        super().__init__(left, current)
        self._left = left

    def advance(self, index: int, watermark: int) -> int | None:
        """See `WatermarkMinimum.advance`."""
        return super().advance(index, watermark) if index < self._left else None

    def wake(self, index: int) -> bool:
        """See `WatermarkMinimum.wake`."""
        return super().wake(index) if index < self._left else False

    def rest(self, index: int) -> int | None:
        """See `WatermarkMinimum.rest`."""
        return super().rest(index) if index < self._left else None


class Inputs:
    """The channels that a task reads, and what their control elements add up to."""

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        blocking: bool,
        watermark: int = MIN_TIMESTAMP,
        timed: int | None = None,
    ) -> None:
        """`timed`: only so many, the first, have a say in event time; None for all."""
        self.channels = channels
        self.alignment = Alignment(len(channels), blocking=blocking)
        self.watermarks = WatermarkMinimum(len(channels), watermark)
        if timed is not None:
            self.watermarks = LeftWatermark(timed, watermark)
        self._open = len(channels)

    def take(self) -> list[tuple[int, list[Element]]]:
        """Return what the channels that may be read hold, by channel; [] when all are empty."""
        blocked = self.alignment.blocked
        return [
            (index, channel.take())
            for index, channel in enumerate(self.channels)
            if channel and not blocked(index)
        ]

    def end(self) -> bool:
        """Take the end of one input; say whether it was the last."""
        self._open -= 1
        return self._open == 0
