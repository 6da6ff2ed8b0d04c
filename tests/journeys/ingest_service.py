"""A service that pushes events into a flow, to be killed: `ingest_service.py FOLDER LIFE [last]`.

It writes a line for each event whose send returned, before it sends the next. Its last life sends
nothing, and lets the flow come to its end.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import anyio
import msgspec

import flowrt

SENDERS = 16


class Event(msgspec.Struct, frozen=True):
    id: str
    sender: int


class Numbered(flowrt.Operator[Event, dict[str, object]]):
    """Numbers the events of each sender: state that must fit what was read."""

    count = flowrt.ValueState(int, default=0)

    def process(self, event: Event, ctx: flowrt.Context) -> None:
        number = self.count.get() + 1
        self.count.set(number)
        ctx.emit({"id": event.id, "sender": event.sender, "number": number})


def flow(folder: Path, orders: flowrt.Ingest[Event]) -> flowrt.Flow:
    flow = flowrt.Flow("ingest")
    (
        flow.source(orders, name="orders")
        .key_by(lambda event: event.sender)
        .process(Numbered, name="numbered")
        .sink(flowrt.FileSink(folder / "out"), name="files")
    )
    return flow


async def send(orders: flowrt.Ingest[Event], life: str, sender: int) -> None:
    number = 0
    while True:
        id = f"{life}-{sender}-{number}"
        if sender % 4 == 3:  # some send several at once
            await orders.send_many([Event(f"{id}{part}", sender) for part in "abc"])
            told = "".join(f"{id}{part}\n" for part in "abc")
        else:
            await orders.send(Event(id, sender))
            told = f"{id}\n"
        os.write(1, told.encode())
        number += 1


async def main(folder: Path, life: str, last: bool) -> None:
    orders = flowrt.Ingest(
        "orders", type=Event, journal=folder / "journal", journal_limit_bytes=64 * 1024
    )
    async with flowrt.start(
        flow(folder, orders),
        checkpoints=folder / "checkpoints",
        scheduler=flowrt.Continuous("50ms"),
    ) as job:
        if last:
            orders.close()
            await job.wait()
            return
        async with anyio.create_task_group() as group:
            for sender in range(SENDERS):
                group.start_soon(send, orders, life, sender)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["last"])
