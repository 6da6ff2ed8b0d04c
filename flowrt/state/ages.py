"""When entries of a state with a time to live expire, and finding those that did without a search.

Each entry is noted once, in the bucket of the time at which it would expire. A write changes the
entry's own time and leaves it in its bucket: when that is due, the entry is looked at, and noted
again if it lives on. So a write costs no search, and an entry is looked at once a time to live.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

from sortedcontainers import SortedDict

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.contract.state import Ttl
from flowrt.contract.world import World
from flowrt.state.blocks import Place
from flowrt.state.codec import Codec
from flowrt.state.sealed import Sealed

BUCKETS: Final = 64
"""An entry is given back at the latest after this part of its time to live more."""

AT_ONCE: Final = 256
"""How many entries are looked at without a pause."""


class HasTime(Protocol):
    """Where a state with a time to live finds the time: what handles get as their scope."""

    timestamp: int | None
    watermark: int
    world: World


class Timed(NamedTuple):
    """A stored form with the time (ms) from which its life counts."""

    at: int
    stored: Any


class Ages:
    """The times of one state: the present is what `now` gives, in event time the watermark.

    `timestamp` gives the event time of the current record, where that is what counts.
    """

    def __init__(
        self,
        ttl: Ttl,
        place: Place,
        now: Callable[[], int],
        timestamp: Callable[[], int | None] | None = None,
    ) -> None:
        self.refreshes = ttl.refresh == "read"
        self.is_processing = ttl.time == "processing"
        self._place = place
        self._read_now = now
        self._timestamp = timestamp or (lambda: None)
        self._ttl_ms = ttl.ms
        self._width = max(1, ttl.ms // BUCKETS)
        self._latest = MIN_TIMESTAMP
        self._buckets: SortedDict[int, dict[Hashable, None]] = SortedDict()

    def now(self) -> int:
        """Return the present (ms), which never goes back; the end of the input is none."""
        now = self._read_now()
        if self._latest < now < MAX_TIMESTAMP:
            self._latest = now
        return self._latest

    def written(self) -> int:
        """Return the time (ms) of what is written now; `StateError` where nobody knows it.

        What comes late counts as written when the watermark is: it has its whole life before it.
        """
        timestamp = self._timestamp()
        at = self.now() if timestamp is None else max(timestamp, self.now())
        if at == MIN_TIMESTAMP:
            raise self._place.error(
                "its ttl counts event time, and the record has none: give the source watermarks, "
                'or declare Ttl(..., time="processing")'
            )
        return at

    def is_live(self, timed: Timed) -> bool:
        """Say whether an entry may be seen."""
        return timed.at + self._ttl_ms > self.now()

    def note(self, at: int, what: Hashable) -> None:
        """Look at an entry when it would expire, counted from `at` (ms)."""
        bucket = -(-(at + self._ttl_ms) // self._width)
        self._buckets.setdefault(bucket, {})[what] = None

    def due(self) -> Iterator[Hashable]:
        """Take what is to be looked at now; once event time is over, all that may have expired."""
        last = self.now() // self._width
        if not self.is_processing and self._read_now() == MAX_TIMESTAMP:
            # What a later life restores may begin without a watermark: nothing expired goes there.
            last += 1
        taken = []
        while self._buckets and self._buckets.peekitem(0)[0] <= last:
            taken.append(self._buckets.popitem(0)[1])
        for entries in taken:
            yield from entries

    def next_ms(self) -> int | None:
        """Return when something is due by the clock (ms); None for never, and in event time."""
        if not (self.is_processing and self._buckets):
            return None
        first: int = self._buckets.peekitem(0)[0]
        return first * self._width


def ages_of(ttl: Ttl, place: Place, scope: HasTime) -> Ages:
    """Return the ages of a state of the operator that `scope` stands for."""
    if ttl.time == "processing":
        return Ages(ttl, place, scope.world.clock.now_ms)
    return Ages(ttl, place, lambda: scope.watermark, lambda: scope.timestamp)


# ------------------------------------------------------------------------------------ in bytes

_MARK: Final = b"\xd7\x20"
"""Begins an entry with a time: an extension of msgpack that no value of ours begins with."""

_HEAD: Final = Struct(">2sq")


def without_time(data: bytes) -> bytes:
    """Return an entry's bytes without the time, where there is one."""
    return data[_HEAD.size :] if data[:2] == _MARK else data


def split_time(data: bytes) -> tuple[bytes, bytes]:
    """Return the time in an entry's bytes, as bytes (none: empty), and the rest."""
    size = _HEAD.size if data[:2] == _MARK else 0
    return data[:size], data[size:]


class TimedCodec:
    """The `Codec` of a state with a time to live: its values are `Timed` ones.

    What was written without a time begins its life when it is restored.
    """

    scalar = None
    quick: frozenset[type] = frozenset()

    def __init__(self, inner: Codec, ages: Ages) -> None:
        self.inner = inner
        self._ages = ages

    def seal(self, value: Timed) -> Any:
        """See `Codec.seal`; what is sealed already stays as it is."""
        stored = value.stored
        return value if type(stored) is Sealed else Timed(value.at, self.inner.seal(stored))

    def unseal(self, stored: Any) -> Any:
        """See `Codec.unseal`."""
        return stored

    def encode(self, stored: Timed) -> bytes:
        """See `Codec.encode`."""
        return _HEAD.pack(_MARK, stored.at) + self.inner.encode(stored.stored)

    def restore(self, data: bytes) -> Any:
        """See `Codec.restore`."""
        if data[:2] == _MARK:
            return Timed(_HEAD.unpack_from(data)[1], self.inner.restore(data[_HEAD.size :]))
        return Timed(self._ages.now(), self.inner.restore(data))
