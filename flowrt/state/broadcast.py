"""Broadcast state: dictionaries that belong to no key and are the same in every subtask.

They change seldom and are read for each record, so an entry is encoded when it is written: what
cannot be encoded fails there, and a snapshot only puts together what is there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from flowrt.contract.snapshot import MISSING
from flowrt.contract.state import BroadcastState, StateSpec
from flowrt.contract.undo import UndoLog
from flowrt.state.blocks import Place
from flowrt.state.classes import Unfit
from flowrt.state.codec import Codec, codec_for
from flowrt.state.keys import encode_key
from flowrt.state.migration import migration
from flowrt.state.sealed import Sealed
from flowrt.state.shapes import Shape, shape_of

_SHAPE: Final = "broadcast:"
"""Begins the name of a broadcast state among the shapes: a keyed one may have the same name."""

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


class BroadcastStates:
    """See `flowrt.contract.snapshot.BroadcastBackend`. `operator` is its id, for messages."""

    def __init__(self, operator: str) -> None:
        self.writable = False
        self.undo: UndoLog | None = None
        self._operator = operator
        self._specs: dict[str, StateSpec[Any]] = {}
        self._handles: dict[str, BroadcastMap] = {}
        self._waiting: dict[str, bytes] = {}
        self._written_as: dict[str, Any] = {}

    def handle(self, spec: StateSpec[Any]) -> BroadcastMap:
        """See `BroadcastBackend.handle`."""
        place = Place(self._operator, spec.name)
        if not isinstance(spec, BroadcastState):
            raise place.error(f"a {type(spec).__name__} is no broadcast state")
        known = self._specs.get(spec.name)
        if known is not None:
            if vars(known) != vars(spec):
                raise place.error("it is declared twice, in different ways: rename one of them")
            return self._handles[spec.name]
        handle = BroadcastMap(self, place, spec)
        if spec.name in self._waiting:
            handle.restore(self._waiting[spec.name], self._written_as.get(spec.name))
            del self._waiting[spec.name]
        self._specs[spec.name] = spec
        self._handles[spec.name] = handle
        return handle

    def snapshot(self) -> dict[str, bytes]:
        """See `BroadcastBackend.snapshot`; states that nothing has declared yet are kept too."""
        declared = {name: handle.snapshot() for name, handle in self._handles.items()}
        return {**self._waiting, **declared}

    def restore(self, states: Mapping[str, bytes]) -> None:
        """See `BroadcastBackend.restore`."""
        self._waiting.update(states)

    def written_as(self, shapes: Mapping[str, Any]) -> None:
        """See `BroadcastBackend.written_as`."""
        found = {n.removeprefix(_SHAPE): s for n, s in shapes.items() if n.startswith(_SHAPE)}
        self._written_as.update(found)

    def shapes(self) -> dict[str, Any]:
        """See `BroadcastBackend.shapes`."""
        waiting = {name: self._written_as.get(name) for name in self._waiting}
        declared = {
            name: shape_of(getattr(spec, "type", None)) for name, spec in self._specs.items()
        }
        return {_SHAPE + name: shape for name, shape in {**waiting, **declared}.items()}


class BroadcastMap:
    """See `BroadcastHandle`."""

    __slots__ = (
        "_codec",
        "_encoded",
        "_migrate",
        "_names",
        "_owner",
        "_place",
        "_stored",
        "_type",
        "_undoes",
        "_whole",
    )

    def __init__(
        self, owner: BroadcastStates, place: Place, spec: BroadcastState[Any, Any]
    ) -> None:
        self._owner = owner
        self._place = place
        self._type = spec.type
        self._migrate = spec.migrate
        try:
            self._names: Codec = codec_for(spec.key_type)
            self._codec: Codec = codec_for(spec.type)
        except Unfit as error:
            raise place.error(error) from error
        self._stored: dict[Any, Any] = {}
        self._encoded: dict[Any, tuple[bytes, bytes]] = {}
        self._whole: bytes | None = None
        """All of it encoded, until something changes."""
        self._undoes = 0
        """The last record before whose changes a copy was kept."""

    # ------------------------------------------------------------------ reading

    def get(self, name: Any, default: Any = None) -> Any:
        """See `MapHandle.get`."""
        stored = self._stored.get(name, MISSING)
        return default if stored is MISSING else self._value(stored)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """See `MapHandle.items`."""
        return iter([(name, self._value(stored)) for name, stored in self._stored.items()])

    def keys(self) -> Iterator[Any]:
        """See `MapHandle.keys`."""
        return iter(list(self._stored))

    def values(self) -> Iterator[Any]:
        """See `MapHandle.values`."""
        return iter([self._value(stored) for stored in self._stored.values()])

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __len__(self) -> int:
        return len(self._stored)

    # ------------------------------------------------------------------ writing

    def put(self, name: Any, value: Any) -> None:
        """See `MapHandle.put`."""
        self._begin_writing()
        self._encoded[name], self._stored[name] = self._sealed(name, value)

    def remove(self, name: Any) -> None:
        """See `MapHandle.remove`."""
        self._begin_writing()
        self._stored.pop(name, None)
        self._encoded.pop(name, None)

    def clear(self) -> None:
        """See `MapHandle.clear`."""
        self._begin_writing()
        self._stored.clear()
        self._encoded.clear()

    def replace(self, entries: Mapping[Any, Any]) -> None:
        """See `BroadcastHandle.replace`; where one entry cannot be stored nothing changes."""
        self._begin_writing()
        sealed = {name: self._sealed(name, value) for name, value in entries.items()}
        self._encoded = {name: encoded for name, (encoded, _) in sealed.items()}
        self._stored = {name: stored for name, (_, stored) in sealed.items()}

    def _begin_writing(self) -> None:
        if not self._owner.writable:
            raise self._place.error(
                "it is written outside of process_right: only there does every subtask see the "
                "same records, so write it there or in open, and send what is found elsewhere to "
                "the broadcast stream"
            )
        undo = self._owner.undo
        if undo is not None and undo.is_on and self._undoes != undo.record:
            # It is written seldom: one copy of all for a record costs little, and needs no thought.
            self._undoes = undo.record
            before = dict(self._stored), dict(self._encoded), self._whole
            undo.add(self._put_back, *before)
        self._whole = None

    def _put_back(
        self,
        stored: dict[Any, Any],
        encoded: dict[Any, tuple[bytes, bytes]],
        whole: bytes | None,
    ) -> None:
        self._stored, self._encoded, self._whole = stored, encoded, whole

    def _sealed(self, name: Any, value: Any) -> tuple[tuple[bytes, bytes], Any]:
        try:
            encode_key(name)  # what can be no key is no name either
            name_data = bytes(self._names.encode(self._names.seal(name)))
            stored = self._codec.seal(value)
            return (name_data, bytes(self._codec.encode(stored))), stored
        except Unfit as error:
            raise self._place.error(error, name) from error

    def _value(self, stored: Any) -> Any:
        if type(stored) is not Sealed:
            return stored
        try:
            return self._codec.unseal(stored)
        except Unfit as error:
            raise self._place.error(error) from error

    # ------------------------------------------------------------------ snapshots

    def snapshot(self) -> bytes:
        """Return all entries, encoded."""
        if self._whole is None:
            self._whole = _pack(list(self._encoded.values()))
        return self._whole

    def restore(self, data: bytes, before: Shape | None = None) -> None:
        """Take entries that `snapshot` returned, written with a shape, where that is known.

        `StateError` where they do not fit the types.
        """
        now = shape_of(self._type)
        into_today = migration(self._place, self._codec, before, now, self._migrate)
        try:
            for name_data, value_data in _unpack(data):
                name = self._names.unseal(self._names.restore(name_data))
                if into_today is not None:
                    value_data = into_today.value(value_data, partial(_itself, name))
                self._stored[name] = self._codec.restore(value_data)
                self._encoded[name] = name_data, value_data
        except (Unfit, msgspec.MsgspecError) as error:
            raise self._place.error(f"what was stored cannot be read: {error}") from error
        self._whole = data if into_today is None else None


def _itself(name: Any) -> Any:
    return name
