"""What a job holds from start to end: its checkpoint folder, or nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio

from flowrt.checkpoint.lease import Lease
from flowrt.checkpoint.recovery import (
    Recovery,
    cut_to_groups,
    recover,
    recover_decided,
    refuse_unknown,
)
from flowrt.checkpoint.savepoint import bring_in_savepoint
from flowrt.checkpoint.store import DirectoryStore
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.logs import flow_log
from flowrt.contract.sink import SinkContext
from flowrt.contract.snapshot import Block, OperatorSnapshot, SnapshotWriter, StateFile
from flowrt.graph.nodes import Plan, SinkNode
from flowrt.runtime.errors import asked
from flowrt.runtime.options import JobOptions

log = flow_log()


@dataclass(slots=True)
class Restored:
    """What an attempt goes on from; the `Memory` of its tasks."""

    recovery: Recovery = field(default_factory=Recovery)
    folder: CheckpointFolder | None = None

    @property
    def keeps(self) -> bool:
        """See `Memory.keeps`."""
        return self.folder is not None

    def parts(self, operator: str) -> Sequence[OperatorSnapshot]:
        """See `Memory.parts`."""
        return self.recovery.parts(operator)

    def files(self, operator: str, groups: range) -> Sequence[StateFile]:
        """See `Memory.files`."""
        return cut_to_groups(self.recovery.parts(operator), groups)

    async def blocks(self, files: Sequence[StateFile]) -> AsyncGenerator[list[Block], None]:
        """See `Memory.blocks`."""
        if self.folder is not None:
            async with aclosing(self.folder.store.load(files)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    yield piece

    def writer(
        self, operator: str, subtask: int, groups: range, restored: Sequence[StateFile]
    ) -> SnapshotWriter | None:
        """See `Memory.writer`."""
        if self.folder is None:
            return None
        store = self.folder.store
        who = Subtask(store.folder, operator, subtask, groups, store.lease.generation)
        return StateWriter(store.files, who, restored)


class Ownership:
    """Of a job without checkpoints: nothing is kept. Epochs still end, so sinks commit."""

    generation = 1
    store: DirectoryStore | None = None

    async def recover(self, sink: SinkNode | None, context: SinkContext | None) -> Restored:
        """Return nothing to go on from; a deciding sink fences a former instance all the same."""
        if sink is not None and context is not None:
            await _last_committed(sink, context)
        return Restored()

    async def next_generation(self) -> None:
        """Begin a new life in the same process."""

    async def begin(self) -> None:
        """Hear that the flow was not refused, and that its first epoch comes."""

    async def withdraw(self) -> None:
        """Let the next instance in, and leave what was new as it was: the flow never ran."""

    def release(self) -> None:
        """Let the next instance in."""


class CheckpointFolder(Ownership):
    """A checkpoint folder that this job owns: its store and lease."""

    store: DirectoryStore

    def __init__(self, plan: Plan, options: JobOptions, store: DirectoryStore) -> None:
        self._plan = plan
        self._options = options
        self.store = store

    @property
    def generation(self) -> int:  # type: ignore[override]
        """Grows with every start and restart on the folder."""
        return self.store.lease.generation

    async def recover(self, sink: SinkNode | None, context: SinkContext | None) -> Restored:
        """Choose and verify the checkpoint to go on from; `sink` is the deciding one, if any."""
        if sink is not None and context is not None:
            decided = await _last_committed(sink, context)
            recovery = await recover_decided(self.store, decided)
        else:
            recovery = await recover(self.store)
        if recovery.manifest is not None:
            operators = {node.id for node in self._plan.graph.nodes}
            allowed = self._options.allow_dropped_state
            dropped = refuse_unknown(recovery.manifest, operators, allowed)
            recovery.notes.extend(f"the state of operator {name!r} is dropped" for name in dropped)
        return Restored(recovery, self)

    async def next_generation(self) -> None:
        """Begin a new life in the same process: what was left half done must not count."""
        await self.store.lease.next_generation()

    async def begin(self) -> None:
        """Hear that the flow was not refused, and that its first epoch comes."""
        await self.store.make_state_folder()

    async def withdraw(self) -> None:
        """Let the next instance in, and leave what was new as it was: the flow never ran."""
        with anyio.CancelScope(shield=True):
            await self.store.lease.withdraw()

    def release(self) -> None:
        """Let the next instance in."""
        self.store.lease.release()


async def _last_committed(sink: SinkNode, context: SinkContext) -> int | None:
    answer = sink.sink.last_committed(context)
    return await asked(sink.id, "say which epoch it committed last", answer)


async def take_ownership(
    plan: Plan, options: JobOptions, claim: Callable[[], Awaitable[None]]
) -> Ownership:
    """Take the job's checkpoint folder, bringing in a savepoint where one is to be restored.

    `claim` takes what the sources need for themselves, before a present owner loses the folder.
    `LeaseError` where another instance owns it, `CheckpointError` where it cannot be used,
    `ConfigError` where it or the savepoint is not what its name says.
    """
    if options.checkpoints is None:
        await claim()
        return Ownership()
    world, folder = options.world, str(options.checkpoints)
    lease = await Lease.take(world, folder, take_over=options.take_over, before=claim)
    try:
        store = DirectoryStore(
            world.files, lease.folder, plan.graph.name, lease, options.keep_checkpoints
        )
        if options.restore is not None:
            path = str(options.restore)
            if await bring_in_savepoint(store, path, world.clock.now_ms()) is None:
                log.info(
                    "flow %s: going on from the checkpoints in %s, which began with the savepoint "
                    "in %s",
                    plan.graph.name,
                    lease.folder,
                    path,
                )
    except BaseException:
        with anyio.CancelScope(shield=True):
            await lease.withdraw()
        raise
    return CheckpointFolder(plan, options, store)
