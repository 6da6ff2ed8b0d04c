"""check_source: a source that breaks a law is found, and told which law and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from flowrt.contract.source import Chunk, Position, Reader, Source, SourceContext, Split
from flowrt.testing import LawBroken, check_source, record

pytestmark = pytest.mark.anyio


class Numbers(Source[int]):
    """Gives 0 to 4, lawfully; each test takes one law away."""

    def __init__(self, reader: type[NumberReader] | None = None) -> None:
        self.make = reader or NumberReader
        self.shared: list[int] = list(range(5))

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        return [Split("0")]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[int]:
        return self.make(self, position)


class NumberReader:
    def __init__(self, source: Numbers, position: Any) -> None:
        self.source = source
        self.next: int = position or 0

    async def read(self, limit: int) -> Chunk[int] | None:
        await checkpoint()
        values = list(range(self.next, min(self.next + limit, 5)))
        self.next += len(values)
        return Chunk(values, self.position()) if values else None

    def position(self) -> Any:
        return self.next

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return 5 - (position or 0), "records"

    async def close(self) -> None:
        return None


ALL = [0, 1, 2, 3, 4]


async def broken(make: Callable[[], Source[Any]], expect: Any = ALL) -> LawBroken:
    with pytest.raises(LawBroken) as caught:
        await check_source(make, expect)
    return caught.value


async def test_a_lawful_source_passes() -> None:
    await check_source(Numbers, ALL)
    await check_source(Numbers, {"0": ALL})


async def test_a_source_without_an_end_is_read_as_far_as_is_expected() -> None:
    class Endless(Numbers):
        bounded = False

    await check_source(Endless, ALL)
    await check_source(Endless, [0, 1])


async def test_other_records_are_shown_as_a_difference() -> None:
    error = await broken(Numbers, [0, 1, 2, 3, 5])

    assert error.law == "a source gives what is expected, in order"
    assert error.where == "split '0'"
    assert "  - 5\n  + 4" in str(error)


async def test_timestamps_count_where_they_are_expected() -> None:
    error = await broken(Numbers, [record(0, at=7), 1, 2, 3, 4])

    assert "  - record(0, at=7)\n  + record(0)" in str(error)


async def test_a_position_that_goes_on_elsewhere() -> None:
    class Behind(NumberReader):
        def position(self) -> Any:
            return self.next - 1

    error = await broken(lambda: Numbers(Behind))

    assert error.law == "reading goes on behind a position with exactly the rest"
    assert error.where == "split '0', read(1), position 0 behind record 1"


async def test_a_position_that_no_snapshot_can_keep() -> None:
    class Odd(NumberReader):
        def position(self) -> Any:
            return {self.next}

    error = await broken(lambda: Numbers(Odd))

    assert error.law == "a position is plain data"
    assert "position behind record 1 of split '0'" in error.where


async def test_a_chunk_that_is_too_long() -> None:
    class Generous(NumberReader):
        async def read(self, limit: int) -> Chunk[int] | None:
            return await super().read(limit + 1)

    error = await broken(lambda: Numbers(Generous))

    assert error.law.startswith("a chunk holds at most what was asked for")
    assert "it gave 2 records for 1" in str(error)


async def test_too_few_timestamps() -> None:
    class Untimely(NumberReader):
        async def read(self, limit: int) -> Chunk[int] | None:
            chunk = await super().read(limit)
            if chunk is not None:
                chunk.timestamps = [1]
            return chunk

    assert "1 timestamps for 5 values" in str(await broken(lambda: Numbers(Untimely)))


async def test_an_end_that_is_none() -> None:
    class Comes(NumberReader):
        ended = False

        async def read(self, limit: int) -> Chunk[int] | None:
            if self.ended:
                return Chunk([], 5)
            chunk = await super().read(limit)
            self.ended = chunk is None
            return chunk

    assert (await broken(lambda: Numbers(Comes))).law == "a split that ended stays at its end"


async def test_a_record_lost_when_a_read_is_cancelled() -> None:
    class Takes(NumberReader):
        """Takes from what all readers share, and waits before it gives it away."""

        def __init__(self, source: Numbers, position: Any) -> None:
            super().__init__(source, position)
            if self.next == 0 and len(source.shared) < 5:
                self.next = 5 - len(source.shared)

        async def read(self, limit: int) -> Chunk[int] | None:
            values = [n for n in self.source.shared if n >= self.next][:limit]
            self.source.shared = [n for n in self.source.shared if n not in values]
            await checkpoint()
            self.next += len(values)
            return Chunk(values, self.next) if values else None

    error = await broken(lambda: Numbers(Takes))

    assert error.law == "a read that is cancelled loses nothing"
    assert error.where == "split '0', after 0 turns behind record 0"


async def test_a_lag_that_grows() -> None:
    class Grows(NumberReader):
        async def lag(self, position: Position) -> tuple[int, str] | None:
            return position or 0, "records"

    error = await broken(lambda: Numbers(Grows))

    assert error.law.startswith("the lag is None, or a number that goes down to 0")
    assert "it was [(0, 'records'), (1, 'records'), (2, 'records')" in str(error)


async def test_splits_that_are_not_the_same_each_time() -> None:
    class Restless(Numbers):
        asked = 0

        async def splits(self, ctx: SourceContext) -> Sequence[Split]:
            self.asked += 1
            return [Split(str(self.asked))]

    class Shares(Numbers):
        async def splits(self, ctx: SourceContext) -> Sequence[Split]:
            return [Split("0")] if ctx.subtask == 0 else []

    class Twice(Numbers):
        async def splits(self, ctx: SourceContext) -> Sequence[Split]:
            return [Split("0"), Split("0")]

    assert (await broken(Restless)).where == "at the second asking"
    assert (await broken(Shares)).where == "in another subtask"
    assert "an id comes twice" in str(await broken(Twice))
    assert (await broken(Numbers, {"1": ALL})).where == "the splits found"


async def test_a_reader_that_cannot_be_closed_before_it_was_read() -> None:
    class Strict(NumberReader):
        async def close(self) -> None:
            if not self.next:
                raise ValueError("nothing to close")

    error = await broken(lambda: Numbers(Strict))

    assert error.law == "a reader can be closed at any time"
    assert "ValueError: nothing to close" in str(error)


async def test_a_source_without_a_description() -> None:
    class Silent(Numbers):
        def describe(self) -> str:
            return ""

    assert (await broken(Silent)).law == "a source describes itself"


async def test_records_that_no_split_gives() -> None:
    class Two(Numbers):
        async def splits(self, ctx: SourceContext) -> Sequence[Split]:
            return [Split("0"), Split("1")]

    await check_source(Two, [*ALL, *ALL])
    assert (await broken(Two, [*ALL, *ALL, 7])).where == "behind the last split"


async def test_a_position_that_skips_a_record() -> None:
    class Ahead(NumberReader):
        def position(self) -> Any:
            return self.next + 1

    error = await broken(lambda: Numbers(Ahead))

    assert error.law == "reading goes on behind a position with exactly the rest"
    assert "position 2 behind record 1" in error.where


async def test_a_position_that_changes_afterwards() -> None:
    class Shares(NumberReader):
        def __init__(self, source: Numbers, position: Any) -> None:
            super().__init__(source, position["next"] if position else 0)
            self.shared = {"next": self.next}

        def position(self) -> Any:
            self.shared["next"] = self.next
            return self.shared

    error = await broken(lambda: Numbers(Shares))

    assert error.law == "reading goes on behind a position with exactly the rest"


async def test_records_that_get_lost_where_fewer_are_asked_for() -> None:
    class Drops(NumberReader):
        async def read(self, limit: int) -> Chunk[int] | None:
            chunk = await super().read(max(limit, 2))
            return chunk and Chunk(chunk.values[:limit], chunk.position)

    error = await broken(lambda: Numbers(Drops))

    assert error.law == "a source gives the same however much is asked for at once"
    assert error.where == "split '0', read(1)"


async def test_an_event_time_that_is_another_when_read_again() -> None:
    class Drifts(NumberReader):
        def __init__(self, source: Numbers, position: Any) -> None:
            super().__init__(source, position)
            self.drift = self.next

        async def read(self, limit: int) -> Chunk[int] | None:
            chunk = await super().read(limit)
            if chunk is not None:
                chunk.timestamps = [value + self.drift for value in chunk.values]
            return chunk

    error = await broken(lambda: Numbers(Drifts), [record(value, at=value) for value in ALL])

    assert error.law == "reading goes on behind a position with exactly the rest"
    assert "  - record(1, at=1)\n  + record(1, at=2)" in str(error)


async def test_a_lag_that_is_left_at_the_end() -> None:
    class Rest(NumberReader):
        async def lag(self, position: Position) -> tuple[int, str] | None:
            return 6 - (position or 0), "records"

    error = await broken(lambda: Numbers(Rest))

    assert error.where == "split '0', at its end"
    assert "it was (1, 'records')" in str(error)


async def test_a_lag_that_is_known_to_be_nothing_only_at_the_end() -> None:
    class Trailer(NumberReader):
        """As of a packed file: some bytes behind the last record."""

        ended = False

        async def read(self, limit: int) -> Chunk[int] | None:
            chunk = await super().read(limit)
            self.ended = chunk is None
            return chunk

        async def lag(self, position: Position) -> tuple[int, str] | None:
            return 0 if self.ended else 8, "bytes"

    await check_source(lambda: Numbers(Trailer), ALL)


@pytest.mark.parametrize("part", ["data", "version"])
async def test_a_split_that_no_snapshot_can_keep(part: str) -> None:
    class Odd(Numbers):
        async def splits(self, ctx: SourceContext) -> Sequence[Split]:
            return [Split("0", **{part: object()})]

    error = await broken(Odd)

    assert error.law == "a position is plain data"
    assert error.where == f"the {part} of split '0'"
