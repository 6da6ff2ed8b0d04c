"""Reading keyed state out of a checkpoint, a key group at a time, while the job goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from flowrt.checkpoint.disk import disk_error
from flowrt.checkpoint.format import IndexEntry, read_blocks, read_index
from flowrt.checkpoint.manifest import Manifest
from flowrt.checkpoint.names import Made
from flowrt.checkpoint.recovery import cut_to_groups
from flowrt.checkpoint.store import DirectoryStore
from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import Block, StateFile
from flowrt.contract.state import KEY_GROUPS, group_range


class CheckpointReader:
    """One checkpoint, open for reading."""

    def __init__(self, store: DirectoryStore, manifest: Manifest) -> None:
        self._store = store
        self.manifest = manifest
        self._indexes: dict[StateFile, list[IndexEntry]] = {}

    async def blocks(self, operator: str, state: str, group: int) -> list[Block]:
        """Return a state's blocks of one key group, oldest first.

        `CheckpointError` where a file is missing or damaged.
        """
        blocks = []
        for file in cut_to_groups(self.manifest.parts(operator), range(group, group + 1)):
            path = self._store.state_path(file.name)
            wanted = [entry for entry in await self._index(file, group) if entry.state == state]
            try:
                for entry in wanted:
                    blocks += await read_blocks(self._store.files, path, [entry])
            except OSError as error:
                raise self._unread(file, error) from error
        return blocks

    async def states(self, operator: str, group: int) -> list[str]:
        """Return the names of the states that have something in a key group, sorted."""
        files = cut_to_groups(self.manifest.parts(operator), range(group, group + 1))
        names = {entry.state for file in files for entry in await self._index(file, group)}
        return sorted(names)

    def watermark(self, operator: str) -> int:
        """Return how far event time was at an operator (ms)."""
        parts = self.manifest.parts(operator)
        known = [part.watermark for part in parts if part.watermark not in (None, MAX_TIMESTAMP)]
        return min(known, default=MIN_TIMESTAMP)

    def shapes(self, operator: str) -> list[tuple[range, dict[str, Any]]]:
        """Return how an operator's states were written, by the key groups of each subtask."""
        parts = self.manifest.parts(operator)
        return [(group_range(part.subtask, len(parts)), part.shapes) for part in parts]

    async def _index(self, file: StateFile, group: int) -> list[IndexEntry]:
        # Of the whole file, whatever part of it belongs to the subtask: others take the rest.
        whole = replace(file, first_group=0, last_group=KEY_GROUPS - 1)
        if whole not in self._indexes:
            path = self._store.state_path(file.name)
            try:
                self._indexes[whole] = await read_index(self._store.files, path, whole)
            except OSError as error:
                raise self._unread(file, error) from error
        return [entry for entry in self._indexes[whole] if entry.group == group]

    def _unread(self, file: StateFile, error: OSError) -> CheckpointError:
        return disk_error(error, f"read the state file {file.name}", self._store.folder)


async def newest(store: DirectoryStore, committed: int | None) -> Made | None:
    """Return the newest checkpoint that is not newer than an epoch; None where there is none."""
    if committed is None:
        return None
    return next((made for made in await store.checkpoints() if made.epoch <= committed), None)


@asynccontextmanager
async def reading(store: DirectoryStore, made: Made) -> AsyncIterator[CheckpointReader]:
    """Hold a checkpoint while the block reads it.

    `GoneError` where the job is deleting it, `CheckpointError` where it cannot be read.
    """
    if not store.hold(made):
        raise GoneError(f"checkpoint {made.epoch} in {store.folder} is being deleted")
    try:
        yield CheckpointReader(store, await store.read(made))
    finally:
        store.let_go(made)


class GoneError(CheckpointError):
    """A checkpoint is being deleted: there is a newer one."""
