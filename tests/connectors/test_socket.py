"""Lines over real TCP connections on this machine."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

from flowrt.connectors.socket import SocketSource
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.retry import ExponentialBackoff, FixedDelay, NoRestart
from flowrt.contract.source import Chunk
from flowrt.testing import check_source, manual_world
from flowrt.testing.world import ManualClock
from tests.connectors.kit import open_reader, read_all, source_context

pytestmark = pytest.mark.anyio


class Click(msgspec.Struct, frozen=True):
    page: str


@asynccontextmanager
async def serving(*connections: Sequence[bytes]) -> AsyncIterator[int]:
    """Send to each connection what is its turn to get, the last to all that follow; then end it."""
    served = 0

    async def serve(stream: SocketStream) -> None:
        nonlocal served
        blocks = connections[min(served, len(connections) - 1)]
        served += 1
        async with stream:
            for block in blocks:
                await stream.send(block)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("blocks", "options", "expect"),
    [
        ([b"one\nt", b"wo\r\n\nlast"], {}, ["one", "two", "", "last"]),
        (["é\0\nb\0".encode()], {"delimiter": "\0"}, ["é", "\nb"]),
        ([b'{"page": "a"}\n\n{"page":"b"}'], {"format": "jsonl"}, [{"page": "a"}, {"page": "b"}]),
        ([b'{"page": "a"}\n'], {"format": "jsonl", "type": Click}, [Click("a")]),
        ([b"1\n{\n2\n", b"3" * 20, b"\n4\n"], {"format": "jsonl", "on_error": "skip"}, [1, 2, 4]),
        ([], {}, []),
    ],
    ids=["text", "delimiter", "jsonl", "typed", "skipping", "nothing"],
)
async def test_laws(blocks: list[bytes], options: dict[str, Any], expect: list[Any]) -> None:
    async with serving(blocks) as port:
        await check_source(
            lambda: SocketSource("127.0.0.1", port, reconnect=None, max_line_bytes=15, **options),
            expect,
        )


async def test_a_broken_line_is_named_after_those_before_it() -> None:
    async with serving([b"1\n2\n{3\n4\n"]) as port:
        source = SocketSource[Any]("127.0.0.1", port, "jsonl", reconnect=None)
        reader = await open_reader(source, source_context())

        chunk = await reader.read(10)
        with pytest.raises(
            InputError, match=rf"127.0.0.1:{port}: line 3 of the connection, at byte 4, .*'{{3'"
        ):
            await reader.read(10)
        await reader.close()

    assert chunk is not None
    assert (chunk.values, chunk.position) == ([1, 2], 2)


async def test_broken_lines_are_skipped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with serving([b"a\n\xff\n", b"x" * 100, b"\nb\n"]) as port:
        source = SocketSource("127.0.0.1", port, reconnect=None, max_line_bytes=10, on_error="skip")
        assert await read_all(source) == ["a", "b"]

    assert source.skipped == 2
    assert source.counters() == {"skipped_lines": 2, "cut_off_lines": 0}
    assert "line 3 of the connection, at byte 4, cannot be read: it is longer" in caplog.text
    assert "on_error" not in caplog.text  # it is on already


async def test_a_lost_connection_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    chunks: list[Chunk[str] | None] = []
    async with serving([b"one\nlast of the first\n"], [], [b"two\n"]) as port:
        source = SocketSource("127.0.0.1", port, reconnect=ExponentialBackoff("2s"))
        assert not source.bounded
        reader = await open_reader(source, source_context(world))

        async def read() -> None:
            while sum(len(chunk.values) for chunk in chunks if chunk) < 3:
                chunks.append(await reader.read(10))

        waits = []
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            for _ in range(2):  # the second connection ends at once, so the wait is longer
                while (alarm_ms := clock.next_alarm_ms()) is None:
                    await checkpoint()
                waits.append(alarm_ms - clock.now_ms())
                clock.set_to(alarm_ms)
                while clock.next_alarm_ms() == alarm_ms:
                    await checkpoint()
        await reader.close()

    values = [value for chunk in chunks if chunk for value in chunk.values]
    assert values == ["one", "last of the first", "two"]
    assert source.cut_off == 0
    assert 1_900 <= waits[0] <= 2_100
    assert 3_800 <= waits[1] <= 4_200
    assert "the connection ended; connecting again in" in caplog.text


@pytest.mark.parametrize(
    ("format", "line", "half"),
    [("text", b"transfer 100", b"transfer 10"), ("jsonl", b'{"a": 1}', b'{"a": 1')],
)
async def test_a_line_that_the_end_of_the_connection_cut_off_is_left_out(
    format: Any, line: bytes, half: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving([line + b"\n" + half], [line + b"\n"]) as port:
        source = SocketSource[Any]("127.0.0.1", port, format, reconnect=FixedDelay("0ms"))
        reader = await open_reader(source, source_context())
        values: list[Any] = []
        while len(values) < 2:
            chunk = await reader.read(10)
            assert chunk is not None
            values += chunk.values
        await reader.close()

    assert values == ([line.decode()] * 2 if format == "text" else [{"a": 1}] * 2)
    assert (source.cut_off, source.skipped) == (1, 0)
    place = f"left out line 2 of the connection, at byte {len(line) + 1}: the connection ended"
    assert place in caplog.text


async def test_a_line_that_a_broken_connection_cut_off_is_left_out_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = anyio.Event()

    async def serve(stream: SocketStream) -> None:
        await stream.send(b"one\nha")
        await read.wait()
        # Closed so, it is reset.
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await anyio.aclose_forcefully(stream)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)
        source = SocketSource("127.0.0.1", port, reconnect=None)
        reader = await open_reader(source, source_context())
        chunk = await reader.read(10)
        read.set()
        with pytest.raises(InputError, match="cannot be read"):
            await reader.read(10)
        await reader.close()
        group.cancel_scope.cancel()

    assert chunk is not None
    assert chunk.values == ["one"]
    assert source.cut_off == 1
    assert "left out line 2 of the connection, at byte 4" in caplog.text


async def test_who_cannot_connect_tries_again_or_says_so() -> None:
    port = free_port()
    with pytest.raises(InputError, match=rf"127.0.0.1:{port} cannot be read: .*server run there"):
        await read_all(SocketSource("127.0.0.1", port, reconnect=None))

    with pytest.raises(InputError, match="cannot be read"):
        await read_all(SocketSource("127.0.0.1", port, reconnect=NoRestart()))

    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    reader = await open_reader(SocketSource("127.0.0.1", port), source_context(world))
    async with anyio.create_task_group() as group:
        group.start_soon(reader.read, 10)
        longest = 0
        for _ in range(8):
            while (alarm_ms := clock.next_alarm_ms()) is None:
                await checkpoint()
            longest = max(longest, alarm_ms - clock.now_ms())
            clock.set_to(alarm_ms)
            await checkpoint()
        group.cancel_scope.cancel()
    await reader.close()

    assert 28_000 <= longest <= 32_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ""}, "needs a delimiter"),
        ({"port": 0}, "port=0"),
        ({"max_line_bytes": 0}, "max_line_bytes=0"),
        ({"on_error": "ignore"}, "on_error"),
        ({"format": "csv"}, "the format is"),
        ({"type": Click}, "takes no type"),
        ({"format": "jsonl", "type": list[int] | set[int]}, "cannot be read from JSON"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SocketSource(**{"host": "localhost", "port": 9, **options})


def test_what_a_source_says_of_itself() -> None:
    source = SocketSource("localhost", 9999)

    assert source.describe() == "socket localhost:9999 (text)"
    assert not source.replayable
