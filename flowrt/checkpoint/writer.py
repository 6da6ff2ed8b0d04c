"""Makes the keyed state of one operator subtask durable: one file an epoch, merged now and then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from anyio.lowlevel import checkpoint

from flowrt.checkpoint.compaction import plan
from flowrt.checkpoint.disk import TEMPORARY, delete_quietly, disk_error
from flowrt.checkpoint.format import (
    PIECE_BYTES,
    IndexEntry,
    StateFileBuilder,
    batches,
    in_groups,
    read_blocks,
    read_index,
)
from flowrt.checkpoint.names import STATE_FOLDER, Kind, Made, state_name
from flowrt.contract.failpoints import failpoint
from flowrt.contract.merging import merge_in_slices
from flowrt.contract.snapshot import Block, Frozen, StateFile
from flowrt.contract.world import Files

TURN_BYTES: Final = 32 * 1024
"""The event loop gets a turn after merging or hashing this much."""


@dataclass(frozen=True, slots=True)
class Subtask:
    """Whose state it is, where it goes, and which instance of the job writes it.

    `folder` is the checkpoint folder, `groups` the key groups that the subtask owns.
    """

    folder: str
    operator: str
    subtask: int
    groups: range
    generation: int


class StateWriter:
    """The `SnapshotWriter` of one operator subtask.

    `restored` are the files that the subtask was restored from, oldest first, cut to its key
    groups. Files no longer needed stay: an older checkpoint may need them (see `DirectoryStore`).
    """

    def __init__(self, files: Files, subtask: Subtask, restored: Sequence[StateFile] = ()) -> None:
        self._disk = files
        self._subtask = subtask
        self._files = list(restored)

    async def write(self, epoch: int, frozen: Frozen | None) -> list[StateFile]:
        """See `SnapshotWriter.write`; gives the event loop a turn between slices."""
        blocks = [] if frozen is None else await _encode(frozen)
        if frozen is not None and frozen.is_whole:
            self._files = []
        if blocks:
            sizes = [file.size for file in self._files]
            merge = plan([*sizes, sum(len(block.data) for block in blocks)])
            try:
                if merge is None:
                    self._files.append(await self._write(epoch, blocks))
                else:
                    self._files[merge.start :] = [await self._merge(epoch, merge.start, blocks)]
            except OSError as error:
                what = f"write the state of operator {self._subtask.operator!r} for epoch {epoch}"
                raise disk_error(error, what, self._subtask.folder) from error
        return list(self._files)

    async def _write(self, epoch: int, blocks: Iterable[Block]) -> StateFile:
        file = self._new_file(epoch, "d")
        with_turns = _Turns()
        async with file:
            for block in blocks:
                await file.add(block)
                await with_turns.after(len(block.data))
            return await file.finish()

    async def _merge(self, epoch: int, start: int, newest: Sequence[Block]) -> StateFile:
        """Merge the files from `start` on and the blocks not yet written into one new file."""
        layers: list[_Layer] = [
            _FileLayer(self._disk, self._path(file.name), await self._index(file))
            for file in self._files[start:]
        ]
        layers.append(_BlockLayer(newest))
        file = self._new_file(epoch, "m")
        with_turns = _Turns()
        async with file:
            for groups in batches([layer.index for layer in layers]):
                blocks = [block for layer in layers for block in await layer.read(groups)]
                for same in _by_group_and_state(blocks):
                    # A deletion may be forgotten only where no older file can hold the entry.
                    merged = await _merged(same, drop_deleted=start == 0)
                    if merged.entries:
                        await file.add(merged)
                        await with_turns.after(len(merged.data))
            return await file.finish()

    async def _index(self, file: StateFile) -> list[IndexEntry]:
        return await read_index(self._disk, self._path(file.name), file)

    def _new_file(self, epoch: int, kind: Kind) -> _NewFile:
        mine = self._subtask
        made = Made(mine.generation, epoch)
        name = state_name(mine.operator, mine.subtask, kind, made)
        return _NewFile(self._disk, self._path(name), name, mine.groups)

    def _path(self, name: str) -> str:
        return f"{self._subtask.folder}/{STATE_FOLDER}/{name}"


async def _encode(frozen: Frozen) -> list[Block]:
    blocks: list[Block] = []
    for slice_ in frozen.encode():
        blocks = slice_
        await checkpoint()
    return sorted(blocks, key=lambda block: block.group)


async def _merged(same: list[Block], drop_deleted: bool) -> Block:
    for done, merged in enumerate(merge_in_slices(same, drop_deleted)):
        if merged is not None:
            return merged
        if done:  # small blocks are many, and need hardly more than one slice
            await checkpoint()
    raise AssertionError("a merge ends with its block")


def _by_group_and_state(blocks: list[Block]) -> Iterator[list[Block]]:
    # The sort is stable: of each group and state, older blocks stay before newer ones.
    blocks = sorted(blocks, key=_group_and_state)
    for _, same in groupby(blocks, key=_group_and_state):
        yield list(same)


def _group_and_state(block: Block) -> tuple[int, str]:
    return block.group, block.state


@dataclass
class _Turns:
    """Gives the event loop a turn after so many bytes of work."""

    done: int = 0

    async def after(self, size: int) -> None:
        self.done += size
        if self.done >= TURN_BYTES:
            self.done = 0
            await checkpoint()


class _FileLayer:
    """What an older file adds to a merge."""

    def __init__(self, files: Files, path: str, index: list[IndexEntry]) -> None:
        self._files = files
        self._path = path
        self.index = index

    async def read(self, groups: range) -> list[Block]:
        return await read_blocks(self._files, self._path, in_groups(self.index, groups))


class _BlockLayer:
    """What the blocks still in memory add to a merge."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self.index = [
            IndexEntry(block.state, block.group, block.entries, 0, len(block.data), b"")
            for block in blocks
        ]

    async def read(self, groups: range) -> list[Block]:
        return [block for block in self._blocks if block.group in groups]


_Layer = _FileLayer | _BlockLayer


@dataclass
class _NewFile:
    """A state file on its way: temporary until `finish`, gone where that is never reached."""

    files: Files
    path: str
    name: str
    groups: range
    _builder: StateFileBuilder = field(default_factory=StateFileBuilder)
    _written: int = 0

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Only after an error of the disk: a cancelled task must not wait for it.
        if isinstance(error, OSError):
            await delete_quietly(self.files, self.path + TEMPORARY)

    async def add(self, block: Block) -> None:
        self._builder.add(block)
        if self._builder.waiting >= PIECE_BYTES:
            await self._flush()

    async def finish(self) -> StateFile:
        self._builder.finish()
        await self._flush()
        failpoint("state.written")
        await self.files.sync(self.path + TEMPORARY)
        failpoint("state.synced")
        await self.files.rename(self.path + TEMPORARY, self.path)
        failpoint("state.renamed")
        await self.files.sync_folder(self.path.rpartition("/")[0])
        return self._builder.state_file(self.name, self.groups)

    async def _flush(self) -> None:
        data = b"".join(self._builder.take())
        if self._written:
            await self.files.write_at(self.path + TEMPORARY, self._written, data)
        else:
            await self.files.write(self.path + TEMPORARY, [data])
        self._written += len(data)
