"""Results as events, for tasks of the same process and for browsers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from flowrt.connectors.live import LiveEvent, LiveSink, server_sent
from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.sink import Writer
from flowrt.testing import check_sink, manual_world
from flowrt.testing.world import ManualClock
from tests.connectors.kit import sink_context

pytestmark = pytest.mark.anyio


async def begin(hub: LiveSink[Any]) -> Writer[Any]:
    await hub.recover(None, [], sink_context())
    return await hub.writer(sink_context(), [])


async def write_epoch(
    hub: LiveSink[Any], writer: Writer[Any], epoch: int, values: Sequence[Any]
) -> list[Any]:
    """Write, prepare and commit an epoch; return its committables."""
    await writer.write(values, None)
    prepared = await writer.prepare(epoch)
    committables = [] if prepared is None else [prepared]
    await hub.commit(epoch, committables)
    return committables


async def kept(hub: LiveSink[Any], *arguments: Any, **options: Any) -> list[LiveEvent]:
    """What a subscription gives until the end."""
    hub.end()
    return [event async for event in hub.subscribe(*arguments, **options)]


@pytest.mark.parametrize("at_once", [False, True])
async def test_laws(at_once: bool) -> None:
    # A process that ends takes its subscribers with it: here only the job dies.
    hubs: dict[str, LiveSink[str]] = {}

    await check_sink(
        lambda place: hubs.setdefault(place, LiveSink(at_once=at_once)),
        list("abcdefg"),
        lambda place: [event.data for event in hubs[place].events],
    )


async def test_events_come_with_their_epoch_under_lasting_ids() -> None:
    hub: LiveSink[Any] = LiveSink(event="order")
    await hub.recover(None, [], sink_context())
    writers = [await hub.writer(sink_context(subtask=i, parallelism=2), []) for i in (0, 1)]
    await writers[0].write([{"n": 1}, "two"], None)
    await writers[1].write([3], None)
    prepared = [await writer.prepare(12) for writer in reversed(writers)]
    assert hub.events == []

    await hub.commit(12, prepared)
    await hub.commit(12, prepared)

    assert hub.events == [
        LiveEvent("12-0", '{"n":1}', "order"),
        LiveEvent("12-1", "two", "order"),
        LiveEvent("12-2", "3", "order"),
    ]
    anew: LiveSink[Any] = LiveSink()
    await anew.recover(12, prepared, sink_context(generation=2))
    assert anew.events == hub.events


async def test_a_subscriber_goes_on_behind_its_last_event() -> None:
    hub: LiveSink[int] = LiveSink(keep=3)
    writer = await begin(hub)
    await write_epoch(hub, writer, 1, [1, 2])
    await write_epoch(hub, writer, 2, [3, 4])

    assert await kept(hub) == []
    assert [event.data for event in await kept(hub, replay=2)] == ["3", "4"]
    assert [event.id for event in await kept(hub, "2-0")] == ["2-1"]
    assert await kept(hub, "1-0") == [LiveEvent("1-1", "2", missed=True), *hub.events[1:]]


async def test_many_subscribers_get_each_event_at_once() -> None:
    hub: LiveSink[int] = LiveSink()
    writer = await begin(hub)
    got: dict[int, list[str]] = {number: [] for number in range(20)}

    async def listen(number: int) -> None:
        async for event in hub.subscribe():
            got[number].append(event.data)

    async with anyio.create_task_group() as group:
        for number in got:
            group.start_soon(listen, number)
        while hub.subscribers < 20:
            await checkpoint()
        for epoch in (1, 2, 3):
            await write_epoch(hub, writer, epoch, [epoch, -epoch])
            for _ in range(10):
                await checkpoint()
            assert all(len(data) == 2 * epoch for data in got.values())
        hub.end()

    assert got[0] == ["1", "-1", "2", "-2", "3", "-3"]
    assert hub.subscribers == 0
    assert hub.skipped == 0


@pytest.mark.parametrize("on_slow", ["skip", "disconnect"])
async def test_a_slow_subscriber_holds_up_nobody(on_slow: Any) -> None:
    hub: LiveSink[int] = LiveSink(keep=2, on_slow=on_slow)
    writer = await begin(hub)
    slow = hub.subscribe()
    events: list[LiveEvent] = []

    async def listen() -> None:
        events.append(await anext(slow))

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        while not hub.subscribers:
            await checkpoint()
        await write_epoch(hub, writer, 1, [1])
    await write_epoch(hub, writer, 2, [2, 3, 4, 5])
    hub.end()
    events += [event async for event in slow]

    got = [(event.data, event.missed) for event in events]
    rest = [("4", True), ("5", False)] if on_slow == "skip" else []
    assert got == [("1", False), *rest]
    assert hub.skipped == 2
    assert hub.counters() == {"missed_events": 2}


async def test_an_epoch_larger_than_what_is_kept() -> None:
    hub: LiveSink[int] = LiveSink(keep=2)
    writer = await begin(hub)

    (prepared,) = await write_epoch(hub, writer, 1, range(5))

    assert hub.events == [LiveEvent("1-3", "3"), LiveEvent("1-4", "4")]
    assert prepared == {"subtask": 0, "count": 5, "events": [["", "3"], ["", "4"]]}


async def test_subscribers_live_through_restarts_of_the_job() -> None:
    hub: LiveSink[int] = LiveSink()
    writer = await begin(hub)
    first = await write_epoch(hub, writer, 1, [1])
    await writer.write([2], None)
    second = [await writer.prepare(2)]

    await hub.close()
    await hub.recover(2, second, sink_context(generation=2))  # it was decided
    await hub.recover(2, second, sink_context(generation=3))
    await hub.recover(1, first, sink_context(generation=4))  # its checkpoint was damaged
    await write_epoch(hub, await hub.writer(sink_context(), []), 2, [2])

    assert [event.data for event in hub.events] == ["1", "2", "2"]
    await begin(hub)
    assert hub.events == []


async def test_at_once_events_do_not_wait_for_their_epoch() -> None:
    hub: LiveSink[int] = LiveSink(at_once=True, event=lambda n: "odd" if n % 2 else "")
    writer = await begin(hub)
    await writer.write([1, 2], None)

    assert hub.events == [LiveEvent("1-0", "1", "odd"), LiveEvent("1-1", "2")]
    assert hub.kind == "direct"
    assert await writer.prepare(1) is None


async def test_the_stream_has_heartbeats_and_says_what_is_missing() -> None:
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    hub: LiveSink[str] = LiveSink()
    await hub.recover(None, [], sink_context(world))
    writer = await hub.writer(sink_context(), [])
    await write_epoch(hub, writer, 1, ["kept"])
    parts: list[str] = []

    async def listen() -> None:
        parts.extend([part async for part in hub.stream("0-7", heartbeat="10s")])

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        for _ in range(2):
            while clock.next_alarm_ms() is None:
                await checkpoint()
            clock.advance(10_000)
            while clock.next_alarm_ms() is None:
                await checkpoint()
        await write_epoch(hub, writer, 2, ["new\nlines"])
        hub.end()

    assert parts == [
        "retry: 2000\n\n",
        "event: missed\ndata: events were left out\n\nid: 1-0\ndata: kept\n\n",
        ": nothing new\n\n",
        ": nothing new\n\n",
        "id: 2-0\ndata: new\ndata: lines\n\n",
    ]


def test_the_text_of_an_event() -> None:
    assert server_sent(LiveEvent("1-2", "a\r\nb\rc\x0bd", "x")) == (
        "id: 1-2\nevent: x\ndata: a\ndata: b\ndata: c\x0bd\n\n"
    )
    assert server_sent(LiveEvent("1-2", "")) == "id: 1-2\ndata: \n\n"


async def test_a_value_that_is_no_event_is_an_error() -> None:
    writer = await begin(LiveSink())
    with pytest.raises(SinkError, match="sink 'out' cannot make an event of <object"):
        await writer.write([object()], None)
    writer = await begin(LiveSink(event=str))
    with pytest.raises(SinkError, match="no name for an event's type"):
        await writer.write(["a\n"], None)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="keep"):
        LiveSink(keep=0)
    with pytest.raises(ConfigError, match="on_slow"):
        LiveSink(on_slow="wait")  # type: ignore[arg-type]


def test_what_a_sink_says_of_itself() -> None:
    assert LiveSink().describe() == "live (by epochs)"
    assert LiveSink(at_once=True).describe() == "live (at once)"


# ---------------------------------------------------------------------- a real server


@asynccontextmanager
async def served(hub: LiveSink[Any]) -> AsyncIterator[str]:
    """Serve the hub's stream with FastAPI and uvicorn; the address."""
    app = FastAPI()

    @app.get("/events")
    async def events(request: Request) -> StreamingResponse:
        last = request.headers.get("last-event-id")
        return StreamingResponse(hub.stream(last, replay=10), media_type="text/event-stream")

    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        while not server.started:
            await checkpoint()
        (port,) = {s.getsockname()[1] for one in server.servers for s in one.sockets}
        try:
            yield f"http://127.0.0.1:{port}/events"
        finally:
            hub.end()
            server.should_exit = True


@pytest.mark.asyncio
async def test_a_browser_comes_back_and_goes_on() -> None:
    hub: LiveSink[str] = LiveSink()
    writer = await begin(hub)
    await write_epoch(hub, writer, 1, ["a", "b"])

    async with served(hub) as url, httpx2.AsyncClient() as client:
        async with client.stream("GET", url) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.aiter_lines()
            first = [line async for line in _until(lines, "data: b")]
        while hub.subscribers:  # it went away, and the server noticed
            await checkpoint()
        await write_epoch(hub, writer, 2, ["c"])
        async with client.stream("GET", url, headers={"Last-Event-ID": "1-0"}) as response:
            lines = response.aiter_lines()
            second = [line async for line in _until(lines, "data: c")]

    assert [line for line in first if line] == [
        *("retry: 2000", "id: 1-0", "data: a", "id: 1-1", "data: b")
    ]
    assert [line for line in second if line] == [
        *("retry: 2000", "id: 1-1", "data: b", "id: 2-0", "data: c")
    ]


async def _until(lines: AsyncIterator[str], last: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line == last:
            return
