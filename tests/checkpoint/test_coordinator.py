"""The coordinator: epochs one after the other, commits in order, requests, ends."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flowrt.checkpoint.coordinator import Coordinator, Links, Participants
from flowrt.checkpoint.names import Made
from flowrt.checkpoint.store import DirectoryStore
from flowrt.contract.errors import CheckpointError, LeaseError, SinkError
from flowrt.contract.snapshot import (
    Acknowledge,
    CoordinatorMessage,
    EpochCommitted,
    OpenEpoch,
    OperatorSnapshot,
    SourceEnded,
    SplitState,
    StateFile,
)
from flowrt.testing.world import ManualClock
from tests.checkpoint.kit import CrashAt, CrashError, Machine

pytestmark = pytest.mark.anyio


class Every:
    """A scheduler: an epoch each `interval_ms`, the first one interval after the start."""

    def __init__(self, interval_ms: int, start_ms: int = 1_000) -> None:
        self._interval_ms = interval_ms
        self._start_ms = start_ms

    def describe(self) -> str:
        return f"every {self._interval_ms} ms"

    def next_epoch_ms(self, now_ms: int, last_opened_ms: int | None) -> int:
        return (self._start_ms if last_opened_ms is None else last_opened_ms) + self._interval_ms


class Flow:
    """A flow of one source and two sinks, two subtasks each, that plays along."""

    def __init__(self, machine: Machine, store: DirectoryStore | None, **more: Any) -> None:
        self.told: list[CoordinatorMessage] = []
        self.commits: list[tuple[int, dict[str, list[Any]]]] = []
        self.silent: set[str] = set()
        self.on_commit: Callable[[int], None] = lambda epoch: None
        tasks = {"source": 2, "files": 2, "topic": 1}
        participants = Participants(
            "orders",
            "exactly_once" if store else "at_most_once",
            tasks,
            ["source"],
            ["files", "topic"],
            more.pop("deciding", None),
        )
        links = Links(self.tell_sources, self.commit)
        self.machine, self.tasks = machine, tasks
        self.coordinator = Coordinator(
            participants, links, Every(100), machine.clock, store, **more
        )

    def tell_sources(self, message: CoordinatorMessage) -> None:
        self.told.append(message)
        if isinstance(message, OpenEpoch):
            for task, parallelism in self.tasks.items():
                if task not in self.silent:
                    for subtask in range(parallelism):
                        self.acknowledge(task, subtask, message.epoch)

    def acknowledge(self, task: str, subtask: int, epoch: int) -> None:
        if task == "source":
            part = OperatorSnapshot(task, subtask, splits=[SplitState(f"s{subtask}", None, epoch)])
        else:
            prepared = None if (task, subtask) == ("files", 1) else [f"{task}-{epoch}"]
            part = OperatorSnapshot(task, subtask, committable=prepared)
        ack = Acknowledge(task, subtask, epoch, [part], align_ns=subtask, freeze_ns=2, write_ns=3)
        self.coordinator.receive(ack)

    async def commit(self, epoch: int, committables: Mapping[str, Sequence[Any]]) -> None:
        self.on_commit(epoch)
        self.commits.append((epoch, {sink: list(c) for sink, c in committables.items()}))

    def end_of_input(self) -> None:
        self.coordinator.receive(SourceEnded("source", 0))
        self.coordinator.receive(SourceEnded("source", 1))

    async def until_committed(self, epoch: int) -> None:
        while EpochCommitted(epoch) not in self.told:
            await checkpoint()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run until the body and the coordinator have ended."""
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(self.coordinator.run)
                await anyio.wait_all_tasks_blocked()
                yield


async def machine_with_store() -> tuple[Machine, DirectoryStore]:
    machine = Machine()
    return machine, await machine.store()


async def test_an_epoch_opens_when_due_and_is_committed() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)

    async with flow.running():
        machine.clock.advance(99)
        await anyio.wait_all_tasks_blocked()
        assert flow.told == []
        machine.clock.advance(1)
        await flow.until_committed(1)
        assert flow.told == [OpenEpoch(1), EpochCommitted(1)]
        assert flow.commits == [(1, {"files": [["files-1"]], "topic": [["topic-1"]]})]
        assert flow.coordinator.committed == 1
        flow.coordinator.drain()

    found = await store.read(Made(1, 1))
    assert found.delivery == "exactly_once"
    assert found.sinks == ["files", "topic"]
    assert found.parallelism == {"source": 2, "files": 2, "topic": 1}
    assert [part.splits[0].position for part in found.parts("source")] == [1, 1]
    assert not found.finished


