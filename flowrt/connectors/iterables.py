"""Python's own iterables as sources: lists, generators, async generators."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Sequence,
    Set,
    Sized,
)
from inspect import isasyncgen, isasyncgenfunction, iscoroutine
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from flowrt.connectors.pump import Pump
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.plural import plural
from flowrt.contract.source import (
    UNKNOWN,
    Chunk,
    Position,
    Reader,
    Source,
    SourceContext,
    Split,
)
from flowrt.contract.world import Clock

T = TypeVar("T")

_TURN_NS: Final = 1_000_000
_STEP: Final = 64
"""How many records of an iterator are taken between two looks at the clock."""


class IterableSource(Source[T], Generic[T]):
    """Gives the values of an iterable or async iterable, as one split.

    What is promised end to end depends on what is given:

    - a sequence (list, tuple, range), any other iterable that can be iterated again, or a callable
      that makes an iterable or async iterable anew: exactly once, with a sink that allows it. The
      position is the number of records; going on skips that many, so each time the same records
      must come in the same order. Also where the flow had finished: what has been added at the end
      is read at the next start;
    - an iterator, generator, set, or async iterable: at most once. It cannot go back, so records
      that were taken after the last snapshot are lost in a crash. Within the process a restart
      goes on with the next record; only an async generator ends when its reading is cancelled, and
      then a second read is an `InputError`, never a silent end.

    A plain iterable must not wait, for it would stop the event loop; an async one may. Its records
    are handed on at once, and together when several are ready. See `PositionedSource` for sources
    that know positions of their own.
    """

    def __init__(
        self,
        iterable: Iterable[T] | AsyncIterable[T] | Callable[[], Iterable[T] | AsyncIterable[T]],
        *,
        bounded: bool | None = None,
    ) -> None:
        if isinstance(iterable, (str, bytes, bytearray)):
            raise ConfigError(
                "a text or bytes object is no stream of records: pass [it] for one record, or use "
                "FileSource for the lines of a file"
            )
        if not (callable(iterable) or isinstance(iterable, (Iterable, AsyncIterable))):
            raise ConfigError(
                f"{type(iterable).__name__} is neither iterable nor async iterable, nor a callable "
                "that makes one"
            )
        self._iterable = iterable
        self._once = _once_only(iterable)
        self.replayable = self._once is None
        is_async = isinstance(iterable, AsyncIterable) or isasyncgenfunction(iterable)
        self.bounded = not is_async if bounded is None else bounded

    def describe(self) -> str:
        """Return the kind of iterable and whether it can be read again."""
        name = getattr(self._iterable, "__name__", type(self._iterable).__name__)
        return f"{name} ({'replayable' if self.replayable else 'cannot be read again'})"

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the one split; where it can be read again, what is new at its end will be."""
        if self._once is not None:
            return [Split("0")]
        given = self._iterable
        return [Split("0", None, len(given) if isinstance(given, Sized) else UNKNOWN)]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Return a reader that goes on behind as many records as `position` says."""
        given, read = self._iterable, position or 0
        clock = ctx.world.clock
        if isinstance(self._once, _OnceAsync):
            return _AsyncReader(self._once.open(), read, owned=False)
        if isinstance(self._once, _OncePlain):
            return _IteratorReader(self._once, read, clock)
        if isinstance(given, (list, tuple, range)):
            return _SequenceReader(given, read)
        made = _iterable(given() if callable(given) else given)
        if isinstance(made, AsyncIterable):
            return _AsyncReader(Pump(aiter(made)), read, skip=read)
        values = iter(made)
        _skip(values, read)
        return _IteratorReader(_OncePlain(values), read, clock)


class PositionedSource(Source[T], Generic[T]):
    """Gives values from an iterable or async iterable that knows its replay points, as one split.

    Exactly once end to end, with a sink that allows it: `make(position)` is called with the
    position of the last record that counts (None for the beginning) and returns an iterable or
    async iterable of `(value, position)` that begins with the record behind it. Positions are
    plain data.
    """

    def __init__(
        self,
        make: Callable[[Any], Iterable[tuple[T, Position]] | AsyncIterable[tuple[T, Position]]],
        *,
        bounded: bool | None = None,
    ) -> None:
        if not callable(make):
            raise ConfigError(
                "PositionedSource takes a callable: make(position) -> iterable of (value, position)"
            )
        self._make = make
        self.bounded = not isasyncgenfunction(make) if bounded is None else bounded

    def describe(self) -> str:
        """Return the name of the callable."""
        return f"{getattr(self._make, '__name__', type(self._make).__name__)} (replayable)"

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the one split; `make` is asked at each start whether there is more."""
        return [Split("0", None, UNKNOWN)]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Return a reader over what `make(position)` gives."""
        made = _iterable(self._make(position))
        if isinstance(made, AsyncIterable):
            return _PairReader(_AsyncReader(Pump(aiter(made)), 0))
        return _PairReader(_IteratorReader(_OncePlain(iter(made)), 0, ctx.world.clock))


def _iterable(made: Any) -> Iterable[Any] | AsyncIterable[Any]:
    if isinstance(made, (Iterable, AsyncIterable)):
        return made
    hint = ""
    if iscoroutine(made):
        made.close()
        hint = "; make it a plain function that returns an async iterable, or let it yield"
    raise ConfigError(
        f"the callable of a source gave {type(made).__name__}, which is not iterable{hint}"
    )


class _OnceAsync:
    """An async iterator that is read once; keeps what was taken from it and not yet handed on."""

    def __init__(self, iterable: AsyncIterable[Any]) -> None:
        self._iterable = iterable
        self._iterator: AsyncIterator[Any] | None = None
        self._pump: Pump[Any] | None = None

    def open(self) -> Pump[Any]:
        """Return a pump that goes on where the one before stopped."""
        before = self._pump
        if self._iterator is None or before is None:
            self._iterator = aiter(self._iterable)
            self._pump = Pump(self._iterator)
        elif before.interrupted and isasyncgen(self._iterator):
            raise InputError(
                "an async generator cannot be read on after its reading was cancelled: pass a "
                "callable that makes it anew, or use PositionedSource, so that a restart can go on"
            )
        elif not before.ended:
            self._pump = Pump(self._iterator, before.take(None))
        return self._pump  # type: ignore[return-value]


class _OncePlain:
    """An iterator, and what it raised: it must not look as if it had just ended."""

    def __init__(self, values: Iterator[Any]) -> None:
        self.values = values
        self.error: Exception | None = None


def _once_only(given: object) -> _OncePlain | _OnceAsync | None:
    """Return how to read what cannot be read again; None for what can."""
    if isinstance(given, AsyncIterable):
        return _OnceAsync(given)
    # The order of a set is another one in each process.
    if isinstance(given, (Iterator, Set)):
        return _OncePlain(iter(given))
    return None


def _skip(values: Iterator[Any], count: int) -> None:
    skipped = sum(1 for _ in islice(values, count))
    if skipped < count:
        raise _too_short(skipped, count)


def _too_short(length: int, position: int) -> InputError:
    return InputError(
        f"the iterable has {length} {plural(length, 'record')}, but the checkpoint has read "
        f"{position} of it: it must give the same records each time, or the flow start from a new "
        "checkpoint folder"
    )


class _SequenceReader(Generic[T]):
    """Slices a sequence; a position is an index."""

    def __init__(self, values: Sequence[T], position: int) -> None:
        if position > len(values):
            raise _too_short(len(values), position)
        self._values = values
        self._position = position

    async def read(self, limit: int) -> Chunk[T] | None:
        values = list(self._values[self._position : self._position + limit])
        if not values:
            return None
        self._position += len(values)
        return Chunk(values, self._position)

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return len(self._values) - (position or 0), "records"

    async def close(self) -> None:
        return None


class _IteratorReader(Generic[T]):
    """Takes from an iterator for as long as a turn may last; a position is a number of records."""

    def __init__(self, source: _OncePlain, position: int, clock: Clock) -> None:
        self._source = source
        self._position = position
        self._clock = clock

    async def read(self, limit: int) -> Chunk[T] | None:
        values: list[T] = []
        if self._source.error is None:
            self._take(values, limit)
        if not values:
            if self._source.error is not None:
                raise _raised(self._source.error, self._position)
            return None
        self._position += len(values)
        return Chunk(values, self._position)

    def _take(self, values: list[T], limit: int) -> None:
        end_ns = self._clock.monotonic_ns() + _TURN_NS
        try:
            while len(values) < limit:
                wanted = min(len(values) + _STEP, limit)
                values += islice(self._source.values, wanted - len(values))
                if len(values) < wanted or self._clock.monotonic_ns() >= end_ns:
                    return
        except Exception as error:  # what came before it goes first
            self._source.error = error

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return None

    async def close(self) -> None:
        return None


def _raised(error: BaseException, position: int) -> InputError:
    failure = InputError(f"the iterable raised {error!r} behind record {position}")
    failure.__cause__ = error
    return failure


class _AsyncReader(Generic[T]):
    """Takes what a pump has; a position is a number of records."""

    def __init__(self, pump: Pump[T], position: int, *, skip: int = 0, owned: bool = True) -> None:
        self._pump = pump
        self._position = position
        self._skip = skip
        self._owned = owned

    async def read(self, limit: int) -> Chunk[T] | None:
        while self._skip:
            await self._wait()
            skipped = self._pump.take(self._skip)
            if not skipped:
                raise _too_short(self._position - self._skip, self._position)
            self._skip -= len(skipped)
        await self._wait()
        values = self._pump.take(limit)
        self._position += len(values)
        return Chunk(values, self._position) if values else None

    async def _wait(self) -> None:
        await self._pump.wait()
        if self._pump.error is not None:
            raise _raised(self._pump.error, self._position - self._skip)

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return None

    async def close(self) -> None:
        await self._pump.stop(close=self._owned)


class _PairReader(Generic[T]):
    """Parts `(value, position)`."""

    def __init__(self, pairs: _AsyncReader[Any] | _IteratorReader[Any]) -> None:
        self._pairs = pairs

    async def read(self, limit: int) -> Chunk[T] | None:
        chunk = await self._pairs.read(limit)
        if chunk is None:
            return None
        try:
            return Chunk([value for value, _ in chunk.values], chunk.values[-1][1])
        except (TypeError, ValueError) as error:
            raise InputError(
                "PositionedSource: make(position) must give pairs (value, position), not "
                f"{chunk.values[0]!r:.80}"
            ) from error

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return None

    async def close(self) -> None:
        await self._pairs.close()
