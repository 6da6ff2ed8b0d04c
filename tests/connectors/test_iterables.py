from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flowrt.connectors.iterables import IterableSource, PositionedSource
from flowrt.connectors.pump import CAPACITY
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.source import Chunk
from flowrt.testing import check_source
from tests.connectors.kit import check_replay, chunks_of, open_reader, read_all, source_context

pytestmark = pytest.mark.anyio


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Countdown:
    """Can be iterated again and again, without being a sequence."""

    def __iter__(self) -> Iterator[int]:
        return iter((3, 2, 1))


class Inbox:
    """An async iterator that may be asked again after it was cancelled; END ends it."""

    def __init__(self) -> None:
        self.send, self._receive = anyio.create_memory_object_stream[Any](10)

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def close(self) -> None:
        self.send.close()
        self._receive.close()


# ------------------------------------------------------------------------------------ replayable


@pytest.mark.parametrize(
    "given",
    [
        [3, 2, 1],
        (3, 2, 1),
        range(3, 0, -1),
        deque([3, 2, 1]),
        {3: "c", 2: "b", 1: "a"},
        Countdown(),
        lambda: iter([3, 2, 1]),
    ],
    ids=["list", "tuple", "range", "deque", "dict", "iterable", "callable"],
)
@pytest.mark.parametrize("limit", [1, 2, 10])
async def test_what_can_be_read_again_is_replayable(given: Any, limit: int) -> None:
    source: IterableSource[int] = IterableSource(given)

    assert source.replayable
    assert await check_replay(source, source_context(), limit) == [3, 2, 1]


@pytest.mark.parametrize("limit", [1, 2, 10])
async def test_a_callable_may_make_async_generators(limit: int) -> None:
    source = IterableSource(lambda: numbers(4))

    assert source.replayable
    assert await check_replay(source, source_context(), limit) == [0, 1, 2, 3]


@pytest.mark.parametrize("given", [[1, 2], lambda: iter([1, 2]), lambda: numbers(2)])
async def test_an_iterable_shorter_than_its_position_is_an_error(given: Any) -> None:
    with pytest.raises(InputError, match="has 2 records, but the checkpoint has read 3"):
        await read_all(IterableSource(given), position=3)


async def test_lag_of_a_sequence() -> None:
    reader = await open_reader(IterableSource([1, 2, 3]), source_context())

    assert await reader.lag(None) == (3, "records")
    assert await reader.lag(2) == (1, "records")


# --------------------------------------------------------------------------------------- one-shot


@pytest.mark.parametrize(
    "make",
    [lambda: iter([1, 2, 3]), lambda: (n for n in (1, 2, 3)), lambda: {1, 2, 3}],
    ids=["iterator", "generator", "set"],
)
async def test_what_cannot_be_read_again_goes_on_within_the_process(
    make: Callable[[], Any],
) -> None:
    source: IterableSource[int] = IterableSource(make())
    first = await (await open_reader(source, source_context())).read(1)

    assert not source.replayable
    assert first is not None
    assert sorted(first.values + await read_all(source, position=0)) == [1, 2, 3]


async def test_an_async_iterator_goes_on_after_its_reading_was_cancelled() -> None:
    inbox = Inbox()
    source = IterableSource(inbox)
    reader = await open_reader(source, source_context())
    inbox.send.send_nowait(1)

    assert await reader.read(1) == Chunk([1], 1)
    async with anyio.create_task_group() as group:
        group.start_soon(reader.read, 1)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    for number in (2, 3):
        inbox.send.send_nowait(number)
    await anyio.wait_all_tasks_blocked()
    await reader.close()  # 2 and 3 were taken from the inbox, and are not lost
    inbox.send.send_nowait(4)
    inbox.send.close()

    assert await read_all(source, position=1) == [2, 3, 4]
    inbox.close()


async def test_an_async_generator_ended_by_a_cancellation_is_an_error_not_an_end() -> None:
    async def endless() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    source = IterableSource(endless())
    reader = await open_reader(source, source_context())
    assert await reader.read(1) == Chunk([1], 1)
    await checkpoint()
    await reader.close()

    with pytest.raises(InputError, match="cannot be read on after its reading was cancelled"):
        await open_reader(source, source_context())


async def test_an_async_generator_that_ended_stays_ended() -> None:
    source = IterableSource(numbers(2))

    assert await read_all(source) == [0, 1]
    assert await read_all(source) == []


# ---------------------------------------------------------------------------------- async reading


async def test_a_record_is_handed_on_at_once_and_more_together() -> None:
    inbox = Inbox()
    reader = await open_reader(IterableSource(inbox), source_context())
    chunks: list[Chunk[Any] | None] = []

    async def read() -> None:
        chunks.append(await reader.read(10))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await inbox.send.send("a")
    for letter in "bcd":
        inbox.send.send_nowait(letter)
    await anyio.wait_all_tasks_blocked()
    await read()

    assert chunks == [Chunk(["a"], 1), Chunk(["b", "c", "d"], 4)]
    await reader.close()
    inbox.close()


async def test_reading_ahead_is_bounded() -> None:
    asked = 0

    async def endless() -> AsyncIterator[int]:
        nonlocal asked
        while True:
            asked += 1
            yield asked

    reader = await open_reader(IterableSource(endless), source_context())

    await reader.read(1)
    await anyio.wait_all_tasks_blocked()

    assert asked == CAPACITY + 1
    chunk = await reader.read(5)
    assert chunk == Chunk([2, 3, 4, 5, 6], 6)
    await reader.close()


