"""Between the river and the bank.

Keyed state as the tasks see it, and the messages to and from the coordinator.

Messages are plain data, so that a task can live in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

from flowrt.contract.state import StateSpec
from flowrt.contract.undo import UndoLog

Delivery: TypeAlias = Literal["exactly_once", "at_least_once", "at_most_once"]


class _Missing:
    """What a table holds for a key that it does not hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class HasKey(Protocol):
    """Where handles find the current key."""

    key: Any


class Table(Protocol):
    """One value for each key, in layers; the newest holds what was written since the last freeze.

    Fused code reads and writes the newest layer itself (`cold` where it has nothing). A deleted key
    is there as MISSING. What is stored is either the value itself (immutable builtins) or its
    `seal`ed form.
    """

    scalar: type | None
    """When declared as an immutable builtin: stored values are exactly of this type."""

    quick: frozenset[type]
    """Values of exactly these types are their own stored form: nothing to `seal` or `unseal`."""

    def writable(self) -> list[dict[Any, Any]]:
        """Return the newest layer: one dict, or where that grew large, many.

        A key belongs into the one at `hash(key) % len(layer)`. To be fetched anew for each run of
        records: a freeze replaces it.
        """
        ...

    def cold(self, key: Any) -> Any:
        """Return what is stored for a key that the newest layer does not have.

        MISSING where there is nothing; `StateError` for a key that cannot be stored.
        """
        ...

    def seal(self, key: Any, value: Any) -> Any:
        """Return the form to store.

        `StateError` naming operator, state, key and type if there is none.
        """
        ...

    def unseal(self, stored: Any) -> Any:
        """Return the value of a stored form: one of the caller's own."""
        ...

    def get(self, key: Any) -> Any:
        """Return the key's value, or MISSING."""
        ...

    def put(self, key: Any, value: Any) -> None:
        """Store a value."""
        ...

    def delete(self, key: Any) -> None:
        """Forget a key."""
        ...

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Iterate over keys and values as they were when called; costs memory for the keys."""
        ...


class Block(msgspec.Struct, frozen=True):
    """Encoded entries of one state in one key group, newer behind older ones of the same key."""

    state: str
    group: int
    entries: int
    data: bytes


class Frozen(Protocol):
    """The state of one operator subtask as it was at a barrier.

    What changed since the barrier before.
    """

    def encode(self) -> Iterator[list[Block]]:
        """Encode in slices of well under a millisecond.

        Yields [] until the last slice, which has all blocks.
        """
        ...

    @property
    def is_whole(self) -> bool:
        """Whether what was encoded is all there is: what was written before is not needed."""
        ...


class StateFile(msgspec.Struct, frozen=True):
    """A durable file with blocks; `first` and `last` bound the key groups to take from it."""

    name: str
    size: int
    checksum: str
    entries: int
    first_group: int
    last_group: int


class KeyedBackend(Protocol):
    """Keyed state of one operator subtask."""

    undo: UndoLog | None
    """To be told of each change through a handle, if set before the first handle is asked for."""

    def handle(self, spec: StateSpec[Any], scope: HasKey) -> Any:
        """Return the handle of a declared state for the key that `scope.key` names at each use.

        `StateError` when a state of that name is declared twice in different ways.
        """
        ...

    def table(self, name: str, type: Any, migrate: Callable[[Any], Any] | None = None) -> Table:
        """Return the table of a value state, for fused code and for the engine's own state."""
        ...

    def freeze(self) -> Frozen | None:
        """Cut: give what changed since the last freeze (None: nothing) in constant time.

        The one before must have been encoded, or was given up with the whole attempt.
        """
        ...

    def written_as(self, groups: range, shapes: Mapping[str, Any]) -> None:
        """Hear the `shapes` with which the entries of some key groups were written; before `load`.

        Where a state is declared with another one now, its values are migrated; where that cannot
        be, whatever loads or declares it raises `StateError` saying what changed.
        """
        ...

    def shapes(self) -> dict[str, Any]:
        """Return the shape of each state's type, by the state's name, as plain data."""
        ...

    def load(self, blocks: Iterable[Block]) -> None:
        """Take restored entries, oldest file first.

        Before any handle is used. States not declared yet wait.
        """
        ...

    def undeclared(self) -> list[str]:
        """Return the names of restored states that nothing has declared (after `open`)."""
        ...

    def map_entries(self, name: str) -> Iterator[tuple[Any, Any, Any]]:
        """Iterate over (key, name, value) of a declared map state, all keys (for timers).

        In an order that depends on the entries alone, so the same after a restore.
        """
        ...

    def next_expiry(self) -> int | None:
        """Return when `forget_expired` is to be called by the clock (ms); None for never."""
        ...

    def forget_expired(self) -> Iterator[None]:
        """Let go of entries whose time to live is over, some in each step of the iteration.

        To be called between records, for each watermark and when the clock says so.
        """
        ...

    def size(self) -> int:
        """Return how many entries all states hold, about."""
        ...


