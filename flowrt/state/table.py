"""One value for each key, in layers, so that a freeze moves no entry.

The newest layer holds what was written since the last freeze, older ones what is being encoded, the
base all the rest; reads ask one after the other. While a layer is encoded its entries move down to
the base, and then it is gone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, Final

from flowrt.contract.entries import CLEAR, PLAIN_VALUES, VALUE, WRITE, Batch, are_plain, is_plain
from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import KEY_GROUPS
from flowrt.state.blocks import BATCHED_NS, BlockWriter, Stored, read_values, restore_error
from flowrt.state.classes import Unfit
from flowrt.state.key_groups import key_groups
from flowrt.state.keys import encode_key
from flowrt.state.layers import (
    PLACES,
    Layer,
    dict_of,
    dicts_of,
    is_full,
    large_layer,
    small_layer,
)
from flowrt.state.sealed import Sealed
from flowrt.state.sealer import Sealer
from flowrt.state.self_describing import encode

ROUND: Final = 128 * 1024
"""About so many entries are sorted by key group before they are written: the larger the batches,
the quicker are they merged later."""

SOME: Final = 1024
"""How many entries are sorted in one go, and how many values a batch has at most."""

_SORTED_NS: Final = 300
"""What sorting an entry and moving it to the base costs, about."""

_CLEARED_NS: Final = 100_000
"""What letting a dict go costs, about."""

_ABSENT: Final = object()


class ValueTable:
    """See `flowrt.contract.snapshot.Table`."""

    __slots__ = (
        "_base",
        "_frozen",
        "_newest",
        "_older",
        "is_whole",
        "quick",
        "scalar",
        "seal",
        "sealer",
        "unseal",
    )

    kind = VALUE

    def __init__(self, sealer: Sealer) -> None:
        self.scalar = sealer.codec.scalar
        self.quick = sealer.codec.quick
        self.sealer = sealer
        self.seal = sealer.seal
        self.unseal = sealer.unseal
        self._newest = small_layer()
        # From newer to older; the last `_frozen` of them are being encoded, the oldest first.
        self._older: list[Layer] = []
        self._frozen = 0
        self._base = large_layer()
        self.is_whole = False

    def writable(self) -> Layer:
        """See `Table.writable`."""
        if is_full(self._newest):
            self._older.insert(0, self._newest)
            self._newest = large_layer()
        return self._newest

    def cold(self, key: Any) -> Any:
        """See `Table.cold`."""
        for layer in self._older:
            # As `dict_of` does: each key that is written comes here once an epoch.
            entries = layer[0] if len(layer) == 1 else layer[hash(key) % len(layer)]
            if key in entries:
                return entries[key]
        entries = self._base[hash(key) % PLACES]
        if key in entries:
            return entries[key]
        self.sealer.group(key)  # raises for a key that cannot be stored
        return MISSING

    def get(self, key: Any) -> Any:
        """See `Table.get`."""
        stored = dict_of(self._newest, key).get(key, _ABSENT)
        if stored is _ABSENT:
            stored = self.cold(key)
        return self.unseal(stored) if type(stored) is Sealed else stored

    def put(self, key: Any, value: Any) -> None:
        """See `Table.put`; `StateError` for a key that cannot be stored."""
        entries = dict_of(self._newest, key)
        if key not in entries:
            self.cold(key)
            entries = dict_of(self.writable(), key)
        entries[key] = self.seal(key, value)

    def delete(self, key: Any) -> None:
        """See `Table.delete`."""
        entries = dict_of(self._newest, key)
        if self.cold(key) is MISSING:
            # No snapshot, and none under way, has the key: there is nothing to take back.
            entries.pop(key, None)
        else:
            entries[key] = MISSING

    def items(self) -> Iterator[tuple[Any, Any]]:
        """See `Table.items`."""
        entries: dict[Any, Any] = {}
        for layer in (self._base, *reversed(self._older), self._newest):
            for part in dicts_of(layer):
                entries.update(part)
        stored = entries.items()
        return ((key, self.unseal(value)) for key, value in stored if value is not MISSING)

    def key_lists(self) -> Iterator[list[Any]]:
        """Iterate over all keys, a list at a time; entries may be written and moved meanwhile.

        A key that is there all the time comes exactly once: entries move to the base, which comes
        last, and once there they stay. Some of the keys given may have no value any more.
        """
        given: set[Any] = set()
        for layer in [self._newest, *self._older]:
            for entries in dicts_of(layer):
                for some in _some(entries):
                    new = [key for key in some if key not in given]
                    given.update(new)
                    yield new
        for entries in dicts_of(self._base):
            for some in _some(entries):
                yield [key for key in some if key not in given]

    def size(self) -> int:
        """Return how many entries there are; keys in two layers count twice."""
        layers = (self._newest, *self._older, self._base)
        return sum(len(part) for layer in layers for part in dicts_of(layer))

    def freeze(self) -> bool:
        """Cut; say whether there is anything to write."""
        if any(self._newest):
            self._older.insert(0, self._newest)
            self._newest = small_layer()
        self._frozen = len(self._older)
        self.is_whole = not self._frozen and not any(self._base)
        return self._frozen > 0

    def write_frozen(self, writer: BlockWriter) -> Iterator[int]:
        """Write what is frozen and move it to the base; yields what each step cost (ns)."""
        written = 0
        while self._frozen:
            written = yield from self._write(self._older[-1], writer)
            self._older.pop()
            self._frozen -= 1
        # Where the newest layer has every key, what was written before is not needed any more.
        self.is_whole = written == sum(map(len, dicts_of(self._base)))

    def rewrite(self) -> None:
        """Let the next snapshot have all entries, as if each were written now."""
        layer = large_layer()
        for older in (self._base, *reversed(self._older)):
            for entries in dicts_of(older):
                for key, stored in entries.items():
                    place = layer[hash(key) % PLACES]
                    if stored is MISSING:
                        place.pop(key, None)
                    else:
                        place[key] = stored
        self._older.insert(0, layer)

    def load(self, block: Block) -> None:
        """Take restored entries, as not to be written again."""
        base = self._base
        for stored in read_values(block, self.sealer.place):
            if not isinstance(stored, Stored):
                for key, value in self._restored_batch(stored).items():
                    base[hash(key) % PLACES][key] = value
            elif stored.operation == WRITE:
                value = self._restored(stored.key, stored.value)
                base[hash(stored.key) % PLACES][stored.key] = value
            else:
                base[hash(stored.key) % PLACES].pop(stored.key, None)

    def _restored_batch(self, values: Batch) -> Batch:
        if self.quick.issuperset(map(type, values.values())):
            return values
        return {key: self._restored(key, encode(value)) for key, value in values.items()}

    def _restored(self, key: Any, data: bytes) -> Any:
        try:
            return self.sealer.restore(data)
        except Unfit as error:
            raise restore_error(self.sealer.place, error, key) from error

    def _write(self, layer: Layer, writer: BlockWriter) -> Generator[int, None, int]:
        """Write a layer, and move it to the base; returns how many keys have a value in it."""
        batches: list[list[Any]] = [[] for _ in range(KEY_GROUPS)]
        parts = dicts_of(layer)
        waiting = deleted = 0
        for entries in parts:
            keys, values = iter(entries), iter(entries.values())
            while some := list(islice(keys, SOME)):
                deleted += yield from self._sort(some, list(islice(values, SOME)), batches, writer)
            waiting += len(entries)
            if waiting >= ROUND:
                waiting = 0
                yield from self._write_batches(batches, writer)
        yield from self._write_batches(batches, writer)
        written = sum(map(len, parts)) - deleted
        # Not sooner: now reads find all of these in the base.
        while parts:
            parts.pop().clear()
            yield _CLEARED_NS
        return written

    def _sort(
        self, keys: list[Any], values: list[Any], batches: list[list[Any]], writer: BlockWriter
    ) -> Generator[int, None, int]:
        """Move entries to the base, and plain ones to the batch of their key group; write others.

        In the order in which they were made, for so they are neighbours in memory: moving them key
        group by key group takes four times as long. Returns how many were deletions.
        """
        base, types = self._base, self.quick & PLAIN_VALUES
        deleted = 0
        if not are_plain(keys, values, types):
            entries = list(zip(keys, values, strict=True))
            others = [entry for entry in entries if not is_plain(*entry, types)]
            deleted = yield from self._write_others(others, writer)
            plain = [entry for entry in entries if is_plain(*entry, types)]
            keys, values = [key for key, _ in plain], [value for _, value in plain]
        for group, key, stored in zip(self._groups(keys), keys, values, strict=True):
            base[hash(key) % PLACES][key] = stored
            batch = batches[group]
            batch.append(key)
            batch.append(stored)
        yield len(keys) * _SORTED_NS
        return deleted

    def _write_others(
        self, entries: list[tuple[Any, Any]], writer: BlockWriter
    ) -> Generator[int, None, int]:
        """Write what no batch may hold, and move it to the base; returns how many deletions."""
        deleted = 0
        groups = self._groups([key for key, _ in entries])
        for group, (key, stored) in zip(groups, entries, strict=True):
            base = self._base[hash(key) % PLACES]
            if stored is MISSING:
                del base[key]
                deleted += 1
            else:
                base[key] = stored
            yield self._write_one(group, key, stored, writer)
        return deleted

    def _groups(self, keys: list[Any]) -> list[int]:
        try:
            return key_groups(keys)
        except StateError as error:
            raise self.sealer.place.error(error) from error

    def _write_batches(self, batches: list[list[Any]], writer: BlockWriter) -> Iterator[int]:
        for group, entries in enumerate(batches):
            for start in range(0, len(entries), 2 * SOME):
                some = entries[start : start + 2 * SOME]
                if not writer.add_batch(group, some):
                    for key, value in zip(some[::2], some[1::2], strict=True):
                        yield self._write_one(group, key, value, writer)
                yield len(some) * BATCHED_NS
            entries.clear()

    def _write_one(self, group: int, key: Any, stored: Any, writer: BlockWriter) -> int:
        try:
            if stored is MISSING:
                return writer.add(group, CLEAR, encode_key(key))
            return writer.add(group, WRITE, encode_key(key), value=self.sealer.codec.encode(stored))
        except Unfit as error:
            raise self.sealer.place.error(error, key) from error


def _some(entries: dict[Any, Any]) -> Iterator[list[Any]]:
    """Iterate over the keys that a dict has now, some at a time."""
    keys = iter(list(entries))
    while some := list(islice(keys, SOME)):
        yield some
