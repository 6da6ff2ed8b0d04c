"""Sinks: where results go.

Records written before a barrier become durable but unseen in `prepare`, and visible in `commit`,
once the epoch is decided. After a crash `commit` may come again and must change nothing.

Two kinds can be exactly-once. A *repeatable* sink can do its commit again with one effect (rename
of files, rows with an epoch marker); the checkpoint's manifest decides. A *deciding* sink has a
transaction that cannot be finished after a crash (Kafka): its commit carries the epoch's number and
is itself the commit point; recovery asks it for the last epoch it committed. A flow has at most one
deciding sink. Any other sink is `direct`: what is written is visible at once, so a restart repeats
what followed the last snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from flowrt.contract.world import World

T_contra = TypeVar("T_contra", contravariant=True)

Committable: TypeAlias = Any
"""Plain data (numbers, text, bytes, lists, dicts with text keys) that says what to commit.

Part of the snapshot.
"""

SinkKind: TypeAlias = Literal["repeatable", "deciding", "direct"]


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink may use.

    `operator` is its stable id; `generation` grows with every start of the job on the same
    checkpoint folder, so that names made with it are never used by two instances. `take_over` says
    that a former instance may hang and still hold what is to be used here.
    """

    operator: str
    subtask: int
    parallelism: int
    generation: int
    world: World
    take_over: bool = False


class Writer(Protocol[T_contra]):
    """Writes the records of one subtask."""

    async def write(
        self, values: Sequence[T_contra], timestamps: Sequence[int | None] | None
    ) -> None:
        """Take records; waits while the outside world is slow (that is the backpressure)."""
        ...

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        """Make what was written since the last `prepare` durable and unseen.

        None where there is nothing.

        After a `final` one nothing more is written: what was held back for later epochs belongs to
        it.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections; called once, also after an error; commits nothing."""
        ...


class Sink(Generic[T_contra]):
    """Where results go. Required: `writer`, and `commit` unless the kind is `direct`.

    The runtime calls, for each attempt to run: `recover` once, then `writer` for each subtask, then
    for each epoch `prepare` on all writers and `commit` once with everything they returned.
    """

    kind: SinkKind = "direct"

    takes_many: bool = True
    """Whether a write of many records takes hardly longer than one of few.

    Then up to `channel_capacity` records may wait in front of a writer, and it is given them at
    once. Where each record takes its time, say False: epochs and drains, which come behind what
    waits, then wait for some 20 ms of records.
    """

    def describe(self) -> str:
        """Return a short text for `flowrt explain` and for messages."""
        return type(self).__name__

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[T_contra]:
        """Open a writer.

        `prepared` is what the writers of all subtasks returned for the epoch restored, or [].
        """
        raise NotImplementedError(f"{type(self).__name__} has no writer method")

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """Make an epoch visible, once and whole.

        May come again after a crash and then changes nothing.

        `SinkError` where it fails: the job stops or restarts, and the commit comes again.
        """
        return None

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        """Commit `epoch` again, then undo whatever later epochs left; before the first writer.

        `epoch` None means that the job starts from nothing: results of an earlier life of the same
        job must not be mistaken for its own (`SinkError` saying so, where the sink can tell).
        """
        return None

    def counters(self) -> Mapping[str, int]:
        """Return what the sink counts beside records, by name, such as "missed_events".

        `job.metrics().counters` and what exports metrics show them. A count only grows, for as long
        as this object lives, also through restarts of the job. Asked when somebody looks, from any
        thread: so count in plain attributes, and return them.
        """
        return {}

    async def last_committed(self, ctx: SinkContext) -> int | None:
        """Fence any former instance, then return the last epoch it committed, or None.

        Asked of deciding sinks only.
        """
        return None

    async def close(self) -> None:
        """Let go of what `recover` or `last_committed` opened; called once for each attempt."""
        return None
