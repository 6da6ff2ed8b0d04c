"""Keyed state: what an operator declares, and the handles it gets.

State has value semantics: `get` gives a value of your own, and only `set` (or `add`, `put`, …)
stores. Changing a value in place without storing it changes nothing. A handle always speaks of the
current key (`ctx.key`) and can only be used while a record or a timer of its operator is processed.

Values are encoded with msgspec. A declared type may be anything msgspec can decode (dataclass,
Struct, TypedDict, builtins …); without one, builtins come back as they were, and a dataclass or
Struct is found again by the class first written. A value that cannot be encoded raises `StateError`
when it is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, overload

from flowrt.contract.errors import ConfigError, StateError
from flowrt.contract.time import Duration, duration_ms

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
In = TypeVar("In")
Acc = TypeVar("Acc")
Out = TypeVar("Out")
In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


class ValueHandle(Protocol[T]):
    """One value for each key."""

    def get(self) -> T:
        """Return the value; the state's default (None unless declared) where there is none."""
        ...

    def set(self, value: T) -> None:
        """Store the value; `StateError` where it cannot be encoded."""
        ...

    def clear(self) -> None:
        """Forget the key's value."""
        ...


class ListHandle(Protocol[T]):
    """A list for each key; adding writes only what was added to the next snapshot."""

    def add(self, value: T) -> None:
        """Append one value."""
        ...

    def extend(self, values: Iterable[T]) -> None:
        """Append values."""
        ...

    def get(self) -> list[T]:
        """Return a new list with the key's values, oldest first."""
        ...

    def set(self, values: Iterable[T]) -> None:
        """Replace the key's values."""
        ...

    def clear(self) -> None:
        """Forget the key's values."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T]: ...


class MapHandle(Protocol[K, V]):
    """A dictionary for each key; writing one entry costs one entry in the next snapshot."""

    @overload
    def get(self, name: K) -> V | None: ...
    @overload
    def get(self, name: K, default: V) -> V: ...
    def get(self, name: K, default: V | None = None) -> V | None:
        """Return the entry, or `default`."""
        ...

    def put(self, name: K, value: V) -> None:
        """Store an entry."""
        ...

    def remove(self, name: K) -> None:
        """Forget an entry; no error where there is none."""
        ...

    def items(self) -> Iterator[tuple[K, V]]:
        """Iterate over the entries as they were when called, in order of insertion."""
        ...

    def keys(self) -> Iterator[K]:
        """Iterate over the names as they were when called."""
        ...

    def values(self) -> Iterator[V]:
        """Iterate over the values as they were when called."""
        ...

    def clear(self) -> None:
        """Forget all entries of the key."""
        ...

    def __contains__(self, name: object) -> bool: ...

    def __len__(self) -> int: ...


class ReducingHandle(Protocol[T]):
    """One value for each key into which others are folded."""

    def add(self, value: T) -> None:
        """Fold a value in; the first is stored as it is."""
        ...

    def get(self) -> T | None:
        """Return the folded value; None before the first."""
        ...

    def clear(self) -> None:
        """Forget the key's value."""
        ...


class AggregatingHandle(Protocol[In_contra, Out_co]):
    """One accumulator for each key; what goes in and what comes out may differ."""

    def add(self, value: In_contra) -> None:
        """Add a value to the accumulator."""
        ...

    def get(self) -> Out_co | None:
        """Return the accumulator's result; None before the first value."""
        ...

    def clear(self) -> None:
        """Forget the key's accumulator."""
        ...


class BroadcastHandle(MapHandle[K, V], Protocol[K, V]):
    """One dictionary for all keys, the same in every subtask.

    Any method of the operator may read it. Only `process_right` and `open` may write it, because
    only they run alike in every subtask: elsewhere writing raises `StateError`.
    """

    def replace(self, entries: Mapping[K, V]) -> None:
        """Store these entries and forget all others."""
        ...


@dataclass(frozen=True)
class Ttl:
    """How long an entry of a state lives: a time to live, from its last write or use.

    It is seen no more as soon as `after` has passed, and its memory is given back soon after that,
    whether anybody reads or not. `time="processing"` counts by the clock. `time="event"` counts
    from the event time of the record that wrote (from the watermark, where that is later), until
    the watermark has passed `after` more; the end of the input lets nothing expire.
    `refresh="read"` begins the time anew at each read too, which then costs what a write costs.

    Each name of a map state and each element of a list state has a time of its own.
    """

    after: Duration
    time: Literal["processing", "event"] = "processing"
    refresh: Literal["write", "read"] = "write"

    def __post_init__(self) -> None:
        if not self.ms:
            raise ConfigError(f"a ttl must be at least 1 ms, and {self.after!r} is not")
        if self.time not in ("processing", "event"):
            raise ConfigError(f"time={self.time!r}: choose 'processing' or 'event'")
        if self.refresh not in ("write", "read"):
            raise ConfigError(f"refresh={self.refresh!r}: choose 'write' or 'read'")

    @property
    def ms(self) -> int:
        """The time to live in ms."""
        return duration_ms(self.after)


