"""How long are records under way at 10,000/s through 3 tasks, epochs each second (p50, µs)?

Open loop: another process sends each record over a socket at its time, whatever the flow does, and
the latency counts from that time. Beside it the same socket read into two `asyncio.Queue`s between
three tasks.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import struct
import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from bench.measure import Answer, NullSink, _NullWriter, percentile
from flowrt import Chunk, Flow, Reader, SinkContext, Source, SourceContext, Split, Writer, start
from flowrt.contract.source import Position

A_SECOND = 10_000
SECONDS = 10
WARM_UP = A_SECOND
STAMP = struct.Struct("<q")


def _send(sender: socket.socket) -> None:
    """Send each record's scheduled time at that time; busy, on a core of its own."""
    begun = time.monotonic_ns() + 200_000_000
    for number in range(A_SECOND * SECONDS):
        due = begun + number * (1_000_000_000 // A_SECOND)
        while time.monotonic_ns() < due:
            pass
        sender.sendall(STAMP.pack(due))
    sender.close()


def _unpack(rest: bytes, data: bytes) -> tuple[list[int], bytes]:
    data = rest + data
    whole = len(data) - len(data) % STAMP.size
    return [stamp for (stamp,) in STAMP.iter_unpack(data[:whole])], data[whole:]


class SocketSource(Source[int]):
    """Stamps from a socket; cannot be read again."""

    replayable = False

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """One split."""
        return [Split("socket")]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[int]:
        """Read the socket."""
        return _SocketReader(self._receiver)


class _SocketReader:
    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self._rest = b""
        self._read = 0

    async def read(self, limit: int) -> Chunk[int] | None:
        data = await asyncio.get_running_loop().sock_recv(self._receiver, limit * STAMP.size)
        if not data:
            return None
        stamps, self._rest = _unpack(self._rest, data)
        self._read += len(stamps)
        return Chunk(stamps, self._read)

    async def lag(self, position: Position) -> None:
        return None

    async def close(self) -> None:
        pass


class LatencySink(NullSink):
    """Notes how long each record was under way (µs)."""

    def __init__(self) -> None:
        self.latencies: list[float] = []

    async def writer(self, ctx: SinkContext, prepared: Sequence[Any]) -> Writer[Any]:
        """Return the writer."""
        return _LatencyWriter(self.latencies)


class _LatencyWriter(_NullWriter):
    def __init__(self, latencies: list[float]) -> None:
        self._latencies = latencies

    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        now = time.monotonic_ns()
        self._latencies.extend([(now - stamp) / 1000 for stamp in values])


def _same(value: int) -> int:
    return value


async def _flow(receiver: socket.socket) -> list[float]:
    sink = LatencySink()
    flow = Flow("latency")
    flow.source(SocketSource(receiver)).start_new_chain().map(_same).sink(sink)
    with TemporaryDirectory() as folder:
        async with start(flow, checkpoints=folder) as job:
            await job.wait()
    return sink.latencies


async def _queues(receiver: socket.socket) -> list[float]:
    first: asyncio.Queue[int | None] = asyncio.Queue(2048)
    second: asyncio.Queue[int | None] = asyncio.Queue(2048)
    latencies: list[float] = []

    async def read() -> None:
        rest = b""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(receiver, 1024 * STAMP.size):
            stamps, rest = _unpack(rest, data)
            for stamp in stamps:
                await first.put(stamp)
        await first.put(None)

    async def pass_on() -> None:
        while (stamp := await first.get()) is not None:
            await second.put(_same(stamp))
        await second.put(None)

    async def take() -> None:
        while (stamp := await second.get()) is not None:
            latencies.append((time.monotonic_ns() - stamp) / 1000)

    await asyncio.gather(read(), pass_on(), take())
    return latencies


def _measure(receive: Any) -> list[float]:
    """Return the ordered latencies (µs) after the warm-up."""
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    process = multiprocessing.get_context("fork").Process(target=_send_elsewhere, args=(sender,))
    process.start()
    sender.close()
    latencies: list[float] = uvloop.run(receive(receiver))
    process.join()
    receiver.close()
    return sorted(latencies[WARM_UP:])


def _send_elsewhere(sender: socket.socket) -> None:
    import os

    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {0})
    _send(sender)


def main() -> Answer:
    """Measure."""
    queues, flow = _measure(_queues), _measure(_flow)
    shares = (0.5, 0.99, 0.999)
    theirs = " / ".join(f"{percentile(queues, share):.0f}" for share in shares)
    ours = " / ".join(f"{percentile(flow, share):.0f}" for share in shares)
    detail = f"p50 / p99 / p99.9 in µs: flowrt {ours}, two asyncio.Queues {theirs}"
    return Answer(__doc__ or "", percentile(flow, 0.5), "p50 60, p99 500 µs; aim 30, 150", detail)