async def test_closing_ends_what_the_source_made() -> None:
    closed = []

    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    reader = await open_reader(IterableSource(endless), source_context())
    await reader.read(1)
    await reader.close()

    assert closed == [True]


async def test_a_reader_that_was_never_read_can_be_closed() -> None:
    reader = await open_reader(IterableSource(lambda: numbers(1)), source_context())

    await reader.close()


# ----------------------------------------------------------------------------------------- errors


def failing() -> Iterator[int]:
    yield from (1, 2)
    raise OSError("the line is dead")


async def failing_async() -> AsyncIterator[int]:
    yield 1
    yield 2
    raise OSError("the line is dead")


async def read_into(values: list[int], source: IterableSource[int]) -> None:
    async for chunk in chunks_of(await open_reader(source, source_context())):
        values += chunk.values


@pytest.mark.parametrize("make", [failing, failing_async])
@pytest.mark.parametrize("once", [True, False])
async def test_what_an_iterable_raises_comes_after_its_records(
    make: Callable[[], Any], once: bool
) -> None:
    source: IterableSource[int] = IterableSource(make() if once else make)
    values: list[int] = []

    for _ in range(2):  # a second attempt meets the error again, not an end
        with pytest.raises(InputError, match=r"raised OSError\('the line is dead'\)") as caught:
            await read_into(values, source)
        assert isinstance(caught.value.__cause__, OSError)

    assert values == ([1, 2] if once else [1, 2, 1, 2])


@pytest.mark.parametrize("given", ["text", b"bytes", 5, None])
async def test_what_is_no_stream_of_records_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError):
        IterableSource(given)


async def test_a_callable_that_makes_no_iterable_is_refused() -> None:
    async def coroutine() -> list[int]:
        return [1]

    for make in (lambda: 5, coroutine):
        with pytest.raises(ConfigError, match="which is not iterable"):
            await read_all(IterableSource(make))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------- positioned


async def test_a_source_with_positions_of_its_own() -> None:
    log = [("a", "p1"), ("b", "p2"), ("c", "p3")]

    async def follow(position: str | None) -> AsyncIterator[tuple[str, str]]:
        for value, at in log:
            if position is None or at > position:
                yield value, at

    def read(position: str | None) -> Iterator[tuple[str, str]]:
        return ((value, at) for value, at in log if position is None or at > position)

    for source in (PositionedSource(follow), PositionedSource(read)):
        assert await check_replay(source, source_context(), 1) == ["a", "b", "c"]
        assert await check_replay(source, source_context(), 10) == ["a", "b", "c"]
        assert await read_all(source, position="p2") == ["c"]


async def test_a_value_without_a_position_is_named() -> None:
    def without_positions(position: object) -> Any:
        return [17]

    with pytest.raises(InputError, match="must give pairs"):
        await read_all(PositionedSource(without_positions))
    with pytest.raises(ConfigError, match="takes a callable"):
        PositionedSource([1])  # type: ignore[arg-type]


def test_what_the_sources_say_of_themselves() -> None:
    def read(position: object) -> list[tuple[int, int]]:
        return []

    assert IterableSource([1]).describe() == "list (replayable)"
    assert IterableSource(iter([1])).describe() == "list_iterator (cannot be read again)"
    assert PositionedSource(read).describe() == "read (replayable)"
    assert IterableSource([1]).bounded
    assert not IterableSource(failing_async).bounded  # nobody can tell
    assert IterableSource(failing_async, bounded=True).bounded


# ------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize(
    "given",
    [
        [3, 2, 1],
        range(3, 0, -1),
        deque([3, 2, 1]),
        Countdown(),
        lambda: iter([3, 2, 1]),
        lambda: (3 - number async for number in numbers(3)),
    ],
    ids=["list", "range", "deque", "iterable", "callable", "async callable"],
)
async def test_laws_of_what_can_be_read_again(given: Any) -> None:
    await check_source(lambda: IterableSource(given), [3, 2, 1])


@pytest.mark.parametrize("given", [[], (), lambda: iter([]), lambda: numbers(0)])
async def test_laws_of_what_is_empty(given: Any) -> None:
    await check_source(lambda: IterableSource(given), [])


async def test_laws_of_what_has_no_end() -> None:
    await check_source(lambda: IterableSource(lambda: count(1), bounded=False), [1, 2, 3, 4])


@pytest.mark.parametrize("make", [lambda: iter(range(3)), lambda: {0, 1, 2}, lambda: numbers(3)])
async def test_laws_of_what_cannot_be_read_again(make: Callable[[], Any]) -> None:
    await check_source(lambda: IterableSource(make(), bounded=True), [0, 1, 2])


async def test_laws_of_a_source_with_positions_of_its_own() -> None:
    log = [("a", {"page": 1, "row": 1}), ("b", {"page": 1, "row": 2}), ("c", {"page": 2, "row": 1})]

    def read(position: dict[str, int] | None) -> list[tuple[str, dict[str, int]]]:
        places = [at for _, at in log]
        return log[places.index(position) + 1 if position is not None else 0 :]

    async def follow(
        position: dict[str, int] | None,
    ) -> AsyncIterator[tuple[str, dict[str, int]]]:
        for pair in read(position):
            await checkpoint()
            yield pair

    await check_source(lambda: PositionedSource(read), ["a", "b", "c"])
    await check_source(lambda: PositionedSource(follow), ["a", "b", "c"])
