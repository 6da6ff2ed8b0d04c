"""A list in memory as a sink: for tests and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from flowrt.contract.sink import Committable, Sink, SinkContext, Writer

T = TypeVar("T")


class MemorySink(Sink[T], Generic[T]):
    """Collects values in `rows`, where they appear when their epoch is committed.

    Exactly once within a process, through restarts too: what was prepared is kept by epoch, and a
    restore drops what came after. A job that starts from nothing empties it first. A process that
    ends takes its rows with it: a new process goes on with the epochs that follow.
    """

    kind = "repeatable"

    def __init__(self) -> None:
        self._visible: dict[int, list[T]] = {}
        self._prepared: dict[int, dict[int, list[T]]] = {}

    @property
    def rows(self) -> list[T]:
        """All committed values, by epoch and then by subtask; a new list each time."""
        return [value for epoch in sorted(self._visible) for value in self._visible[epoch]]

    def describe(self) -> str:
        """Return the kind."""
        return "memory"

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[T]:
        """Return a writer for one subtask."""
        return _MemoryWriter(self._prepared, ctx.subtask)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """See `Sink.commit`."""
        by_subtask = self._prepared.pop(epoch, None)
        if by_subtask is None:
            return  # committed already, or prepared in a process that is gone
        self._visible[epoch] = [
            value
            for committable in sorted(committables, key=lambda one: int(one["subtask"]))
            for value in by_subtask[committable["subtask"]]
        ]

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        """See `Sink.recover`."""
        if epoch is None:
            self._visible = {}
        else:
            await self.commit(epoch, committables)
            self._visible = {e: rows for e, rows in self._visible.items() if e <= epoch}
        # Writers of an attempt that was given up keep the old dict, where they do no harm.
        self._prepared = {}


class _MemoryWriter(Generic[T]):
    def __init__(self, prepared: dict[int, dict[int, list[T]]], subtask: int) -> None:
        self._prepared = prepared
        self._subtask = subtask
        self._values: list[T] = []

    async def write(self, values: Sequence[T], timestamps: Sequence[int | None] | None) -> None:
        self._values += values

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        values, self._values = self._values, []
        if not values:
            return None
        self._prepared.setdefault(epoch, {})[self._subtask] = values
        committable: dict[str, Any] = {"subtask": self._subtask, "rows": len(values)}
        return committable

    async def close(self) -> None:
        return None
