"""Maps and lists for each key: one dict with what is live, one with what changed since a freeze.

A change of one entry writes that entry only to the next snapshot. What was both added and removed
since the last freeze writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from flowrt.contract.entries import CLEAR, DROP, LIST, MAP, WRITE
from flowrt.contract.snapshot import Block
from flowrt.state.blocks import BlockWriter, read_block, restore_error
from flowrt.state.classes import Unfit
from flowrt.state.keys import EXACT, encode_key
from flowrt.state.sealer import Sealer


class MapChange:
    """What happened to the map of one key: first cleared, then dropped, rewritten and added.

    `rewritten` names keep their place in the order, `added` ones stand behind; both hold what is
    stored.
    """

    __slots__ = ("added", "cleared", "dropped", "rewritten")

    def __init__(self) -> None:
        self.cleared = False
        self.dropped: dict[Any, None] = {}
        self.rewritten: dict[Any, Any] = {}
        self.added: dict[Any, Any] = {}

    def is_nothing(self) -> bool:
        """Say whether there is nothing to write."""
        return not (self.cleared or self.dropped or self.rewritten or self.added)


class MapTable:
    """A dict for each key."""

    __slots__ = ("_changes", "_frozen", "_live", "sealer")

    kind = MAP
    is_whole = False
    """What is written is ever a part: whether it is all there is would cost a count."""

    def __init__(self, sealer: Sealer) -> None:
        self.sealer = sealer
        self._live: dict[Any, dict[Any, Any]] = {}
        self._changes: dict[Any, MapChange] = {}
        self._frozen: dict[Any, MapChange] = {}

    def entries(self, key: Any) -> Mapping[Any, Any]:
        """Return the names and stored values of a key, in order of insertion; not to be changed."""
        return self._live.get(key, _EMPTY)

    def put(self, key: Any, name: Any, value: Any) -> None:
        """Store an entry."""
        stored = self.sealer.seal(key, value)
        entries = self._live.get(key)
        is_new = entries is None or name not in entries
        if is_new:
            self._check_name(key, name)
        if entries is None:
            self.sealer.group(key)
            entries = self._live[key] = {}
        change = self._changes.get(key)
        if change is None:
            change = self._changes[key] = MapChange()
        entries[name] = stored
        if is_new or name in change.added:
            change.added[name] = stored
        else:
            change.rewritten[name] = stored

    def remove(self, key: Any, name: Any) -> None:
        """Forget an entry, if there is one."""
        entries = self._live.get(key)
        if entries is None or name not in entries:
            return
        del entries[name]
        if not entries:
            del self._live[key]
        change = self._changes.get(key)
        if change is None:
            change = self._changes[key] = MapChange()
        if name in change.added:
            del change.added[name]
        else:
            change.rewritten.pop(name, None)
            change.dropped[name] = None
        if change.is_nothing():
            del self._changes[key]

    def clear(self, key: Any) -> None:
        """Forget all entries of a key."""
        entries = self._live.pop(key, None)
        change = self._changes.pop(key, None)
        known = len(entries or ()) - len(change.added if change else ())
        if known or (change and (change.cleared or change.dropped)):
            change = self._changes[key] = MapChange()
            change.cleared = True

    def all_entries(self) -> Iterator[tuple[Any, Any, Any]]:
        """Iterate over (key, name, value), all keys; nothing may be written meanwhile."""
        unseal = self.sealer.unseal
        for key, entries in self._live.items():
            for name, stored in entries.items():
                yield key, name, unseal(stored)

    def key_lists(self) -> Iterator[list[Any]]:
        """See `ValueTable.key_lists`."""
        yield list(self._live)

    def size(self) -> int:
        """Return how many entries there are; costs a look at each key."""
        return sum(map(len, self._live.values()))

    def freeze(self) -> bool:
        """Cut; say whether there is anything to write."""
        if not self._changes:
            return False
        self._frozen = self._changes
        self._changes = {}
        return True

    def write_frozen(self, writer: BlockWriter) -> Iterator[int]:
        """Write what is frozen; yields what each entry cost (ns)."""
        encode = self.sealer.codec.encode
        while self._frozen:
            key, change = self._frozen.popitem()
            try:
                group, key_data = self.sealer.group(key), encode_key(key)
                if change.cleared:
                    yield writer.add(group, CLEAR, key_data)
                for name in change.dropped:
                    yield writer.add(group, DROP, key_data, encode_key(name))
                for written in (change.rewritten, change.added):
                    for name, stored in written.items():
                        yield writer.add(group, WRITE, key_data, encode_key(name), encode(stored))
                    yield from _dismantle(written)
            except Unfit as error:
                raise self.sealer.place.error(error, key) from error
        self._frozen = {}

    def rewrite(self) -> None:
        """See `ValueTable.rewrite`."""
        for key, entries in self._live.items():
            change = self._changes[key] = MapChange()
            change.cleared = True
            change.added = dict(entries)

    def load(self, block: Block) -> None:
        """Take restored entries, as not to be written again."""
        live, place, restore = self._live, self.sealer.place, self.sealer.restore
        for operation, key, name, value in read_block(block, place, MAP):
            if operation == WRITE:
                try:
                    live.setdefault(key, {})[name] = restore(value)
                except Unfit as error:
                    raise restore_error(place, error, key) from error
            elif operation == CLEAR:
                live.pop(key, None)
            elif (entries := live.get(key)) is not None:
                entries.pop(name, None)
                if not entries:
                    del live[key]

    def _check_name(self, key: Any, name: Any) -> None:
        if type(name) not in EXACT:
            try:
                encode_key(name)
            except Unfit as error:
                raise self.sealer.place.error(error, key) from error


class ListChange:
    """What happened to the list of one key: first cleared, then extended by stored values."""

    __slots__ = ("appended", "cleared")

    def __init__(self) -> None:
        self.cleared = False
        self.appended: list[Any] = []


class ListTable:
    """A list for each key."""

    __slots__ = ("_changes", "_frozen", "_live", "sealer")

    kind = LIST
    is_whole = False
    """As with `MapTable`."""

    def __init__(self, sealer: Sealer) -> None:
        self.sealer = sealer
        self._live: dict[Any, list[Any]] = {}
        self._changes: dict[Any, ListChange] = {}
        self._frozen: dict[Any, ListChange] = {}

    def elements(self, key: Any) -> Sequence[Any]:
        """Return the stored values of a key, oldest first; not to be changed."""
        return self._live.get(key, ())

    def extend(self, key: Any, values: Iterable[Any]) -> None:
        """Append values: all of them, or none where one cannot be stored."""
        self._append(key, self._sealed(key, values))

    def replace(self, key: Any, values: Iterable[Any]) -> None:
        """Put values in place of those that were there: all of them, or none."""
        stored = self._sealed(key, values)
        self.clear(key)
        self._append(key, stored)

    def clear(self, key: Any) -> None:
        """Forget a key's values."""
        elements = self._live.pop(key, None)
        change = self._changes.pop(key, None)
        known = len(elements or ()) - len(change.appended if change else ())
        if known or (change and change.cleared):
            change = self._changes[key] = ListChange()
            change.cleared = True

    def key_lists(self) -> Iterator[list[Any]]:
        """See `ValueTable.key_lists`."""
        yield list(self._live)

    def size(self) -> int:
        """Return how many elements there are; costs a look at each key."""
        return sum(map(len, self._live.values()))

    def freeze(self) -> bool:
        """Cut; say whether there is anything to write."""
        if not self._changes:
            return False
        self._frozen = self._changes
        self._changes = {}
        return True

    def write_frozen(self, writer: BlockWriter) -> Iterator[int]:
        """Write what is frozen; yields what each entry cost (ns)."""
        encode = self.sealer.codec.encode
        while self._frozen:
            key, change = self._frozen.popitem()
            try:
                group, key_data = self.sealer.group(key), encode_key(key)
                if change.cleared:
                    yield writer.add(group, CLEAR, key_data)
                elements = change.appended
                elements.reverse()
                while elements:
                    yield writer.add(group, WRITE, key_data, value=encode(elements.pop()))
            except Unfit as error:
                raise self.sealer.place.error(error, key) from error
        self._frozen = {}

    def rewrite(self) -> None:
        """See `ValueTable.rewrite`."""
        for key, elements in self._live.items():
            change = self._changes[key] = ListChange()
            change.cleared = True
            change.appended = list(elements)

    def load(self, block: Block) -> None:
        """Take restored elements, as not to be written again."""
        live, place, restore = self._live, self.sealer.place, self.sealer.restore
        for operation, key, _, value in read_block(block, place, LIST):
            if operation == WRITE:
                try:
                    live.setdefault(key, []).append(restore(value))
                except Unfit as error:
                    raise restore_error(place, error, key) from error
            else:
                live.pop(key, None)

    def _sealed(self, key: Any, values: Iterable[Any]) -> list[Any]:
        seal = self.sealer.seal
        return [seal(key, value) for value in values]

    def _append(self, key: Any, stored: list[Any]) -> None:
        if not stored:
            return
        elements = self._live.get(key)
        if elements is None:
            self.sealer.group(key)
            elements = self._live[key] = []
        change = self._changes.get(key)
        if change is None:
            change = self._changes[key] = ListChange()
        elements += stored
        change.appended += stored


_EMPTY: Final[Mapping[Any, Any]] = {}
_FREED_AT_ONCE: Final = 1_000
_FREED_NS: Final = 100


def _dismantle(entries: dict[Any, Any]) -> Iterator[int]:
    """Take a large dict apart bit by bit: freed at once, it would be a pause of its own."""
    while len(entries) > _FREED_AT_ONCE:
        entries.popitem()
        yield _FREED_NS