async def test_the_end_of_the_input_makes_a_final_epoch() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store, first_epoch=8)

    async with flow.running():
        flow.coordinator.receive(SourceEnded("source", 1))
        await anyio.wait_all_tasks_blocked()
        assert flow.told == []
        flow.coordinator.receive(SourceEnded("source", 0))

    assert flow.told == [OpenEpoch(8, final=True, end=True), EpochCommitted(8)]
    assert flow.coordinator.input_ended
    assert (await store.read(Made(1, 8))).finished


async def test_a_drain_makes_a_final_epoch_that_is_not_the_end() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)

    async with flow.running():
        flow.coordinator.drain()
        flow.coordinator.drain()

    assert flow.told == [OpenEpoch(1, final=True), EpochCommitted(1)]
    assert not flow.coordinator.input_ended
    assert not (await store.read(Made(1, 1))).finished


async def test_epochs_never_overlap() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)
    flow.silent = {"files"}

    async with flow.running():
        machine.clock.advance(100)
        await anyio.wait_all_tasks_blocked()
        machine.clock.advance(10_000)
        flow.coordinator.drain()
        await anyio.wait_all_tasks_blocked()
        assert flow.told == [OpenEpoch(1)]
        assert flow.coordinator.waiting_for() == [("files", 0), ("files", 1)]
        assert flow.commits == []

        flow.silent = set()
        flow.acknowledge("files", 0, 1)
        flow.acknowledge("files", 1, 1)

    assert flow.told == [OpenEpoch(1), EpochCommitted(1), OpenEpoch(2, True), EpochCommitted(2)]
    assert flow.coordinator.waiting_for() == []


async def test_without_a_store_the_same_protocol_keeps_nothing() -> None:
    machine = Machine()
    flow = Flow(machine, None)

    async with flow.running():
        flow.end_of_input()

    assert [epoch for epoch, _ in flow.commits] == [1]
    assert machine.files.paths() == []
    with pytest.raises(CheckpointError, match="a checkpoint folder"):
        await flow.coordinator.savepoint("/data/savepoint")


async def test_a_deciding_sink_commits_before_the_others_and_after_the_manifest() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store, deciding="topic")
    seen = []
    flow.on_commit = lambda epoch: seen.append(store.manifest_path(Made(1, 1)))

    async with flow.running():
        flow.end_of_input()

    assert flow.commits == [(1, {"topic": [["topic-1"]]}), (1, {"files": [["files-1"]]})]
    assert set(seen) <= set(machine.files.paths())
    assert (await store.read(Made(1, 1))).sinks == ["topic", "files"]


async def test_old_checkpoints_are_deleted_as_epochs_are_committed() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)

    async with flow.running():
        for epoch in range(1, 6):
            machine.clock.advance(100)
            await flow.until_committed(epoch)
            await anyio.wait_all_tasks_blocked()
        flow.coordinator.drain()

    assert [made.epoch for made in await store.checkpoints()] == [6, 5]


async def test_a_commit_that_fails_ends_the_run_and_the_checkpoint_stays() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)

    def refuse(epoch: int) -> None:
        raise SinkError("the target is gone")

    flow.on_commit = refuse
    flow.end_of_input()
    with pytest.raises(SinkError, match="the target is gone"):
        await flow.coordinator.run()

    assert flow.told == [OpenEpoch(1, True, True)]
    assert flow.coordinator.committed is None
    assert await store.checkpoints() == [Made(1, 1)]


async def test_a_full_disk_fails_the_epoch_before_any_commit() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)
    machine.files.fail("write", "manifest", OSError(errno.ENOSPC, "No space left on device"))
    flow.end_of_input()

    with pytest.raises(CheckpointError, match="the disk is full"):
        await flow.coordinator.run()

    assert flow.commits == []


async def test_an_instance_that_lost_its_folder_cannot_commit() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)
    flow.silent = {"topic"}

    async def taken_over_in_the_middle() -> None:
        async with flow.running():
            machine.clock.advance(100)
            await anyio.wait_all_tasks_blocked()
            await machine.store(take_over=True)
            flow.acknowledge("topic", 0, 1)

    with pytest.raises(BaseExceptionGroup) as errors:
        await taken_over_in_the_middle()

    assert errors.group_contains(LeaseError, match="taken over by process 2")
    assert flow.commits == []
    assert await store.checkpoints() == []


async def test_an_instance_that_lost_its_folder_after_the_manifest_cannot_commit_either() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)
    sync_folder = machine.files.sync_folder

    async def then_taken_over(path: str) -> None:
        await sync_folder(path)
        if any("manifest-1-1" in name for name in machine.files.paths()):
            machine.files.sync_folder = sync_folder  # type: ignore[method-assign]
            await machine.store(take_over=True)

    machine.files.sync_folder = then_taken_over  # type: ignore[method-assign]
    flow.end_of_input()
    with pytest.raises(LeaseError):
        await flow.coordinator.run()

    assert flow.commits == []


