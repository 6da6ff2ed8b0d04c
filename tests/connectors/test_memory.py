from __future__ import annotations

import pytest

from flowrt.connectors.memory import MemorySink
from flowrt.testing import check_sink
from tests.connectors.kit import sink_context

pytestmark = pytest.mark.anyio


async def test_rows_appear_when_their_epoch_is_committed() -> None:
    sink: MemorySink[str] = MemorySink()
    await sink.recover(None, [], sink_context())
    first = await sink.writer(sink_context(subtask=0, parallelism=2), [])
    second = await sink.writer(sink_context(subtask=1, parallelism=2), [])

    await second.write(["c"], None)
    await first.write(["a"], None)
    await first.write(["b"], None)
    prepared = [await second.prepare(1), await first.prepare(1)]
    assert sink.rows == []
    await sink.commit(1, prepared)
    await sink.commit(1, prepared)

    assert sink.rows == ["a", "b", "c"]
    assert await first.prepare(2) is None


async def test_rows_are_there_once_through_restarts() -> None:
    sink: MemorySink[int] = MemorySink()
    await sink.recover(None, [], sink_context())
    writer = await sink.writer(sink_context(), [])
    prepared = {}
    for epoch in (1, 2, 3, 4):
        await writer.write([epoch], None)
        prepared[epoch] = [await writer.prepare(epoch)]
        if epoch <= 2:
            await sink.commit(epoch, prepared[epoch])

    await sink.recover(3, prepared[3], sink_context())  # 3 was decided, 4 was not
    assert sink.rows == [1, 2, 3]
    await sink.recover(2, prepared[2], sink_context())  # its checkpoint could not be read
    assert sink.rows == [1, 2]
    await sink.recover(None, [], sink_context())
    assert sink.rows == []


async def test_a_sink_without_an_earlier_life_goes_on() -> None:
    sink: MemorySink[int] = MemorySink()

    await sink.recover(7, [{"subtask": 0, "rows": 3}], sink_context())

    assert sink.rows == []
    assert sink.describe() == "memory"


async def test_laws() -> None:
    # A process that ends takes its rows with it: here only the job dies, and the list lives on.
    sinks: dict[str, MemorySink[int]] = {}

    await check_sink(
        lambda place: sinks.setdefault(place, MemorySink()),
        range(7),
        lambda place: sinks[place].rows,
    )
