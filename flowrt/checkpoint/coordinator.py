"""Opens epochs, collects what tasks made durable, completes the checkpoint, has sinks commit.

One epoch at a time: the next is opened when every commit of the one before is acknowledged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from flowrt.checkpoint.manifest import Manifest
from flowrt.checkpoint.pending import Pending
from flowrt.checkpoint.savepoint import write_savepoint
from flowrt.checkpoint.store import DirectoryStore
from flowrt.contract.errors import CheckpointError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.scheduler import Scheduler
from flowrt.contract.sink import Committable
from flowrt.contract.snapshot import (
    Acknowledge,
    CoordinatorMessage,
    Delivery,
    EpochCommitted,
    OpenEpoch,
    SourceEnded,
    TaskMessage,
)
from flowrt.contract.world import Clock


@dataclass(frozen=True, slots=True)
class Participants:
    """Who takes part in a flow's epochs.

    `tasks` gives the parallelism of every task, `sources` names those that read sources, `sinks`
    are the ids of all sinks; `deciding` is the one whose commit is the commit point, if any.
    """

    flow: str
    delivery: Delivery
    tasks: Mapping[str, int]
    sources: Sequence[str]
    sinks: Sequence[str] = ()
    deciding: str | None = None

    def commit_order(self) -> list[list[str]]:
        """Return the sinks in groups: a group is committed once the one before is."""
        others = [sink for sink in self.sinks if sink != self.deciding]
        return [group for group in ([self.deciding] if self.deciding else [], others) if group]


@dataclass(frozen=True, slots=True)
class Links:
    """How the coordinator reaches the others.

    `tell_sources` passes a message to every subtask of every source. `commit(epoch, committables)`
    has sinks commit what their subtasks prepared, given by sink, and returns when all of them have.
    `committed` hears how each epoch went; it must not raise.
    """

    tell_sources: Callable[[CoordinatorMessage], None]
    commit: Callable[[int, Mapping[str, Sequence[Committable]]], Awaitable[None]]
    committed: Callable[[EpochStatistics], None] = lambda statistics: None


@dataclass(frozen=True, slots=True)
class TaskEpoch:
    """How one subtask's part of an epoch went; `acknowledged_ns` counts from its beginning."""

    task: str
    subtask: int
    acknowledged_ns: int
    align_ns: int
    freeze_ns: int
    write_ns: int


@dataclass(frozen=True, slots=True)
class EpochStatistics:
    """How an epoch went. `align_ns`, `freeze_ns` and `write_ns` are the longest of any subtask.

    `size` is in bytes and `entries` in state entries, of all state files that the checkpoint needs.
    """

    epoch: int
    opened_ms: int
    duration_ns: int
    align_ns: int
    freeze_ns: int
    write_ns: int
    commit_ns: int
    size: int
    entries: int
    tasks: tuple[TaskEpoch, ...] = ()


@dataclass(slots=True)
class _SavepointRequest:
    path: str
    done: anyio.Event = field(default_factory=anyio.Event)
    epoch: int = 0
    error: CheckpointError | None = None


