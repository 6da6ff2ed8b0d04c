"""All that may travel in a channel, in order.

Records, watermarks, idleness, barriers, marks of what is traced, end of stream.

Records are not objects: a run of them is up to three parallel lists. Whoever sends a `Records`
gives its lists away; a receiver may change them in place.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

MIN_TIMESTAMP: Final = -(2**63)
"""The watermark before any record, in ms."""

MAX_TIMESTAMP: Final = 2**63 - 1
"""The watermark after the last record of a bounded input, in ms."""


class Records:
    """A run of records: values, and beside them event timestamps (ms) and keys where known.

    `timestamps` is None when no record of the run has an event time; an entry may be None.
    `keys` is None unless the run travels to a keyed operator.
    """

    __slots__ = ("keys", "timestamps", "values")

    def __init__(
        self,
        values: list[Any],
        timestamps: list[int | None] | None = None,
        keys: list[Hashable] | None = None,
    ) -> None:
        self.values = values
        self.timestamps = timestamps
        self.keys = keys

    def part(self, places: slice) -> Records:
        """Return the records in some places, in lists of their own."""
        timestamps, keys = self.timestamps, self.keys
        return Records(
            self.values[places],
            None if timestamps is None else timestamps[places],
            None if keys is None else keys[places],
        )

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Records({self.values!r}, timestamps={self.timestamps!r}, keys={self.keys!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Records):
            return NotImplemented
        mine = (self.values, self.timestamps, self.keys)
        return mine == (other.values, other.timestamps, other.keys)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Watermark:
    """No later record with an event time at or below `timestamp` (ms) is on time."""

    timestamp: int


@dataclass(frozen=True, slots=True)
class Idle:
    """The sender has nothing to say for now: leave it out of the watermark's minimum.

    Any record or watermark from the same sender makes it active again.
    """


@dataclass(frozen=True, slots=True)
class Barrier:
    """Cuts the stream: what came before belongs to the snapshot of `epoch`, what follows does not.

    After a `final` barrier nothing but `EndOfStream` follows.
    """

    epoch: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """Nothing follows from this sender."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The records that follow from this sender belong to a trace, up to the next one with None."""

    trace: object | None


Element: TypeAlias = Records | Watermark | Idle | Barrier | EndOfStream | Sampled
