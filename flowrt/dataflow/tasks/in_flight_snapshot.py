"""Records in flight as part of a snapshot, and who takes them over."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final

import msgspec

from flowrt.contract.elements import Idle, Records, Watermark
from flowrt.contract.snapshot import ValueCodec
from flowrt.contract.state import owner_of_group
from flowrt.dataflow.tasks.in_flight import NO_KEY, Call, InFlight

_DATA: Final = "in_flight"
"""Under this name a snapshot has them."""


class SnapshotForm:
    """Between records in flight and plain data.

    Entries are records as [bytes, time, key group], and watermarks as numbers. Idleness is left
    out: after a restore whoever is idle says so again.
    """

    def __init__(self, codec: ValueCodec, key_group: Callable[[Hashable], int]) -> None:
        self._codec = codec
        self._key_group = key_group
        self._types: set[type] = set()

    def try_out(self, values: list[Any]) -> None:
        """Encode a value of each new type: `StateError` now, not at some barrier in the night."""
        if self._types.issuperset(map(type, values)):
            return
        for value in values:
            if type(value) not in self._types:
                self._codec.encode(value)
                self._types.add(type(value))

    def snapshot(self, in_flight: InFlight) -> Any:
        """Return what is in flight as plain data; None where nothing is."""
        entries = in_flight.entries()
        kept = [self._entry(one) for one in entries if not isinstance(one, Idle)]
        # One text of bytes: a manifest encodes it as quickly as it can be read.
        return {_DATA: msgspec.msgpack.encode(kept)} if kept else None

    def restore(self, in_flight: InFlight, entries: Iterable[Any]) -> None:
        """Take entries in."""
        for entry in entries:
            if isinstance(entry, int):
                in_flight.mark(Watermark(entry))
            else:
                data, timestamp, _ = entry
                (call,) = in_flight.add(Records([self._codec.decode(data)], [timestamp]))
                call.entry = entry

    def _entry(self, one: Call | Watermark) -> Any:
        if isinstance(one, Watermark):
            return one.timestamp
        if one.entry is None:
            # Kept: a call that hangs through many epochs is encoded for the first only.
            group = None if one.key is NO_KEY else self._key_group(one.key)
            one.entry = [self._codec.encode(one.value), one.timestamp, group]
        return one.entry


def holds_calls(data: Any) -> bool:
    """Say whether a step left records in flight in its part of a snapshot."""
    return isinstance(data, dict) and data.keys() == {_DATA}


def share_of(parts: Sequence[Any], subtask: int, parallelism: int) -> list[Any]:
    """Return the entries that one subtask takes over from its former siblings, in order.

    At the same parallelism its own. Otherwise the records of its keys, of those without keys every
    n-th, and no watermarks: whoever sends tells its watermark again after a restart.
    """
    lists: list[list[Any]] = [
        msgspec.msgpack.decode(part[_DATA]) if holds_calls(part) else [] for part in parts
    ]
    if len(lists) == parallelism:
        return lists[subtask]
    records = [entry for entries in lists for entry in entries if not isinstance(entry, int)]
    return [
        entry
        for number, entry in enumerate(records)
        if subtask == (number % parallelism if entry[2] is None else _owner(entry, parallelism))
    ]


def _owner(entry: Any, parallelism: int) -> int:
    return owner_of_group(entry[2], parallelism)
