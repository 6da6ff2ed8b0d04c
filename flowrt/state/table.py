"""One value for each key, in layers, so that a freeze moves no entry.

The newest layer holds what was written since the last freeze, older ones what is being encoded, the
base (a dict for each key group) all the rest; reads ask one after the other. While a layer is
encoded its entries move down to the base, and then it is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from flowrt.contract.entries import CLEAR, PLAIN_VALUES, VALUE, WRITE, Batch, plain_part
from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import KEY_GROUPS
from flowrt.state.blocks import BATCHED_NS, BlockWriter, Stored, read_values, restore_error
from flowrt.state.classes import Unfit
from flowrt.state.key_groups import key_groups
from flowrt.state.keys import encode_key
from flowrt.state.layers import (
    Layer,
    dict_of,
    dicts_of,
    in_slices,
    is_full,
    large_layer,
    small_layer,
)
from flowrt.state.sealed import Sealed
from flowrt.state.sealer import Sealer
from flowrt.state.self_describing import encode

ROUND: Final = 32 * 1024
"""So many entries are sorted by key group before they are written, for batches of hundreds."""

SOME: Final = 1024
"""How many entries are sorted, or written as one batch, in one go."""

_SORTED_NS: Final = 250
"""What sorting an entry costs, about."""

_ABSENT: Final = object()


class ValueTable:
    """See `flowrt.contract.snapshot.Table`."""

    __slots__ = (
        "_base",
        "_frozen",
        "_newest",
        "_older",
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
        self._base = _group_dicts()

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
        return self._base[self.sealer.group(key)].get(key, MISSING)

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
            self.sealer.group(key)
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
        return self._frozen > 0

    def write_frozen(self, writer: BlockWriter) -> Iterator[int]:
        """Write what is frozen and move it to the base; yields what each step cost (ns)."""
        while self._frozen:
            yield from self._write(self._older[-1], writer)
            self._older.pop()
            self._frozen -= 1

    def load(self, block: Block) -> None:
        """Take restored entries, as not to be written again."""
        base = self._base[block.group]
        for stored in read_values(block, self.sealer.place):
            if not isinstance(stored, Stored):
                base.update(self._restored_batch(stored))
            elif stored.operation == WRITE:
                base[stored.key] = self._restored(stored.key, stored.value)
            else:
                base.pop(stored.key, None)

    def _restored_batch(self, values: Batch) -> Batch:
        if self.quick.issuperset(map(type, values.values())):
            return values
        return {key: self._restored(key, encode(value)) for key, value in values.items()}

    def _restored(self, key: Any, data: bytes) -> Any:
        try:
            return self.sealer.codec.restore(data)
        except Unfit as error:
            raise restore_error(self.sealer.place, error, key) from error

    def _write(self, layer: Layer, writer: BlockWriter) -> Iterator[int]:
        """Write a layer, and move it to the base, some dicts at a time."""
        groups = _group_dicts()
        left, sorted_ = dicts_of(layer), []
        while left:
            entries = left.pop()
            for some in self._sort(entries, groups):
                yield some * _SORTED_NS
            sorted_.append(entries)
            if not left or sum(map(len, sorted_)) >= ROUND:
                yield from self._write_groups(groups, writer)
                # Not sooner: now reads find all of these in the base.
                while sorted_:
                    sorted_.pop().clear()

    def _sort(self, entries: dict[Any, Any], groups: list[dict[Any, Any]]) -> Iterator[int]:
        """Sort entries by key group; yields after some how many they were."""
        keys, values = iter(entries), iter(entries.values())
        while some := list(islice(keys, SOME)):
            try:
                # The values come last: of them none must be taken that has no key any more.
                for group, key, stored in zip(key_groups(some), some, values, strict=False):
                    groups[group][key] = stored
            except StateError as error:
                raise self.sealer.place.error(error) from error
            yield len(some)

    def _write_groups(self, groups: list[dict[Any, Any]], writer: BlockWriter) -> Iterator[int]:
        types = self.quick & PLAIN_VALUES
        for group, entries in enumerate(groups):
            for some in in_slices(entries, SOME):
                self._base[group].update(some)
                plain = plain_part(some, types)
                if plain and writer.add_batch(group, plain):
                    yield len(plain) * BATCHED_NS
                    if plain is some:
                        continue
                    some = {key: some[key] for key in some if key not in plain}
                yield from self._write_one_by_one(group, some, writer)
            groups[group] = {}

    def _write_one_by_one(
        self, group: int, some: dict[Any, Any], writer: BlockWriter
    ) -> Iterator[int]:
        encode_value = self.sealer.codec.encode
        for key, stored in some.items():
            try:
                if stored is MISSING:
                    del self._base[group][key]
                    yield writer.add(group, CLEAR, encode_key(key))
                else:
                    yield writer.add(group, WRITE, encode_key(key), value=encode_value(stored))
            except Unfit as error:
                raise self.sealer.place.error(error, key) from error


def _group_dicts() -> list[dict[Any, Any]]:
    return [{} for _ in range(KEY_GROUPS)]
