"""Channels in, a writer at the end: backpressure, epochs, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import create_task_group

from flowrt.contract.elements import Barrier, EndOfStream, Idle, Records, Watermark
from flowrt.contract.errors import SinkError
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.inputs import Inputs
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.tasks.sink_task import SinkTask
from tests.dataflow.kit import Letters, settle

pytestmark = pytest.mark.anyio


class Notebook:
    """A writer that notes what it is asked for; `blocked` makes it slow."""

    def __init__(self, error: Exception | None = None) -> None:
        self.story: list[Any] = []
        self.error = error
        self.blocked = False
        self.spot = parking_spot()

    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        while self.blocked:
            await self.spot.wait()
        if self.error is not None:
            raise self.error
        self.story.append(("write", [*values], timestamps))

    async def prepare(self, epoch: int, final: bool = False) -> Any:
        if self.error is not None:
            raise self.error
        self.story.append(("prepare", epoch, final))
        return {"epoch": epoch}

    async def close(self) -> None:
        self.story.append("close")


class Stage:
    def __init__(self, writer: Notebook, inputs: int = 1, capacity: int = 10) -> None:
        spot = parking_spot()
        self.channels = [Channel(capacity, spot) for _ in range(inputs)]
        self.letters = Letters()
        desk, inbox = self.letters.desk(), Inputs(self.channels, blocking=True)
        self.task = SinkTask(desk, inbox, "results", writer, spot)
        self.done = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def run() -> None:
            try:
                await self.task.open()
                await self.task.run()
                self.done = True
            finally:
                await self.task.close()

        async with create_task_group() as group:
            group.start_soon(run)
            await settle()
            yield
            group.cancel_scope.cancel()


async def test_records_are_written_and_epochs_prepared_in_order() -> None:
    writer = Notebook()
    stage = Stage(writer)
    async with stage.running():
        (channel,) = stage.channels
        await channel.send(Records(["a"], [5]))
        channel.send_control(Watermark(4))
        channel.send_control(Idle())
        channel.send_control(Barrier(1))
        await channel.send(Records(["b"]))
        channel.send_control(Barrier(2, final=True))
        channel.send_control(EndOfStream())
        await settle()
        assert stage.done

    assert writer.story == [
        ("write", ["a"], [5]),
        ("prepare", 1, False),
        ("write", ["b"], None),
        ("prepare", 2, True),
        "close",
    ]
    assert [part.committable for part in stage.letters.parts(2)] == [{"epoch": 2}]
    assert stage.letters.parts(1)[0].operator == "results"
    assert stage.task.statistics() == {
        "records_in": 2,
        "records_out": 2,
        "queued": 0,
        "watermark": 4,
    }


async def test_the_epoch_of_several_inputs_is_prepared_once() -> None:
    writer = Notebook()
    stage = Stage(writer, inputs=2)
    async with stage.running():
        stage.channels[0].send_control(Barrier(1))
        await settle()
        assert writer.story == []
        stage.channels[1].send_control(Barrier(1))
        await settle()
        assert writer.story == [("prepare", 1, False)]


async def test_a_slow_writer_holds_the_sender_when_the_channel_is_full() -> None:
    writer = Notebook()
    stage = Stage(writer, capacity=3)
    sent = 0

    async def send() -> None:
        nonlocal sent
        for value in range(100):
            await stage.channels[0].send(Records([value]))
            sent = value + 1

    async with stage.running():
        writer.blocked = True
        async with create_task_group() as group:
            group.start_soon(send)
            await settle()
            # What the writer holds, and a full channel behind it.
            assert 3 < sent <= 2 * 3
            assert stage.task.statistics()["queued"] == 3
            writer.blocked = False
            writer.spot.wake()
        await settle()
    written = [value for _, values, _ in writer.story[:-1] for value in values]
    assert written == [*range(100)]


@pytest.mark.parametrize(
    ("element", "what"), [(Records([1]), "write"), (Barrier(3), "prepare epoch 3")]
)
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("disk full"), "sink 'results' could not {what}: OSError: disk full"),
        (SinkError("the table is gone"), "the table is gone"),
    ],
)
async def test_a_writer_that_fails_is_reported_and_closed(
    element: Any, what: str, error: Exception, message: str
) -> None:
    writer = Notebook(error)
    stage = Stage(writer)
    with pytest.raises(ExceptionGroup) as raised:
        async with stage.running():
            if isinstance(element, Records):
                await stage.channels[0].send(element)
            else:
                stage.channels[0].send_control(element)
            await settle()
    (reported,) = raised.value.exceptions
    assert isinstance(reported, SinkError)
    assert str(reported) == message.format(what=what)
    assert writer.story == ["close"]
    assert stage.letters.sent == []
