"""Results to whoever listens: browsers, by server-sent events, or tasks of the same process."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import anyio
import msgspec

from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.sink import Committable, Sink, SinkContext, Writer
from flowrt.contract.time import Duration, duration_ms
from flowrt.contract.world import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One result: its id, unique and in order, and its data as text, JSON unless it was a `str`.

    `name` is its type, "" where none was given. `missed` says that events before this one were left
    out, because the subscriber was too slow or came back too late.
    """

    id: str
    data: str
    name: str = ""
    missed: bool = False


class LiveSink(Sink[T], Generic[T]):
    """Shows results to any number of subscribers, who come and go while the flow runs.

    Exactly once within a process: results become events when their epoch is committed. Their ids
    are the epoch and a number in it ("12-3"), so that after a crash a browser that says which was
    its last (`Last-Event-ID`) goes on behind it: the results of the last epoch are kept in the
    snapshot and shown again under their ids, those before it are gone. With `at_once=True` results
    are shown as they come: at least once, under ids that are new in each life.

    The last `keep` events are kept for all subscribers together; nobody is waited for. Who is
    further behind loses the oldest and is told by the next event's `missed`, or is let go with
    `on_slow="disconnect"`, to come back. `event` names each event's type: a text, or a function of
    the value.

    Subscribe in the event loop of the flow. `stream` is the body of a response of type
    text/event-stream.
    """

    def __init__(
        self,
        *,
        keep: int = 1_000,
        event: str | Callable[[T], str] = "",
        on_slow: Literal["skip", "disconnect"] = "skip",
        at_once: bool = False,
    ) -> None:
        if keep < 1:
            raise ConfigError(f"keep must be at least 1, not {keep}")
        if on_slow not in ("skip", "disconnect"):
            raise ConfigError(f'on_slow is "skip" or "disconnect", not {on_slow!r}')
        self.kind = "direct" if at_once else "repeatable"
        self.subscribers = 0
        """How many subscribe now."""
        self.skipped = 0
        """How many events slow subscribers have lost, all together.

        Those that came while a browser was away, and are not kept any more, nobody counts.
        """
        self._keep = keep
        self._event = event
        self._on_slow = on_slow
        self._ring: deque[LiveEvent] = deque(maxlen=keep)
        self._next = 0  # the number of the event to come, over the hub's whole life
        self._epoch = 0
        self._waiting: set[anyio.Event] = set()
        self._clock: Clock | None = None
        self._ended = False

    def describe(self) -> str:
        """Return the kind, and when events are shown."""
        return f"live ({'at once' if self.kind == 'direct' else 'by epochs'})"

    @property
    def events(self) -> list[LiveEvent]:
        """The events that are kept; a new list each time."""
        return list(self._ring)

    def counters(self) -> Mapping[str, int]:
        """Return how many events slow subscribers have lost."""
        return {"missed_events": self.skipped}

    # ------------------------------------------------------------------------------ subscribers

    async def subscribe(
        self, last_event_id: str | None = None, *, replay: int = 0
    ) -> AsyncGenerator[LiveEvent, None]:
        """Yield the events behind the one with that id, without one those to come; until `end`.

        Without an id the last `replay` come first. With one that is not kept any more all that are
        kept come, the first as `missed`.
        """
        async with aclosing(self._follow(last_event_id, replay, None)) as events:
            async for event in events:
                if event is not None:
                    yield event

    async def stream(
        self,
        last_event_id: str | None = None,
        *,
        replay: int = 0,
        heartbeat: Duration = "15s",
        retry: Duration = "2s",
    ) -> AsyncGenerator[str, None]:
        """Yield the text of server-sent events, as `subscribe` does with events.

        A comment each `heartbeat` keeps the connection open while nothing happens; `retry` is when
        a browser connects again. Before an event that is `missed` comes one of type "missed".
        """
        yield f"retry: {duration_ms(retry)}\n\n"
        async with aclosing(self._follow(last_event_id, replay, duration_ms(heartbeat))) as events:
            async for event in events:
                yield ": nothing new\n\n" if event is None else server_sent(event)

    def end(self) -> None:
        """End all subscriptions, so that a server can stop; a start of the flow allows new ones."""
        self._ended = True
        self._wake()

    async def _follow(
        self, last_event_id: str | None, replay: int, heartbeat_ms: int | None
    ) -> AsyncGenerator[LiveEvent | None, None]:
        """Yield events, and None where none came for so long."""
        at, missed = self._place(last_event_id, replay)
        self.subscribers += 1
        try:
            while True:
                first = self._next - len(self._ring)
                if at < first:
                    self.skipped += first - at
                    if self._on_slow == "disconnect":
                        return
                    at, missed = first, True
                if at < self._next:
                    event = self._ring[at - first]
                    at += 1
                    yield replace(event, missed=True) if missed else event
                    missed = False
                elif self._ended:
                    return
                elif not await self._comes(at, heartbeat_ms):
                    yield None
        finally:
            self.subscribers -= 1

    def _place(self, last_event_id: str | None, replay: int) -> tuple[int, bool]:
        """Return the number of the first event to give, and whether some are missing before it."""
        first = self._next - len(self._ring)
        if not last_event_id:
            return max(self._next - replay, first), False
        for number, event in enumerate(self._ring, first + 1):
            if event.id == last_event_id:
                return number, False
        return first, True

    async def _comes(self, at: int, within_ms: int | None) -> bool:
        """Wait for news; False where none came in time."""
        news = anyio.Event()
        self._waiting.add(news)
        clock = self._clock
        alarm = None
        if clock is not None and within_ms:
            alarm = clock.call_at(clock.now_ms() + within_ms, news.set)
        try:
            await news.wait()
        finally:
            self._waiting.discard(news)
            if alarm is not None:
                alarm.cancel()
        return at < self._next or self._ended or clock is not self._clock

    # ------------------------------------------------------------------------------ the flow

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        """See `Sink.recover`."""
        self._clock = ctx.world.clock
        self._ended = False
        if epoch is None:
            self._ring.clear()
            self._epoch = 0
        else:
            self._epoch = min(self._epoch, epoch)  # what was shown stays, and what is new comes
            await self.commit(epoch, committables)
        self._wake()

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[T]:
        """Return a writer for one subtask."""
        if self.kind == "direct":
            return _EventWriter(ctx, self._keep, self._event, self._show_at_once)
        return _EventWriter(ctx, self._keep, self._event)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """See `Sink.commit`: the epoch's events are shown."""
        if epoch <= self._epoch:
            return
        number = 0
        for one in sorted(committables, key=lambda one: int(one["subtask"])):
            count, events = one["count"], one["events"]
            left_out = count - len(events)
            if left_out:
                self._ring.clear()  # as if each had been shown, and pushed out by the next
                self._next += left_out
            for place, (name, data) in enumerate(events, number + left_out):
                self._show(LiveEvent(f"{epoch}-{place}", data, name))
            number += count
        self._epoch = epoch
        self._wake()

    def _show(self, event: LiveEvent) -> None:
        self._ring.append(event)
        self._next += 1

    def _show_at_once(self, generation: int, events: Sequence[tuple[str, str]]) -> None:
        for name, data in events:
            self._show(LiveEvent(f"{generation}-{self._next}", data, name))
        self._wake()

    def _wake(self) -> None:
        for news in self._waiting:
            news.set()


