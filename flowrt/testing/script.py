"""The words of a test's script: what goes into an operator or a source, and what comes out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from flowrt.contract.elements import Barrier, EndOfStream, Idle, Watermark
from flowrt.contract.errors import ConfigError
from flowrt.contract.operator import OutputTag
from flowrt.contract.time import Timestamp, timestamp_ms


class _NoKey:
    """What a record has for a key that has none: None is a key like any other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_KEY"


NO_KEY: Final = _NoKey()


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """A record: its value, its event time (ms) if it has one, its key if it has one.

    `right`: for the second input of an operator that has two.
    """

    value: Any
    timestamp: int | None = None
    key: Any = NO_KEY
    right: bool = False

    def __repr__(self) -> str:
        at = "" if self.timestamp is None else f", at={self.timestamp}"
        key = "" if self.key is NO_KEY else f", key={self.key!r}"
        return f"{'right' if self.right else 'record'}({self.value!r}{at}{key})"


@dataclass(frozen=True, slots=True, repr=False)
class Side:
    """A value that went to a side output, and its event time (ms) if it has one."""

    tag: str
    value: Any
    timestamp: int | None = None

    def __repr__(self) -> str:
        at = "" if self.timestamp is None else f", at={self.timestamp}"
        return f"side({self.tag!r}, {self.value!r}{at})"


@dataclass(frozen=True, slots=True, repr=False)
class ProcessingTime:
    """The clock moves to this time (ms since 1970)."""

    timestamp: int

    def __repr__(self) -> str:
        return f"processing_time({self.timestamp})"


@dataclass(frozen=True, slots=True, repr=False)
class Restart:
    """Everything but a snapshot is lost here; a new instance goes on from it."""

    def __repr__(self) -> str:
        return "RESTART"


@dataclass(frozen=True, slots=True, repr=False)
class Fail:
    """A source raises `error` here, once: not again after a restart."""

    error: Exception | None = None

    def __repr__(self) -> str:
        return "FAIL" if self.error is None else f"fail({self.error!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Pause:
    """A source waits here until the test lets it go on."""

    def __repr__(self) -> str:
        return "PAUSE"


ScriptElement: TypeAlias = (
    Record | Side | Watermark | Idle | Barrier | EndOfStream | ProcessingTime | Restart
)
"""What a script for `drive` is made of, and what it returns."""

_MAY_GO_IN: Final = (Record, Watermark, Idle, Barrier, EndOfStream, ProcessingTime, Restart)

IDLE: Final = Idle()
"""Nothing comes for now: leave this input out of the watermark's minimum."""

END: Final = EndOfStream()
"""The input is over: event time ends (all timers fire), and nothing follows."""

RESTART: Final = Restart()
"""In a script for `drive`: go on in a new instance, from a snapshot taken here."""

FAIL: Final = Fail()
"""In a `ScriptedSource`: raise a `ScriptedFailure` here, once: not again after a restart."""

PAUSE: Final = Pause()
"""In a `ScriptedSource`: wait here until `release()`."""


def record(value: Any, at: Timestamp | None = None, key: Hashable = NO_KEY) -> Record:
    """Return a record; `at` is its event time (ms or an aware datetime)."""
    return Record(value, None if at is None else timestamp_ms(at), key)


left = record
"""Return a record for the first input of an operator that has two."""


def right(value: Any, at: Timestamp | None = None, key: Hashable = NO_KEY) -> Record:
    """Return a record for the second input of an operator that has two; see `record`."""
    return replace(record(value, at, key), right=True)


def records(*values: Any) -> list[Record]:
    """Return a record without event time for each value."""
    return [Record(value) for value in values]


def side(tag: OutputTag[Any] | str, value: Any, at: Timestamp | None = None) -> Side:
    """Return a value of a side output, to compare with."""
    name = tag if isinstance(tag, str) else tag.name
    return Side(name, value, None if at is None else timestamp_ms(at))


def watermark(timestamp: Timestamp) -> Watermark:
    """Return a watermark (ms or an aware datetime): no record at or before it is on time."""
    return Watermark(timestamp_ms(timestamp))


def barrier(epoch: int) -> Barrier:
    """Return the barrier of an epoch: a snapshot is taken here, and the same instance goes on."""
    return Barrier(epoch)


def processing_time(timestamp: Timestamp) -> ProcessingTime:
    """Return a move of the clock, to ms since 1970 or an aware datetime; what is due rings."""
    return ProcessingTime(timestamp_ms(timestamp))


def fail(error: Exception) -> Fail:
    """Return a failure for a `ScriptedSource`: it raises `error` here, once."""
    return Fail(error)


def check_script(script: Iterable[object]) -> list[ScriptElement]:
    """Return an operator's script as a list; `ConfigError` naming what cannot be in it."""
    elements: list[ScriptElement] = []
    for index, element in enumerate(script):
        if not isinstance(element, _MAY_GO_IN):
            raise ConfigError(
                f"element {index} of the script is {element!r}: use record(...), left(...), "
                "right(...), watermark(...), processing_time(...), barrier(...), IDLE, RESTART or "
                "END"
            )
        elements.append(element)
    if END in elements[:-1]:
        raise ConfigError("END is the end of a script: nothing can follow it")
    return elements


def show(element: Any) -> str:
    """Return an element as a test writes it."""
    match element:
        case Watermark(timestamp):
            return f"watermark({timestamp})"
        case Barrier(epoch):
            return f"barrier({epoch})"
        case Idle():
            return "IDLE"
        case EndOfStream():
            return "END"
        case _:
            return repr(element)
