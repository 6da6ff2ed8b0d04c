"""The laws of sources, checked over one source: however it is read, it gives the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import anyio

from flowrt.contract.source import Chunk, Position, Reader, Source, SourceContext, Split
from flowrt.contract.world import World
from flowrt.testing.laws import LawBroken, difference, stopped_after, through_a_snapshot
from flowrt.testing.script import Record
from flowrt.testing.world import manual_world

MakeSource: TypeAlias = Callable[[], Source[Any]]
Expected: TypeAlias = Sequence[Any] | Mapping[str, Sequence[Any]]

READING = "a source gives what is expected, in order"
CHUNKS = "a chunk holds at most what was asked for, and as many timestamps as values"
LIMITS = "a source gives the same however much is asked for at once"
POSITIONS = "reading goes on behind a position with exactly the rest"
PLAIN = "a position is plain data"
END_STAYS = "a split that ended stays at its end"
CANCELLED = "a read that is cancelled loses nothing"
LAGS = "the lag is None, or a number that goes down to 0 as records are read, and its unit"
SPLITS = "the list of splits is the same at each asking, in each subtask and after a restart"
CLOSES = "a reader can be closed at any time"

_WHOLE = 1_024
_CANCELLED_AFTER = range(4)
"""Turns of the event loop after which a read is cancelled."""


async def check_source(
    make: MakeSource, expect: Expected, *, world: World | None = None, longest_limit: int = 8
) -> None:
    """Check every law of sources over one source; `LawBroken` says which is broken, where and how.

    `make` returns the source, as a new process would make it. `expect` are all its records, split
    after split, or a dict of split id to records: values, or `record(value, at=…)` where the event
    time counts. Of a source that is not bounded only as many are read as are expected. `world` is a
    `manual_world()` unless given; the source must give its records in it without the clock being
    moved.

    The source is read: whole; with limits from 1 to `longest_limit`; again behind each position;
    with reads that are cancelled. Of a source that is not replayable only the first reading is
    compared. The cost grows with the square of the number of records: a dozen tell as much as a
    thousand.
    """
    check = _SourceCheck(make, world or manual_world())
    await check.splits()
    expected = await check.expected(expect)
    for split, records in zip(check.found, expected, strict=True):
        await check.whole(split, records)
        await check.closing(split)
        if make().replayable:
            for limit in range(1, longest_limit + 1):
                await check.limit(split, records, limit)
            await check.cancelled(split, records)
        await check.lags(split, records)
    source = make()
    await source.committed(1, {split.id: None for split in check.found})
    source.ended()


class _SourceCheck:
    def __init__(self, make: MakeSource, world: World) -> None:
        self.make = make
        self.found: list[Split] = []
        self._world = world

    def _context(self, subtask: int = 0, parallelism: int = 1) -> SourceContext:
        return SourceContext("source", subtask, parallelism, self._world)

    # ------------------------------------------------------------------ splits

    async def splits(self) -> None:
        """Find the splits, and see that they are always the same."""
        source = self.make()
        self.found = list(await source.splits(self._context()))
        ids = [split.id for split in self.found]
        if len(set(ids)) != len(ids):
            raise LawBroken(SPLITS, "at the first asking", f"  an id comes twice: {ids}")
        for split in self.found:
            _plain(split.data, f"the data of split {split.id!r}")
            _plain(split.version, f"the version of split {split.id!r}")
        for again, subtask, where in (
            (source, 0, "at the second asking"),
            (source, 1, "in another subtask"),
            (self.make(), 0, "after a restart"),
        ):
            splits = list(await again.splits(self._context(subtask, 2)))
            if splits != self.found:
                raise LawBroken(SPLITS, where, difference(self.found, splits))
        if not source.describe():
            raise LawBroken("a source describes itself", "describe()", "  it returned no text")

    async def expected(self, expect: Expected) -> list[list[Any]]:
        """Return the expected records of each split found."""
        if isinstance(expect, Mapping):
            ids = [split.id for split in self.found]
            if set(ids) != set(expect):
                raise LawBroken(SPLITS, "the splits found", difference(sorted(expect), sorted(ids)))
            return [list(expect[id]) for id in ids]
        if len(self.found) == 1:
            return [list(expect)]
        return await self._shared_out(list(expect))

    async def _shared_out(self, expect: list[Any]) -> list[list[Any]]:
        """Share a flat list out over the splits, by how much each gives."""
        source = self.make()
        shares: list[list[Any]] = []
        for split in self.found:
            rest = len(expect) - sum(map(len, shares))
            most = None if source.bounded else rest
            got, _ = await self._read(source, split, None, _WHOLE, most)
            start = len(expect) - rest
            shares.append(expect[start : start + len(got)])
        missing = expect[sum(map(len, shares)) :]
        if missing:
            raise LawBroken(READING, "behind the last split", difference(missing, []))
        return shares

    # ------------------------------------------------------------------ reading

    async def whole(self, split: Split, records: list[Any]) -> None:
        """Read a split from its beginning."""
        source = self.make()
        most = None if source.bounded else len(records)
        got, _ = await self._read(source, split, None, _WHOLE, most)
        self._compare(READING, f"split {split.id!r}", records, got)

    async def lags(self, split: Split, records: list[Any]) -> None:
        """Ask for the lag behind each record and at the end, and for more behind that."""
        source = self.make()
        reader = await source.reader(split, None, self._context())
        position: Position = None
        lags = [await reader.lag(position)]
        read = 0
        try:
            while source.bounded or read < len(records):
                chunk = await reader.read(1)
                if chunk is None:
                    if (more := await reader.read(1)) is not None:
                        where = f"split {split.id!r}"
                        raise LawBroken(END_STAYS, where, f"  behind its end it gave {more}")
                    # Once more: only now does the reader itself know that this is the end.
                    lags.append(await reader.lag(position))
                    break
                read += len(chunk.values)
                position = chunk.position
                lags.append(await reader.lag(position))
        finally:
            await reader.close()
        _check_lags(lags, f"split {split.id!r}", ended=source.bounded)

    async def limit(self, split: Split, records: list[Any], limit: int) -> None:
        """Read a split in chunks, then again from each position."""
        source = self.make()
        most = None if source.bounded else len(records)
        where = f"split {split.id!r}, read({limit})"
        got, positions = await self._read(source, split, None, limit, most)
        self._compare(LIMITS, where, records, got)
        for count, position in positions:
            kept = _plain(position, f"the position behind record {count} of split {split.id!r}")
            place = f"{where}, position {position!r} behind record {count}"
            rest, _ = await self._read(
                self.make(), split, kept, limit, None if most is None else most - count
            )
            self._compare(POSITIONS, place, records[count:], rest)

    async def cancelled(self, split: Split, records: list[Any]) -> None:
        """Cancel a read at each place, and go on in the same process with a new reader."""
        for turns in _CANCELLED_AFTER:
            source = self.make()
            most = None if source.bounded else len(records)
            _, positions = await self._read(source, split, None, 1, most)
            for count, position in [(0, None), *positions]:
                place = f"split {split.id!r}, after {turns} turns behind record {count}"
                reader = await source.reader(split, position, self._context())
                done = await self._cancel(reader, turns, at_end=count >= len(records))
                got = _records(done[0]) if done and done[0] is not None else []
                if done and done[0] is not None:
                    position = done[0].position
                left = None if most is None else most - count - len(got)
                rest, _ = await self._read(source, split, position, _WHOLE, left)
                self._compare(CANCELLED, place, records[count:], [*got, *rest])

    async def _cancel(
        self, reader: Reader[Any], turns: int, *, at_end: bool
    ) -> list[Chunk[Any] | None]:
        try:
            if at_end:
                return []
            return await stopped_after(turns, lambda: reader.read(1))
        finally:
            await reader.close()

    async def closing(self, split: Split) -> None:
        """Close a reader that was never read, from the beginning."""
        reader = await self.make().reader(split, None, self._context())
        await _lawful(CLOSES, f"split {split.id!r}, before the first read", reader.close)

    async def _read(
        self, source: Source[Any], split: Split, position: Position, limit: int, most: int | None
    ) -> tuple[list[Any], list[tuple[int, Position]]]:
        """Read on; return the records, and positions with the number of records before each."""
        where = f"split {split.id!r}, read({limit}) behind position {position!r}"
        reader = await source.reader(split, position, self._context())
        got: list[Any] = []
        positions: list[tuple[int, Position]] = []
        try:
            while most is None or len(got) < most:
                asked = limit if most is None else min(limit, most - len(got))
                chunk = await _chunk(reader, asked, where)
                if chunk is None:
                    break
                got += _records(chunk)
                positions.append((len(got), chunk.position))
        finally:
            with anyio.CancelScope(shield=True):
                await reader.close()
        return got, positions

    def _compare(self, law: str, where: str, expected: list[Any], got: list[Any]) -> None:
        have = [
            one if isinstance(want, Record) else one.value
            for one, want in zip(got, [*expected, *([None] * len(got))], strict=False)
        ]
        if have != expected:
            raise LawBroken(law, where, difference(expected, have))


async def _chunk(reader: Reader[Any], limit: int, where: str) -> Chunk[Any] | None:
    chunk = await reader.read(limit)
    if chunk is None:
        return None
    if len(chunk.values) > limit:
        raise LawBroken(CHUNKS, where, f"  it gave {len(chunk.values)} records for {limit}")
    times = chunk.timestamps
    if times is not None and len(times) != len(chunk.values):
        wrong = f"  it gave {len(times)} timestamps for {len(chunk.values)} values"
        raise LawBroken(CHUNKS, where, wrong)
    return chunk


def _records(chunk: Chunk[Any]) -> list[Record]:
    times = chunk.timestamps or [None] * len(chunk.values)
    return list(map(Record, chunk.values, times))


def _check_lags(lags: list[tuple[int, str] | None], where: str, *, ended: bool) -> None:
    known = [lag for lag in lags if lag is not None]
    if not known:
        return
    numbers = [number for number, _ in known]
    units = {unit for _, unit in known}
    falls = all(before >= after for before, after in pairwise(numbers))
    if len(known) != len(lags) or len(units) != 1 or not falls or numbers[-1] < 0:
        raise LawBroken(LAGS, where, f"  it was {lags}")
    if ended and numbers[-1] != 0:
        raise LawBroken(LAGS, f"{where}, at its end", f"  it was {lags[-1]}")


def _plain(data: Any, what: str) -> Any:
    try:
        back = through_a_snapshot(data, what)
    except Exception as error:
        raise LawBroken(PLAIN, what, f"  {error}") from error
    if back != data:
        raise LawBroken(PLAIN, what, f"  {data!r} came back as {back!r}")
    return back


async def _lawful(law: str, where: str, call: Callable[[], Awaitable[None]]) -> None:
    try:
        await call()
    except Exception as error:
        raise LawBroken(law, where, f"  it raised {type(error).__name__}: {error}") from error
