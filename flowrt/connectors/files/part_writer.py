"""Writes one subtask's staged files."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from flowrt.connectors.files.encoders import Encoder
from flowrt.connectors.files.part_names import PartNames
from flowrt.contract.errors import SinkError
from flowrt.contract.sink import Committable, SinkContext
from flowrt.contract.world import World

WRITE_BYTES: Final = 1024 * 1024


class Part(msgspec.Struct, frozen=True):
    """A finished staged file: its name, the name under which it appears, its size in bytes."""

    staged: str
    name: str
    size: int


class OpenPart(msgspec.Struct, frozen=True):
    """A staged file that later epochs go on writing, as it was at the end of an epoch."""

    token: str
    name: str
    size: int
    epochs: int
    fields: list[str] | None = None


class Prepared(msgspec.Struct, frozen=True):
    """What a writer hands over for an epoch: parts to commit, and the one that goes on."""

    subtask: int
    parts: list[Part] = []
    open: OpenPart | None = None


@dataclass(frozen=True, slots=True)
class RollPolicy:
    """When a part is finished: at the first write that takes it to `bytes`, or after `epochs`."""

    bytes: int
    epochs: int


@dataclass(slots=True)
class _StagedFile:
    token: str
    path: str
    size: int = 0
    name: str | None = None
    """Its visible name, which it gets at the end of the first epoch that it is part of."""
    epochs: int = 0
    synced: bool = False


@dataclass(slots=True)
class _Lines:
    """Encoded lines that were not written yet."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class PartWriter:
    """Writes lines to a staged file until it is rolled. No file is open between two calls."""

    def __init__(
        self,
        ctx: SinkContext,
        folder: str,
        names: PartNames,
        encoder: Encoder,
        roll: RollPolicy,
    ) -> None:
        self._operator = ctx.operator
        self._subtask = ctx.subtask
        self._generation = ctx.generation
        self._world: World = ctx.world
        self._folder = folder
        self._names = names
        self._encoder = encoder
        self._roll = roll
        self._lines = _Lines()
        self._open: _StagedFile | None = None
        self._finished: list[_StagedFile] = []
        self._folder_changed = False

    def go_on(self, part: OpenPart) -> None:
        """Take over a file that an epoch left open; one that can't go on is finished as it is."""
        path = self._names.staged(part.token, self._generation)
        # Not synced: what was cut off behind its size may come back until it is.
        staged = _StagedFile(part.token, path, part.size, part.name, part.epochs)
        columns = self._encoder.fields
        goes_on = (
            self._open is None
            and part.epochs < self._roll.epochs
            and part.name.endswith(f".{self._names.extension}")
            and (columns is None or columns == part.fields)
        )
        if goes_on:
            self._open = staged
            self._encoder.fields = part.fields
        else:
            self._finished.append(staged)

    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        """See `Writer.write`; writes when a megabyte is together, or the part is full."""
        try:
            data = self._encoder.encode(values)
        except SinkError as error:
            raise SinkError(f"sink {self._operator!r}: {error}") from error
        self._lines.pieces.append(data)
        self._lines.size += len(data)
        size = self._lines.size + (self._open.size if self._open is not None else 0)
        if self._lines.size >= WRITE_BYTES or size >= self._roll.bytes:
            await self._flush()

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        """See `Writer.prepare`."""
        await self._flush()
        self._give_names(epoch)
        if self._open is not None:
            self._open.epochs += 1
            if final or self._open.epochs >= self._roll.epochs:
                await self._finish()
            else:
                await self._sync(self._open)
        for file in self._finished:  # one that was taken over was cut, and that must last, too
            await self._sync(file)
        if self._folder_changed:
            await self._do(self._world.files.sync_folder(self._folder), self._folder)
            self._folder_changed = False
        finished, self._finished = self._finished, []
        if not finished and self._open is None:
            return None
        prepared = Prepared(self._subtask, [_part(file) for file in finished], self._as_open())
        return msgspec.to_builtins(prepared)

    async def close(self) -> None:
        """See `Writer.close`."""

    def _give_names(self, epoch: int) -> None:
        files = [*self._finished, *([self._open] if self._open is not None else [])]
        new = [file for file in files if file.name is None]
        for sequence, file in enumerate(new):
            file.name = self._names.part(epoch, self._subtask, sequence)

    def _as_open(self) -> OpenPart | None:
        file = self._open
        if file is None:
            return None
        return OpenPart(file.token, file.name or "", file.size, file.epochs, self._encoder.fields)

    async def _flush(self) -> None:
        if not self._lines.size:
            return
        file = self._open
        if file is None:
            token = self._world.randomness.token()
            file = self._open = _StagedFile(token, self._names.staged(token, self._generation))
            self._lines.pieces.insert(0, self._encoder.header())
            self._folder_changed = True
        data = b"".join(self._lines.pieces)
        self._lines = _Lines()
        path = f"{self._folder}/{file.path}"
        await self._do(self._world.files.write_at(path, file.size, data), path)
        file.size += len(data)
        file.synced = False
        if file.size >= self._roll.bytes:
            await self._finish()

    async def _finish(self) -> None:
        file, self._open = self._open, None
        if file is not None:
            await self._sync(file)
            self._finished.append(file)

    async def _sync(self, file: _StagedFile) -> None:
        if not file.synced:
            path = f"{self._folder}/{file.path}"
            await self._do(self._world.files.sync(path), path)
            file.synced = True

    async def _do(self, operation: Any, path: str) -> None:
        try:
            await operation
        except OSError as error:
            raise cannot_write(self._operator, path, error) from error


def _part(file: _StagedFile) -> Part:
    return Part(file.path, file.name or "", file.size)


def cannot_write(operator: str, path: str, error: OSError) -> SinkError:
    """Return the error for a file or folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "make room."
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        advice = "it is no folder, or lies below a file: give the sink another folder."
    elif error.errno == errno.ENOENT:
        advice = "is another job using the folder, or did somebody delete it?"
    else:
        advice = "give the sink a folder that this process may write to."
    return SinkError(
        f"sink {operator!r} cannot write {path}: {error.strerror or error}; {advice} "
        "What was committed is whole; start the flow again to go on from there"
    )