class BroadcastBackend(Protocol):
    """Broadcast state of one operator subtask: the same in all of them, so one copy is kept."""

    writable: bool
    """Whether handles may write now."""

    undo: UndoLog | None
    """See `KeyedBackend.undo`."""

    def handle(self, spec: StateSpec[Any]) -> Any:
        """Return the handle of a declared state.

        `StateError` when a state of that name is declared twice in different ways.
        """
        ...

    def snapshot(self) -> dict[str, bytes]:
        """Return all states, encoded, by name; quick, for they were encoded when written."""
        ...

    def restore(self, states: Mapping[str, bytes]) -> None:
        """Take what `snapshot` returned, before any handle is used."""
        ...

    def written_as(self, shapes: Mapping[str, Any]) -> None:
        """Hear the shapes of what is restored; see `KeyedBackend.written_as`."""
        ...

    def shapes(self) -> dict[str, Any]:
        """Return the shape of each state's type, under names that no keyed state has."""
        ...


class ValueCodec(Protocol):
    """Between the values that an operator keeps beside keyed state, and bytes.

    `StateError` naming the operator and the value's type where there is no way.
    """

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a value."""
        ...

    def decode(self, data: bytes) -> Any:
        """Return the value; one of the caller's own."""
        ...


class SnapshotWriter(Protocol):
    """Makes an operator subtask's snapshot durable, beside the stream."""

    async def write(self, epoch: int, frozen: Frozen | None) -> list[StateFile]:
        """Write one more file (none where nothing changed), compact now and then.

        Returns all files that now make up the state, oldest first. `CheckpointError` where it
        fails.
        """
        ...


class SplitState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a split stands.

    Its position, whether it ended, and the state of its watermark generator. `missing_since` is the
    processing time (ms) since which the source lists it no more.
    """

    id: str
    data: Any
    position: Any
    ended: bool = False
    watermark: Any = None
    records: int = 0
    idle: bool = False
    version: Any = None
    missing_since: int | None = None


class OperatorSnapshot(msgspec.Struct, frozen=True):
    """One operator subtask's part of a snapshot.

    `shapes` says of each state with which type it was written; a snapshot of before there were any
    has none.
    """

    operator: str
    subtask: int
    files: list[StateFile] = []
    data: Any = None
    splits: list[SplitState] = []
    committable: Any = None
    watermark: int | None = None
    shapes: dict[str, Any] = {}


class OpenEpoch(msgspec.Struct, frozen=True, tag=True):
    """Coordinator to source tasks: note positions, then send the barrier."""

    epoch: int
    final: bool = False
    end: bool = False
    """With `final`: the input is over, so event time ends too (watermark MAX, then the barrier)."""


class EpochCommitted(msgspec.Struct, frozen=True, tag=True):
    """Coordinator to source tasks: the epoch is committed."""

    epoch: int


class Acknowledge(msgspec.Struct, frozen=True, tag=True):
    """Task to coordinator: this subtask's part of the epoch is durable."""

    task: str
    subtask: int
    epoch: int
    operators: list[OperatorSnapshot]
    align_ns: int = 0
    freeze_ns: int = 0
    write_ns: int = 0


class SourceEnded(msgspec.Struct, frozen=True, tag=True):
    """Source task to coordinator: every split of this subtask is read to its end."""

    task: str
    subtask: int


TaskMessage: TypeAlias = Acknowledge | SourceEnded
CoordinatorMessage: TypeAlias = OpenEpoch | EpochCommitted
Send: TypeAlias = Callable[[TaskMessage], None]


class Restored(msgspec.Struct, frozen=True):
    """What one operator gets back: the parts of all its former subtasks."""

    parts: Sequence[OperatorSnapshot] = ()