def server_sent(event: LiveEvent) -> str:
    """Return an event as text/event-stream has it."""
    told = "event: missed\ndata: events were left out\n\n" if event.missed else ""
    name = f"event: {event.name}\n" if event.name else ""
    # The three ends of a line that a browser knows; splitlines() knows more.
    lines = event.data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    data = "".join(f"data: {line}\n" for line in lines)
    return f"{told}id: {event.id}\n{name}{data}\n"


class _EventWriter(Generic[T]):
    """Encodes values, once for all subscribers; keeps the last of an epoch."""

    def __init__(
        self,
        ctx: SinkContext,
        keep: int,
        event: str | Callable[[T], str],
        show: Callable[[int, Sequence[tuple[str, str]]], None] | None = None,
    ) -> None:
        self._operator = ctx.operator
        self._subtask = ctx.subtask
        self._generation = ctx.generation
        self._event = event
        self._show = show
        self._events: deque[tuple[str, str]] = deque(maxlen=keep)
        self._count = 0

    async def write(self, values: Sequence[T], timestamps: Sequence[int | None] | None) -> None:
        events = list(map(self._encoded, values))
        if self._show is not None:
            self._show(self._generation, events)
        else:
            self._count += len(events)
            self._events.extend(events)

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        if not self._count:
            return None
        events = [list(event) for event in self._events]
        count, self._count = self._count, 0
        self._events.clear()
        return {"subtask": self._subtask, "count": count, "events": events}

    async def close(self) -> None:
        return None

    def _encoded(self, value: T) -> tuple[str, str]:
        try:
            name = self._event if isinstance(self._event, str) else self._event(value)
            data = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        except Exception as error:
            raise SinkError(
                f"sink {self._operator!r} cannot make an event of {value!r:.200}: {error}; map it "
                "to text, or to something that JSON can say"
            ) from error
        if "\n" in name or "\r" in name:
            raise SinkError(f"sink {self._operator!r}: {name!r} is no name for an event's type")
        return name, data
