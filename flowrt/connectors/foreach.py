"""A function as a sink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, Generic, Literal, TypeVar, cast, overload

from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.sink import Committable, Sink, SinkContext, Writer

T = TypeVar("T")


class ForeachSink(Sink[T], Generic[T]):
    """Calls `fn(value)` for each value, in order, or with `batch=True` `fn(values)` for lists.

    At least once: what `fn` did cannot be taken back, so after a restart it is called again with
    the values behind the last snapshot. Where a call can be made twice without harm (an upsert by
    key), the effect is exactly-once.

    `fn` is a plain or a coroutine function; one that waits is waited for, and holds up the flow.
    What it raises becomes a `SinkError` that names the value.
    """

    kind = "direct"

    @overload
    def __init__(self, fn: Callable[[T], object], *, batch: Literal[False] = False) -> None: ...
    @overload
    def __init__(self, fn: Callable[[list[T]], object], *, batch: Literal[True]) -> None: ...
    def __init__(self, fn: Callable[[Any], object], *, batch: bool = False) -> None:
        if not callable(fn):
            raise ConfigError(f"ForeachSink takes a function, not {type(fn).__name__}")
        self._fn = fn
        self._batch = batch
        self.takes_many = batch

    def describe(self) -> str:
        """Return the function's name."""
        return f"foreach {_name(self._fn)}{' (batches)' if self._batch else ''}"

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[T]:
        """Return a writer for one subtask."""
        if self._batch:
            return _BatchWriter(self._fn, ctx.operator)
        return _EachWriter(self._fn, ctx.operator)


class _EachWriter(Generic[T]):
    def __init__(self, fn: Callable[[T], Any], operator: str) -> None:
        self._fn = fn
        self._operator = operator

    async def write(self, values: Sequence[T], timestamps: Sequence[int | None] | None) -> None:
        fn = self._fn
        for value in values:
            try:
                result = fn(value)
                if result is not None and isawaitable(result):
                    await cast(Awaitable[object], result)
            except Exception as error:
                raise _failed(self._operator, fn, value, error) from error

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        return None

    async def close(self) -> None:
        return None


class _BatchWriter(_EachWriter[T]):
    async def write(self, values: Sequence[T], timestamps: Sequence[int | None] | None) -> None:
        try:
            result = self._fn(list(values))  # type: ignore[arg-type]
            if result is not None and isawaitable(result):
                await cast(Awaitable[object], result)
        except Exception as error:
            raise _failed(self._operator, self._fn, values, error) from error


def _failed(operator: str, fn: object, value: object, error: Exception) -> SinkError:
    text = repr(value)
    text = text if len(text) <= 200 else text[:199] + "…"
    return SinkError(f"sink {operator!r}: {_name(fn)} raised {error!r} for {text}")


def _name(fn: object) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