async def test_an_acknowledgement_that_cannot_be_is_an_error() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)
    flow.silent = {"topic"}

    async with flow.running():
        flow.coordinator.receive(Acknowledge("source", 0, 1, []))
        machine.clock.advance(100)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(CheckpointError, match="no such subtask"):
            flow.coordinator.receive(Acknowledge("nobody", 0, 1, []))
        flow.silent = set()
        flow.acknowledge("topic", 0, 1)
        flow.coordinator.drain()


async def test_statistics_tell_how_the_last_epoch_went() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)
    flow.silent = {"topic"}
    assert flow.coordinator.statistics() is None

    def commit_takes_its_time(epoch: int) -> None:
        machine.clock.advance(7)

    flow.on_commit = commit_takes_its_time
    async with flow.running():
        machine.clock.advance(100)
        await anyio.wait_all_tasks_blocked()
        machine.clock.advance(5)
        shared = StateFile("a", 10, "", 4, 0, 127)
        parts = [OperatorSnapshot("count", 0, [shared]), OperatorSnapshot("count", 1, [shared])]
        flow.coordinator.receive(Acknowledge("topic", 0, 1, parts, align_ns=9))
        await flow.until_committed(1)

        found = flow.coordinator.statistics()
        assert found is not None
        assert (found.epoch, found.opened_ms) == (1, 1_100)
        assert (found.duration_ns, found.commit_ns) == (12_000_000, 7_000_000)
        assert (found.align_ns, found.freeze_ns, found.write_ns) == (9, 2, 3)
        assert (found.size, found.entries) == (10, 4)
        flow.silent = set()
        flow.coordinator.drain()


class TestSavepoints:
    async def test_a_savepoint_is_of_an_epoch_that_opens_now(self) -> None:
        machine, store = await machine_with_store()
        flow = Flow(machine, store)

        async with flow.running():
            epoch = await flow.coordinator.savepoint("/data/savepoint")
            flow.coordinator.drain()

        assert epoch == 1
        reader = machine.reader(folder="/data/savepoint")
        assert await reader.checkpoints() == [Made(1, 1)]
        assert flow.told[0] == OpenEpoch(1)

    async def test_one_that_fails_does_not_stop_the_flow(self) -> None:
        machine, store = await machine_with_store()
        flow = Flow(machine, store)
        machine.files.fail("write", "/data/savepoint", OSError(errno.ENOSPC, "No space left"))

        async with flow.running():
            with pytest.raises(CheckpointError, match="cannot write a savepoint"):
                await flow.coordinator.savepoint("/data/savepoint")
            machine.clock.advance(100)
            await flow.until_committed(2)
            flow.coordinator.drain()

    async def test_asked_for_in_the_last_epoch_it_is_of_that_one(self) -> None:
        machine, store = await machine_with_store()
        flow = Flow(machine, store)
        flow.silent = {"topic"}
        epochs = []

        async def ask() -> None:
            epochs.append(await flow.coordinator.savepoint("/data/savepoint"))

        async with flow.running(), anyio.create_task_group() as group:
            flow.coordinator.drain()
            await anyio.wait_all_tasks_blocked()
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            flow.acknowledge("topic", 0, 1)

        assert epochs == [1]

    async def test_a_flow_that_fails_or_has_ended_takes_none(self) -> None:
        machine, store = await machine_with_store()
        flow = Flow(machine, store)
        machine.files.fail("write", "manifest", OSError(errno.ENOSPC, "No space left"))
        refusals = []

        async def ask() -> None:
            with pytest.raises(CheckpointError) as error:
                await flow.coordinator.savepoint("/data/savepoint")
            refusals.append(str(error.value))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(CheckpointError, match="disk is full"):
                await flow.coordinator.run()
        await ask()

        assert refusals == [
            "flow 'orders' ended before the savepoint in /data/savepoint was taken",
            "flow 'orders' has ended: no savepoint can be taken",
        ]


async def test_cancelling_leaves_no_alarm_behind() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)

    async with anyio.create_task_group() as group:
        group.start_soon(flow.coordinator.run)
        await anyio.wait_all_tasks_blocked()
        assert isinstance(machine.clock, ManualClock)
        assert machine.clock.next_alarm_ms() == 1_100
        group.cancel_scope.cancel()

    assert machine.clock.next_alarm_ms() is None


async def test_the_steps_of_an_epoch_come_in_order() -> None:
    machine, store = await machine_with_store()
    flow = Flow(machine, store)
    flow.end_of_input()

    with CrashAt("sources.told") as steps, pytest.raises(CrashError):
        await flow.coordinator.run()

    assert steps.hits == [
        "epoch.chosen",
        "manifest.written",
        "manifest.synced",
        "manifest.renamed",
        "manifest.folder_synced",
        "commit.sent",
        "commit.acknowledged",
        "sources.told",
    ]