class Coordinator:
    """Runs the epochs of one attempt, beginning with `first_epoch`.

    Without a store (at_most_once) the same protocol runs and nothing is kept.
    """

    def __init__(
        self,
        participants: Participants,
        links: Links,
        scheduler: Scheduler,
        clock: Clock,
        store: DirectoryStore | None = None,
        *,
        first_epoch: int = 1,
    ) -> None:
        self.input_ended = False
        """Whether the last epoch was that of the end of the input."""
        self.committed: int | None = None
        """The last epoch whose commits are all acknowledged."""
        self.open: int | None = None
        """The epoch that is under way."""
        self._who = participants
        self._links = links
        self._scheduler = scheduler
        self._clock = clock
        self._store = store
        self._next_epoch = first_epoch
        self._opened_ms: int | None = None
        self._started_ns = 0
        self._acknowledged: list[Acknowledge] = []
        self._tasks: list[TaskEpoch] = []
        self._pending: Pending | None = None
        self._complete: list[Acknowledge] | None = None
        self._reading = {
            (source, index)
            for source in participants.sources
            for index in range(participants.tasks[source])
        }
        self._draining = False
        self._ended = False
        self._savepoints: list[_SavepointRequest] = []
        self._news = anyio.Event()
        self._statistics: EpochStatistics | None = None

    # ------------------------------------------------------------------------- what others may ask

    def receive(self, message: TaskMessage) -> None:
        """Take a message of a task; `CheckpointError` for one that cannot be."""
        if isinstance(message, SourceEnded):
            self._reading.discard((message.task, message.subtask))
        elif self._pending is not None:
            self._tasks.append(self._part_of(message))
            complete = self._pending.acknowledge(message)
            if complete is not None:
                self._complete = complete
        self._wake()

    def drain(self) -> None:
        """Ask for a final epoch now (or after the one that is open); `run` returns after it."""
        self._draining = True
        self._wake()

    async def savepoint(self, path: str) -> int:
        """Write a savepoint of the next epoch, which opens now; return its number.

        `CheckpointError` where it cannot be written (the flow goes on), or the flow ends before.
        """
        if self._store is None:
            raise CheckpointError("a savepoint needs a job with a checkpoint folder")
        if self._ended:
            raise CheckpointError(f"flow {self._who.flow!r} has ended: no savepoint can be taken")
        request = _SavepointRequest(path)
        self._savepoints.append(request)
        self._wake()
        await request.done.wait()
        if request.error is not None:
            raise request.error
        return request.epoch

    def statistics(self) -> EpochStatistics | None:
        """Return how the last committed epoch went; None before the first."""
        return self._statistics

    def waiting_for(self) -> list[tuple[str, int]]:
        """Return the (task, subtask)s that have not acknowledged the open epoch."""
        return [] if self._pending is None else self._pending.missing

    # ---------------------------------------------------------------------------------------- life

    async def run(self) -> None:
        """Run epochs until the input has ended or `drain` was asked for; the last one is committed.

        Raises what an epoch fails with: `CheckpointError`, `LeaseError`, or what a sink's commit
        raised.
        """
        try:
            final = False
            while not final:
                await self._wait_until_due()
                final = await self._run_epoch()
        finally:
            self._ended = True
            self._refuse_savepoints()

    async def _wait_until_due(self) -> None:
        # Asked once: a scheduler may count the first epoch's time from the moment it is asked.
        due_ms = self._scheduler.next_epoch_ms(self._clock.now_ms(), self._opened_ms)
        while not (self._draining or self._savepoints or not self._reading):
            if due_ms <= self._clock.now_ms():
                return
            self._news = anyio.Event()
            alarm = self._clock.call_at(due_ms, self._wake)
            try:
                await self._news.wait()
            finally:
                alarm.cancel()

    async def _run_epoch(self) -> bool:
        """Run one epoch to its end; say whether it was the final one."""
        epoch, end = self._next_epoch, not self._reading
        final = end or self._draining
        requests, self._savepoints = self._savepoints, []
        self.open = epoch
        try:
            manifest = await self._take_snapshot(epoch, final, end)
            await self._commit(manifest)
            self.committed, self.open = epoch, None
            self.input_ended = end
            self._links.tell_sources(EpochCommitted(epoch))
            failpoint("sources.told")
            if final:
                requests += self._savepoints
                self._savepoints = []
            if self._store is not None:
                for request in requests:
                    await _serve(self._store, manifest, request)
                await self._store.retain(epoch)
        finally:
            self._savepoints = [r for r in requests if not r.done.is_set()] + self._savepoints
        self._next_epoch = epoch + 1
        return final

    async def _take_snapshot(self, epoch: int, final: bool, end: bool) -> Manifest:
        self._opened_ms = self._clock.now_ms()
        self._started_ns = self._clock.monotonic_ns()
        failpoint("epoch.chosen")
        self._complete = None
        self._tasks = []
        self._pending = Pending(epoch, self._who.tasks)
        self._links.tell_sources(OpenEpoch(epoch, final, end))
        self._acknowledged = await self._gather()
        self._pending = None
        manifest = self._manifest(epoch, end)
        if self._store is not None:
            await self._store.write(manifest)
        return manifest

    async def _gather(self) -> list[Acknowledge]:
        while self._complete is None:
            self._news = anyio.Event()
            await self._news.wait()
        return self._complete

    def _manifest(self, epoch: int, end: bool) -> Manifest:
        parts = [part for message in self._acknowledged for part in message.operators]
        parallelism: dict[str, int] = {}
        for part in parts:
            parallelism[part.operator] = max(parallelism.get(part.operator, 0), part.subtask + 1)
        return Manifest(
            flow=self._who.flow,
            epoch=epoch,
            generation=0 if self._store is None else self._store.lease.generation,
            created_ms=self._clock.now_ms(),
            delivery=self._who.delivery,
            finished=end,
            sinks=[sink for group in self._who.commit_order() for sink in group],
            parallelism=parallelism,
            operators=parts,
        )

    async def _commit(self, manifest: Manifest) -> None:
        if self._store is not None:
            # Whoever took the folder over decides alone whether this epoch counts.
            await self._store.lease.check()
        before_ns = self._clock.monotonic_ns()
        failpoint("commit.sent")
        for sinks in self._who.commit_order():
            committables = {sink: manifest.committables(sink) for sink in sinks}
            await self._links.commit(manifest.epoch, committables)
        failpoint("commit.acknowledged")
        self._note(manifest, self._clock.monotonic_ns() - before_ns)

    def _note(self, manifest: Manifest, commit_ns: int) -> None:
        messages = self._acknowledged
        self._statistics = EpochStatistics(
            epoch=manifest.epoch,
            opened_ms=self._opened_ms or 0,
            duration_ns=self._clock.monotonic_ns() - self._started_ns,
            align_ns=max((message.align_ns for message in messages), default=0),
            freeze_ns=max((message.freeze_ns for message in messages), default=0),
            write_ns=max((message.write_ns for message in messages), default=0),
            commit_ns=commit_ns,
            size=manifest.size(),
            entries=sum(file.entries for file in manifest.state_files().values()),
            tasks=tuple(self._tasks),
        )
        self._links.committed(self._statistics)

    def _part_of(self, message: Acknowledge) -> TaskEpoch:
        return TaskEpoch(
            message.task,
            message.subtask,
            self._clock.monotonic_ns() - self._started_ns,
            message.align_ns,
            message.freeze_ns,
            message.write_ns,
        )

    def _wake(self) -> None:
        self._news.set()

    def _refuse_savepoints(self) -> None:
        for request in self._savepoints:
            request.error = CheckpointError(
                f"flow {self._who.flow!r} ended before the savepoint in {request.path} was taken"
            )
            request.done.set()
        self._savepoints = []


async def _serve(store: DirectoryStore, manifest: Manifest, request: _SavepointRequest) -> None:
    try:
        await write_savepoint(store, manifest, request.path)
        request.epoch = manifest.epoch
    except CheckpointError as error:
        request.error = error
    request.done.set()
