"""What an operator sees of the task that runs it: see `flowrt.contract.operator.Context`."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.errors import StateError
from flowrt.contract.operator import Operator, OutputTag
from flowrt.contract.snapshot import BroadcastBackend, KeyedBackend
from flowrt.contract.state import BroadcastState, StateSpec
from flowrt.contract.undo import UndoLog
from flowrt.contract.world import World
from flowrt.dataflow.chains.timers import TimerQueue


class OperatorContext:
    """The context of one operator subtask.

    What it emits waits in `emitted` for the chain to send on.

    `key` is set by the chain before each call; where there is none the slot is empty, so that
    reading it costs nothing when it is there and explains itself when it is not.
    """

    key: Any

    __slots__ = (
        "_backend",
        "_broadcast",
        "_handles",
        "_taken_tags",
        "_timers",
        "_undo",
        "dropped",
        "emitted",
        "key",
        "operator",
        "parallelism",
        "sides",
        "subtask",
        "timestamp",
        "watermark",
        "world",
    )

    def __init__(
        self,
        operator: str,
        subtask: int,
        parallelism: int,
        world: World,
        backend: KeyedBackend | None,
        taken_tags: frozenset[str] = frozenset(),
        broadcast: BroadcastBackend | None = None,
        undo: UndoLog | None = None,
    ) -> None:
        self.operator = operator
        self.subtask = subtask
        self.parallelism = parallelism
        self.world = world
        self.timestamp: int | None = None
        self.watermark = MIN_TIMESTAMP
        self.emitted: list[tuple[Any, int | None]] = []
        self.sides: dict[str, tuple[list[Any], list[int | None]]] = {}
        self.dropped: Counter[str] = Counter()
        self._backend = backend
        self._broadcast = broadcast
        self._taken_tags = taken_tags
        self._undo = undo
        self._handles: dict[int, tuple[Any, Any]] = {}
        self._timers: ContextTimers | None = None

    def __getattr__(self, name: str) -> Any:
        # Only an empty slot comes here.
        if name == "key":
            raise StateError(
                f"operator {self.operator!r} has no current key: put key_by before it, and use "
                "the key, state and timers only while a record or a timer is processed; a "
                "broadcast record has none"
            )
        raise AttributeError(name)

    @property
    def timers(self) -> ContextTimers:
        """See `Context.timers`."""
        if self._timers is None:
            self._timers = ContextTimers(self._keyed("timers"), self, self._undo)
        return self._timers

    @property
    def opened_timers(self) -> ContextTimers | None:
        """The timers if the operator ever used any (this attempt or before)."""
        return self._timers

    def forget_key(self) -> None:
        """Leave the key: what follows belongs to none."""
        with contextlib.suppress(AttributeError):
            del self.key

    def emit(self, value: Any, timestamp: int | None = None) -> None:
        """See `Context.emit`."""
        if timestamp is None:
            timestamp = self.timestamp
        elif not isinstance(timestamp, int):
            raise _no_event_time(timestamp)
        self.emitted.append((value, timestamp))

    def side(self, tag: OutputTag[Any], value: Any, timestamp: int | None = None) -> None:
        """See `Context.side`."""
        name = tag.name
        if timestamp is None:
            timestamp = self.timestamp
        elif not isinstance(timestamp, int):
            raise _no_event_time(timestamp)
        if name not in self._taken_tags:
            self.dropped[name] += 1
            if self._undo is not None:
                self._undo.add(self.dropped.subtract, (name,))
            return
        lists = self.sides.get(name)
        if lists is None:
            lists = self.sides[name] = ([], [])
        lists[0].append(value)
        lists[1].append(timestamp)

    def state(self, declaration: StateSpec[Any]) -> Any:
        """See `Context.state`."""
        known = self._handles.get(id(declaration))
        if known is not None:
            return known[1]
        if not declaration.name:
            raise StateError(
                f"a {type(declaration).__name__} of operator {self.operator!r} has no name: "
                "pass name=..."
            )
        handle = self._handle(declaration)
        # The declaration is kept beside its handle so that its id cannot be given to another one.
        self._handles[id(declaration)] = (declaration, handle)
        return handle

    def bind(self, operator: Operator[Any, Any]) -> None:
        """Replace the states that an operator's class declares by their handles."""
        for owner in reversed(type(operator).__mro__):
            for name, attribute in vars(owner).items():
                if isinstance(attribute, StateSpec):
                    operator.__dict__[name] = self.state(attribute)

    def _handle(self, declaration: StateSpec[Any]) -> Any:
        wanted = f"state {declaration.name!r}"
        if not isinstance(declaration, BroadcastState):
            return self._keyed(wanted).handle(declaration, self)
        if self._broadcast is None:
            raise StateError(
                f"operator {self.operator!r} uses broadcast {wanted}, and nothing is broadcast to "
                "it: connect(rules.broadcast()) before it"
            )
        return self._broadcast.handle(declaration)

    def _keyed(self, wanted: str) -> KeyedBackend:
        if self._backend is None:
            raise StateError(f"operator {self.operator!r} uses {wanted}: put key_by before it")
        return self._backend


def _no_event_time(timestamp: object) -> TypeError:
    return TypeError(
        f"an event time is an int, milliseconds since 1970, and not {timestamp!r}: round it, or "
        "for an aware datetime take int(time.timestamp() * 1000)"
    )


class ContextTimers:
    """Timers of the current key: see `flowrt.contract.operator.Timers`."""

    __slots__ = ("event", "processing")

    def __init__(self, backend: KeyedBackend, scope: OperatorContext, undo: UndoLog | None) -> None:
        self.event = TimerQueue(backend, scope, "event", undo)
        self.processing = TimerQueue(backend, scope, "processing", undo)

    def register_event_time(self, timestamp: int) -> None:
        """See `Timers.register_event_time`."""
        self.event.register(timestamp)

    def register_processing_time(self, timestamp: int) -> None:
        """See `Timers.register_processing_time`."""
        self.processing.register(timestamp)

    def delete_event_time(self, timestamp: int) -> None:
        """See `Timers.delete_event_time`."""
        self.event.delete(timestamp)

    def delete_processing_time(self, timestamp: int) -> None:
        """See `Timers.delete_processing_time`."""
        self.processing.delete(timestamp)
