"""Sources: where records come from.

A source is divided into splits; each is read by one reader, in order. Every chunk a reader returns
carries the position behind it, so that a snapshot can be taken between any two chunks, and reading
again from a position gives the same records (a replayable source) or goes on as well as it can (one
that is not).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from flowrt.contract.time import WatermarkStrategy
from flowrt.contract.world import World

T = TypeVar("T")

Position: TypeAlias = Any
"""Plain data (numbers, text, bytes, lists, dicts with text keys): where to go on reading."""


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a source that one reader reads alone: a file, a partition.

    `id` is unique within the source and stays the same for ever; `data` is plain data for the
    reader.

    `version` decides about a split that was read to its end, each time the job goes on from a
    snapshot. With None it has ended for ever. Otherwise it is opened again at its end where data or
    version (plain data, such as a size) are not what they were, and simply ends again if there is
    nothing more; `UNKNOWN` opens it each time, for sources that cannot tell so cheaply.
    """

    id: str
    data: Any = None
    version: Any = None


UNKNOWN: Final = "unknown"
"""The version of a split of which only reading tells whether there is more."""


@dataclass(slots=True)
class Chunk(Generic[T]):
    """A run of records, in order, and the position behind the last of them.

    `timestamps` are event times in ms where the source knows them. `values` is given away.
    """

    values: list[T]
    position: Position
    timestamps: list[int | None] | None = None


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may use. `operator` is its stable id.

    `take_over` says, in `claim` alone, that a former instance may hang and still hold what is to be
    used here.
    """

    operator: str
    subtask: int
    parallelism: int
    world: World
    take_over: bool = False


class Reader(Protocol[T]):
    """Reads one split."""

    async def read(self, limit: int) -> Chunk[T] | None:
        """Wait for at least one record, return at most `limit`.

        None at the end of the split, for ever.

        May be cancelled while it waits, and is never called again after that: a record must not
        leave the reader other than by being returned. A chunk without values is allowed: it only
        moves the position. `InputError` for data that cannot be read, naming the split and the
        position.
        """
        ...

    async def lag(self, position: Position) -> tuple[int, str] | None:
        """Return how much of the split lies behind `position` now, and the unit ("bytes" …).

        None where that cannot be known.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections; called once."""
        ...


class Source(Generic[T]):
    """Where records come from. Required: `splits` and `reader`."""

    replayable: bool = True
    """Whether reading from a position gives the same records again; without it, at most once."""

    bounded: bool = True
    """Whether the source ends by itself."""

    max_open_splits: int = 0
    """How many splits a subtask reads at once.

    0 for all. With 1 they are read one after the other.
    """

    discovery_interval_ms: int | None = None
    """How often `splits` is asked again.

    None for only once. A source that asks again never ends.
    """

    needs_checkpoints: bool = False
    """Whether a job that keeps no checkpoints is refused: it would read the same again."""

    watermarks: WatermarkStrategy[T] | None = None
    """The source's own idea of event time, unless the flow says otherwise."""

    def describe(self) -> str:
        """Return a short text for `flowrt explain` and for messages."""
        return type(self).__name__

    async def claim(self, ctx: SourceContext) -> None:
        """Take what only one job may have, and find out whether it can be used.

        Called once for each job, before it takes its checkpoint folder: an error refuses the job
        before its body runs, and no other that runs is harmed. With `ctx.take_over` it is taken
        from whoever has it. `ended` gives it back; where this raises, it must have been given back.
        """
        return None

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return all splits that exist now, in the order in which to read them.

        Called in each subtask, which keeps those that are its own. A split that was read to its end
        is remembered for as long as it is listed here, and for a day longer; `Split.version` says
        whether it is read on at the next start.
        """
        raise NotImplementedError(f"{type(self).__name__} has no splits method")

    async def goes_on(self, split: Split, position: Position | None, ctx: SourceContext) -> bool:
        """Say whether a split that comes back is still the one that was read to `position`.

        Asked where one that had ended was not listed for a while, and is listed with other data or
        another version. It then goes on there; otherwise, and by default, it is a new one of that
        name and read from its beginning.
        """
        return False

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Open a split at a position that a chunk carried; None for its beginning."""
        raise NotImplementedError(f"{type(self).__name__} has no reader method")

    def counters(self) -> Mapping[str, int]:
        """Return what the source counts beside records, by name, such as "skipped_lines".

        `job.metrics().counters` and what exports metrics show them. A count only grows, for as long
        as this object lives, also through restarts of the job. Asked when somebody looks, from any
        thread: so count in plain attributes, and return them.
        """
        return {}

    async def committed(self, epoch: int, positions: Mapping[str, Position]) -> None:
        """Hear that an epoch is committed.

        Nothing before these positions (by split) is asked again.
        """
        return None

    def ended(self) -> None:
        """Hear that the job is over, in whatever way: nothing is read until another one starts.

        Called once for each job whose `claim` returned, behind everything else; not between its
        restarts.
        """
        return None
