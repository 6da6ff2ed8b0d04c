"""One value for each key, in three layers, so that a freeze is two assignments.

`delta` holds what was written since the last freeze, `frozen` what is being encoded, `base` the
rest. While `frozen` is encoded its entries move down to `base`, a slice at a time, and reads look
into all three. `base` is a dict for each key group: none is so large that its growing is felt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowrt.contract.entries import CLEAR, VALUE, WRITE
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import KEY_GROUPS
from flowrt.state.blocks import BlockWriter, read_block, restore_error
from flowrt.state.classes import Unfit
from flowrt.state.keys import encode_key
from flowrt.state.sealed import Sealed
from flowrt.state.sealer import Sealer


class ValueTable:
    """See `flowrt.contract.snapshot.Table`. A deleted key is MISSING in `delta` and `frozen`."""

    __slots__ = ("_base", "_frozen", "delta", "quick", "scalar", "seal", "sealer", "unseal")

    kind = VALUE

    def __init__(self, sealer: Sealer) -> None:
        self.delta: dict[Any, Any] = {}
        self.scalar = sealer.codec.scalar
        self.quick = sealer.codec.quick
        self.sealer = sealer
        self.seal = sealer.seal
        self.unseal = sealer.unseal
        self._frozen: dict[Any, Any] = {}
        self._base: list[dict[Any, Any]] = [{} for _ in range(KEY_GROUPS)]

    def cold(self, key: Any) -> Any:
        """See `Table.cold`; MISSING too for a key that `delta` holds as deleted."""
        return MISSING if key in self.delta else self._below(key)

    def get(self, key: Any) -> Any:
        """See `Table.get`."""
        stored = self.delta.get(key, MISSING)
        if stored is MISSING:
            stored = self.cold(key)
        return self.unseal(stored) if type(stored) is Sealed else stored

    def put(self, key: Any, value: Any) -> None:
        """See `Table.put`; `StateError` for a key that cannot be stored."""
        if key not in self.delta:
            self.sealer.group(key)
        self.delta[key] = self.seal(key, value)

    def delete(self, key: Any) -> None:
        """See `Table.delete`."""
        if self._below(key) is MISSING:
            # No snapshot, and none under way, has the key: there is nothing to take back.
            self.delta.pop(key, None)
        else:
            self.delta[key] = MISSING

    def items(self) -> Iterator[tuple[Any, Any]]:
        """See `Table.items`."""
        entries: dict[Any, Any] = {}
        for group in self._base:
            entries.update(group)
        entries.update(self._frozen)
        entries.update(self.delta)
        stored = entries.items()
        return ((key, self.unseal(value)) for key, value in stored if value is not MISSING)

    def size(self) -> int:
        """Return how many entries there are; keys in two layers count twice."""
        return sum(map(len, self._base)) + len(self._frozen) + len(self.delta)

    def freeze(self) -> bool:
        """Cut; say whether there is anything to write."""
        if not self.delta:
            return False
        self._frozen = self.delta
        self.delta = {}
        return True

    def write_frozen(self, writer: BlockWriter) -> Iterator[int]:
        """Write what is frozen and move it to the base; yields the size of each entry (bytes)."""
        frozen, base, encode = self._frozen, self._base, self.sealer.codec.encode
        while frozen:
            # From the end, for taking entries out one by one leaves no large dict to free at once.
            key, stored = frozen.popitem()
            try:
                group = self.sealer.group(key)
                if stored is MISSING:
                    base[group].pop(key, None)
                    yield writer.add(group, CLEAR, encode_key(key))
                else:
                    base[group][key] = stored
                    yield writer.add(group, WRITE, encode_key(key), value=encode(stored))
            except Unfit as error:
                raise self.sealer.place.error(error, key) from error
        self._frozen = {}

    def load(self, block: Block) -> None:
        """Take restored entries, as not to be written again."""
        base, restore = self._base[block.group], self.sealer.codec.restore
        for operation, key, _, value in read_block(block, self.sealer.place, VALUE):
            if operation == WRITE:
                try:
                    base[key] = restore(value)
                except Unfit as error:
                    raise restore_error(self.sealer.place, error, key) from error
            else:
                base.pop(key, None)

    def _below(self, key: Any) -> Any:
        stored = self._frozen.get(key, self)
        return self._base[self.sealer.group(key)].get(key, MISSING) if stored is self else stored
