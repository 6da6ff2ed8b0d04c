"""One split of a source task: how far it was read, what it knows of time."""

from __future__ import annotations

from typing import Any

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.snapshot import SplitState
from flowrt.contract.source import Split
from flowrt.contract.time import WatermarkGenerator


class SplitRun:
    """One split of this subtask. Only `Splits` says when it begins and ends."""

    __slots__ = (
        "_ended_as",
        "busy",
        "ended",
        "generator",
        "idle",
        "last_ms",
        "missing_since",
        "position",
        "records",
        "split",
    )

    def __init__(self, split: Split, generator: WatermarkGenerator | None) -> None:
        self.split = split
        self.generator = generator
        self.position: Any = None
        self.ended = False
        self.idle = False
        # Records were read and wait for the throttle or for room: not idle, however long it takes.
        self.busy = False
        self.records = 0
        self.last_ms = 0
        self.missing_since: int | None = None
        self._ended_as: SplitState | None = None

    def watermark(self) -> int:
        """Return how far its event time is."""
        return MIN_TIMESTAMP if self.generator is None else self.generator.watermark()

    def snapshot(self) -> SplitState:
        """Return the split as plain data: for one that ended the same object each time."""
        if self._ended_as is not None:
            return self._ended_as
        generator = None if self.generator is None else self.generator.snapshot()
        state = SplitState(
            self.split.id,
            self.split.data,
            self.position,
            self.ended,
            generator,
            self.records,
            self.idle,
            self.split.version,
            self.missing_since,
        )
        self._ended_as = state if self.ended else None
        return state

    def restore(self, state: SplitState) -> None:
        """Take back what `snapshot` returned."""
        self.position = state.position
        self.ended = state.ended
        self.missing_since = state.missing_since
        self.records = state.records
        self.idle = state.idle
        if self.generator is not None and state.watermark is not None:
            self.generator.restore(state.watermark)

    def miss(self, since_ms: int | None) -> None:
        """Note since when it is listed no more; None where it is listed again."""
        self.missing_since = since_ms
        self._ended_as = None

    def go_on(self, split: Split) -> None:
        """Take back that it ended: there is more, says the source."""
        self.split = split
        self.ended = False
        self.miss(None)
