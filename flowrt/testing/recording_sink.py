"""A sink in memory that remembers all that was asked of it, and fails where it is told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.plural import plural
from flowrt.contract.sink import Committable, Sink, SinkContext, SinkKind, Writer

T = TypeVar("T")

SinkStep: TypeAlias = Literal["recover", "writer", "write", "prepare", "commit", "committed"]
"""Where a `RecordingSink` can fail: "commit" before anything becomes visible, "committed" after."""


class ScriptedSinkFailure(SinkError):
    """What a `RecordingSink` raises where it was told to fail."""


class RecordingSink(Sink[T], Generic[T]):
    """Shows in `rows` what was committed, and in `calls` what was asked of it, in order.

    `fail_on` holds (step, n): the n-th time (from 1, over all subtasks and restarts) that the step
    comes, it raises. Of kind "repeatable" (default) or "deciding" rows appear at the commit, of
    kind "direct" as they are written. What it holds survives restarts in the process, as a database
    would.
    """

    def __init__(
        self, *, kind: SinkKind = "repeatable", fail_on: Iterable[tuple[SinkStep, int]] = ()
    ) -> None:
        self.kind = kind
        self.calls: list[str] = []
        """Such as "recover 3", "write 10", "prepare 4": with the epoch or the number of records."""
        self._fail_on = set(fail_on)
        for step, number in self._fail_on:
            if step not in get_args(SinkStep) or number < 1:
                raise ConfigError(
                    f"fail_on has {(step, number)!r}: the step is one of "
                    f"{', '.join(get_args(SinkStep))}, the number counts from 1"
                )
        self._count: Counter[str] = Counter()
        self._direct: list[T] = []
        self._visible: dict[int, list[T]] = {}
        self._prepared: dict[int, list[T]] = {}
        self._tokens = 0

    @property
    def rows(self) -> list[T]:
        """All that is visible, epoch by epoch; a new list each time."""
        committed = [value for epoch in sorted(self._visible) for value in self._visible[epoch]]
        return [*self._direct, *committed]

    @property
    def epochs(self) -> list[int]:
        """The epochs that have visible rows, or were committed without any."""
        return sorted(self._visible)

    def describe(self) -> str:
        """Return the kind."""
        return f"recording ({self.kind})"

    async def last_committed(self, ctx: SinkContext) -> int | None:
        """See `Sink.last_committed`."""
        self.calls.append("last committed")
        return max(self._visible, default=None)

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        """See `Sink.recover`."""
        self._reach("recover", epoch)
        if epoch is not None and epoch not in self._visible:
            self._show(epoch, committables)
        self._visible = {e: rows for e, rows in self._visible.items() if epoch and e <= epoch}
        self._prepared = {}

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[T]:
        """See `Sink.writer`."""
        self._reach("writer", ctx.subtask)
        return _Writer(self)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """See `Sink.commit`."""
        self._reach("commit", epoch)
        if epoch not in self._visible and self.kind != "direct":
            self._show(epoch, committables)
        self._fail("committed")

    async def close(self) -> None:
        """See `Sink.close`."""
        self.calls.append("close")

    # ------------------------------------------------------------------ for the writers

    def take(self, held: list[T], values: Sequence[T]) -> None:
        """Take records, to hold them until they are prepared."""
        self._reach("write", len(values))
        (self._direct if self.kind == "direct" else held).extend(values)

    def prepare(self, epoch: int, held: list[T]) -> Committable | None:
        """Keep a writer's records for the commit."""
        self._reach("prepare", epoch)
        if not held:
            return None
        self._tokens += 1
        self._prepared[self._tokens] = held
        return self._tokens

    def _show(self, epoch: int, committables: Sequence[Committable]) -> None:
        lost = [token for token in committables if token not in self._prepared]
        if lost:
            what = f"{len(lost)} {plural(len(lost), 'part')}"
            raise SinkError(f"epoch {epoch} is to be committed, but lost {what}")
        parts = [self._prepared.pop(token) for token in committables]
        self._visible[epoch] = [value for part in parts for value in part]

    def _reach(self, step: SinkStep, about: Any) -> None:
        self.calls.append(f"{step} {about}")
        self._fail(step)

    def _fail(self, step: SinkStep) -> None:
        self._count[step] += 1
        if (step, self._count[step]) in self._fail_on:
            raise ScriptedSinkFailure(f"{step} number {self._count[step]} fails, as scripted")


class _Writer(Generic[T]):
    def __init__(self, sink: RecordingSink[T]) -> None:
        self._sink = sink
        self._held: list[T] = []

    async def write(self, values: Sequence[T], timestamps: Sequence[int | None] | None) -> None:
        self._sink.take(self._held, values)

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        committable = self._sink.prepare(epoch, self._held)
        self._held = []
        return committable

    async def close(self) -> None:
        self._sink.calls.append("writer close")
