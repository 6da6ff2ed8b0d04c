"""Whatever the inputs bring and when: snapshot n has what came before barrier n, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import Barrier, EndOfStream, Records
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.tasks.input_loop import InputLoop
from flowrt.testing.world import ManualClock

pytestmark = pytest.mark.anyio

EPOCHS = 4

# For each input: how many records come before barrier 1, 2, ... and before the end.
INPUTS = st.lists(
    st.lists(st.integers(0, 4), min_size=EPOCHS + 1, max_size=EPOCHS + 1), min_size=1, max_size=4
)


class Ledger:
    """Notes the records of each epoch, and may take its time over each run."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.epochs: list[set[Any]] = [set()]
        self.order: list[Any] = []

    async def on_records(self, records: Records) -> None:
        self.epochs[-1].update(records.values)
        self.order += records.values
        if self.data.draw(st.booleans()):
            await checkpoint()

    async def on_barrier(self, barrier: Barrier, align_ns: int) -> None:
        assert barrier.epoch == len(self.epochs)
        self.epochs.append(set())
        if self.data.draw(st.booleans()):
            await checkpoint()

    async def on_watermark(self, timestamp: int) -> None: ...

    def on_idle(self) -> None: ...

    def next_alarm(self) -> int | None:
        return None

    async def ring(self) -> None: ...


async def send(channel: Channel, index: int, counts: list[int], data: st.DataObject) -> None:
    for epoch, count in enumerate(counts):
        for number in range(count):
            if data.draw(st.booleans()):
                await checkpoint()
            await channel.send(Records([(index, epoch, number)]))
        if epoch + 1 < len(counts):
            channel.send_control(Barrier(epoch + 1))
    channel.send_control(EndOfStream())


async def flow(counts: list[list[int]], capacity: int, data: st.DataObject, blocking: bool) -> Any:
    spot = parking_spot()
    channels = [Channel(capacity, spot) for _ in counts]
    ledger = Ledger(data)
    inputs = Inputs(channels, blocking=blocking)
    loop = InputLoop(inputs, ledger, spot, ManualClock())
    async with create_task_group() as group:
        for index, channel in enumerate(channels):
            group.start_soon(send, channel, index, counts[index], data)
        await loop.run()
    assert loop.records == sum(map(sum, counts))
    for index in range(len(counts)):
        mine = [record for record in ledger.order if record[0] == index]
        assert mine == sorted(mine)
    return ledger.epochs


def expected(counts: list[list[int]]) -> list[set[Any]]:
    return [
        {(i, epoch, number) for i, input in enumerate(counts) for number in range(input[epoch])}
        for epoch in range(len(counts[0]))
    ]


@given(INPUTS, st.integers(1, 5), st.data())
async def test_every_record_is_in_the_epoch_of_its_input(
    counts: list[list[int]], capacity: int, data: st.DataObject
) -> None:
    assert await flow(counts, capacity, data, blocking=True) == expected(counts)


@given(INPUTS, st.integers(1, 5), st.data())
async def test_at_least_once_takes_records_too_early_but_never_too_late(
    counts: list[list[int]], capacity: int, data: st.DataObject
) -> None:
    # Epochs do not overlap, for the next opens when the one before is committed: one at a time.
    counts = [input[:2] for input in counts]
    before, after = await flow(counts, capacity, data, blocking=False)
    first, second = expected(counts)
    assert first <= before
    assert after <= second
    assert before | after == first | second
