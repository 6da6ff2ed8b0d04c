"""Makes events durable in groups: all that are sent during one sync share the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from flowrt.connectors.ingest.frames import BATCH_BYTES, EVENT_BYTES, Batch
from flowrt.connectors.ingest.gate import Gate
from flowrt.connectors.ingest.journal import Journal
from flowrt.connectors.pump import start_alone
from flowrt.contract.errors import IngestClosed
from flowrt.contract.logs import flow_log

log = flow_log()


class Sent:
    """An event that is not durable yet, and whether its sender waits until it is."""

    __slots__ = ("payload", "size", "value", "waits")

    def __init__(self, payload: bytes, value: Any, *, waits: bool) -> None:
        self.payload = payload
        self.value = value
        self.waits = waits
        self.size = BATCH_BYTES + EVENT_BYTES + len(payload)
        """How many bytes of the journal it takes, at most."""


class Group:
    """Events that become durable with one sync."""

    def __init__(self) -> None:
        self.events: list[Sent] = []
        self.bytes = 0
        self.begun = False
        self.done = False
        self.error: Exception | None = None
        self._told: anyio.Event | None = None

    def add(self, sent: Sent) -> None:
        """Take an event in; only before the writing began."""
        self.events.append(sent)
        self.bytes += sent.size

    def withdraw(self, sent: Sent) -> bool:
        """Take an event out again; False where it is too late."""
        if self.begun or sent not in self.events:
            return False
        self.events.remove(sent)
        self.bytes -= sent.size
        return True

    async def wait(self) -> None:
        """Wait until it is durable, or failed with `error`."""
        if not self.done:
            self._told = self._told or anyio.Event()
            await self._told.wait()

    def tell(self, error: Exception | None = None) -> None:
        """Wake those who wait."""
        self.done, self.error = True, error
        if self._told is not None:
            self._told.set()


class GroupWriter:
    """Writes groups to an open journal, in a task of its own.

    The task is not in a task group: senders come and go, readers too, and neither may end it. It
    begins with `start` and ends in `stop`; what is added meanwhile waits for the next `start`.
    `on_durable` gets each batch with its values, and the last time None: the stream is ended.
    """

    def __init__(
        self,
        ingest: str,
        gate: Gate,
        group_bytes: int,
        on_durable: Callable[[Batch | None, list[Any]], None],
    ) -> None:
        self.failure: Exception | None = None
        """Why the task ended before its time."""
        self.stopping = False
        """Whether the task is about to end."""
        self._ingest = ingest
        self._gate = gate
        self._group_bytes = group_bytes
        self._on_durable = on_durable
        self._groups: deque[Group] = deque()
        self._closed = False
        self._is_failing = False
        self._news: anyio.Event | None = None
        self._finished: anyio.Event | None = None

    # ------------------------------------------------------------------ for senders

    def add(self, sent: Sent) -> Group:
        """Put an event into the last group, or a new one where that is full."""
        if not self._groups or self._groups[-1].bytes + sent.size > self._group_bytes:
            self._groups.append(Group())
        group = self._groups[-1]
        group.add(sent)
        self._wake()
        return group

    def close(self) -> None:
        """End the stream behind what was added."""
        self._closed = True
        self._wake()

    def dismiss(self, error: IngestClosed) -> None:
        """Let go of the events whose senders wait; they get `error`. The others stay in line."""
        stay = Group()
        for group in self._groups:
            for sent in group.events:
                if sent.waits:
                    self._gate.leave(1, sent.size)
                else:
                    stay.add(sent)
            group.tell(error)
        self._groups = deque([stay] if stay.events else [])

    # ------------------------------------------------------------------ for the flow

    def start(self, journal: Journal, stream: int) -> None:
        """Write to a journal until `stop`, and close it then."""
        finished = self._finished = anyio.Event()
        self.stopping, self._is_failing, self.failure = False, False, None

        async def run() -> None:
            try:
                await self._write_all(journal, stream)
            except Exception as error:
                self.failure = error
                self._on_durable(None, [])
            finally:
                journal.close()
                finished.set()

        start_alone(run)

    async def stop(self) -> None:
        """Make durable what was added, and end."""
        self.stopping = True
        self._wake()
        await self.finished()

    async def finished(self) -> None:
        """Wait until the task that was started last has ended."""
        if self._finished is not None:
            await self._finished.wait()

    async def _write_all(self, journal: Journal, stream: int) -> None:
        while True:
            if self._groups:
                await self._write(journal, self._groups.popleft())
            elif self._closed and journal.stream == stream:
                await journal.end_stream()
                self._on_durable(None, [])
            elif self.stopping:
                return
            else:
                self._news = anyio.Event()
                await self._news.wait()

    async def _write(self, journal: Journal, group: Group) -> None:
        group.begun = True
        if not group.events:
            return
        try:
            batch = await journal.append([sent.payload for sent in group.events])
        except Exception as error:
            self._gate.leave(len(group.events), group.bytes)
            group.tell(error)
            if not isinstance(error, OSError):
                raise
            if not self._is_failing:
                log.warning("ingest %s cannot write its journal: %s", self._ingest, error)
            self._is_failing = True
            return
        self._is_failing = False
        self._on_durable(batch, [sent.value for sent in group.events])
        self._gate.leave(0, group.bytes)
        group.tell()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