_Handle = TypeVar("_Handle")


class StateSpec(Generic[_Handle]):
    """What every state declaration has: a name (that of the attribute where none is given).

    As an attribute of an `Operator` class it becomes the handle once the operator is opened; a
    plain function gets its handle from `ctx.state(declaration)`. With `ttl` entries expire: see
    `Ttl`; a duration alone counts by the clock, from the last write. `migrate(plain)` makes a value
    of today from one that was stored with a type that does not fit today's: `plain` is that value
    in builtins, a record as a dict. `ConfigError` where it is a coroutine function.
    """

    def __init__(
        self,
        name: str | None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        self.name = name or ""
        call = getattr(migrate, "__call__", None)  # noqa: B004 - not whether, but which
        if inspect.iscoroutinefunction(migrate) or inspect.iscoroutinefunction(call):
            raise ConfigError(
                f"migrate={migrate!r} is a coroutine function, and state is migrated in one go: "
                "pass a plain function, and look up before the start what it needs"
            )
        self.migrate = migrate
        self.ttl = ttl if ttl is None or isinstance(ttl, Ttl) else Ttl(ttl)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    @overload
    def __get__(self, instance: None, owner: type) -> StateSpec[_Handle]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _Handle: ...
    def __get__(self, instance: object | None, owner: type) -> StateSpec[_Handle] | _Handle:
        # Not a data descriptor: the handle in the instance's __dict__ wins once the operator is
        # open.
        if instance is None:
            return self
        raise StateError(
            f"state {self.name!r} of {owner.__name__} is bound when the flow starts: use it in "
            "open, process, on_timer or on_watermark"
        )


class ValueState(StateSpec[ValueHandle[T]]):
    """Declare one value for each key."""

    @overload
    def __init__(
        self: ValueState[T | None],
        type: type[T] | None = None,
        *,
        name: str | None = None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], T] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        type: type[T] | None = None,
        *,
        default: T,
        name: str | None = None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], T] | None = None,
    ) -> None: ...
    def __init__(
        self,
        type: Any = None,
        *,
        default: Any = None,
        name: str | None = None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(name, ttl, migrate)
        self.type = type
        self.default = default


class ListState(StateSpec[ListHandle[T]]):
    """Declare a list for each key; `type` is that of an element."""

    def __init__(
        self,
        type: type[T] | None = None,
        *,
        name: str | None = None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(name, ttl, migrate)
        self.type = type


class MapState(StateSpec[MapHandle[K, V]]):
    """Declare a dictionary for each key; names must be hashable."""

    def __init__(
        self,
        key_type: type[K] | None = None,
        type: type[V] | None = None,
        *,
        name: str | None = None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(name, ttl, migrate)
        self.key_type = key_type
        self.type = type


class BroadcastState(StateSpec[BroadcastHandle[K, V]]):
    """Declare a dictionary that belongs to no key: what a broadcast stream says, such as rules.

    For a `CoOperator` whose second input is broadcast. All of it is encoded when it is written and
    is part of each snapshot, so it is meant for thousands of entries, not for millions.
    """

    def __init__(
        self,
        key_type: type[K] | None = None,
        type: type[V] | None = None,
        *,
        name: str | None = None,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(name, migrate=migrate)
        self.key_type = key_type
        self.type = type


class ReducingState(StateSpec[ReducingHandle[T]]):
    """Declare a value for each key that `reduce(stored, new)` folds."""

    def __init__(
        self,
        reduce: Callable[[T, T], T],
        type: type[T] | None = None,
        *,
        name: str | None = None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(name, ttl, migrate)
        self.reduce = reduce
        self.type = type


class AggregatingState(StateSpec[AggregatingHandle[In, Out]], Generic[In, Acc, Out]):
    """Declare an accumulator for each key.

    `create()`, `add(accumulator, value)`, `result(accumulator)`.
    """

    def __init__(
        self,
        create: Callable[[], Acc],
        add: Callable[[Acc, In], Acc],
        result: Callable[[Acc], Out],
        type: type[Acc] | None = None,
        *,
        name: str | None = None,
        ttl: Ttl | Duration | None = None,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(name, ttl, migrate)
        self.create = create
        self.add = add
        self.result = result
        self.type = type


KEY_GROUPS: Final = 128
"""Keys are spread over this many groups; a subtask owns a range of groups."""


def group_range(subtask: int, parallelism: int) -> range:
    """Return the key groups that a subtask owns (as in Flink: contiguous, even within one)."""
    start = (subtask * KEY_GROUPS + parallelism - 1) // parallelism
    end = ((subtask + 1) * KEY_GROUPS - 1) // parallelism
    return range(start, end + 1)


def owner_of_group(group: int, parallelism: int) -> int:
    """Return the subtask that owns a key group."""
    return group * parallelism // KEY_GROUPS
