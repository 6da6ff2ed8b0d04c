"""Files as a sink: part files that appear whole, once their epoch is committed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from flowrt.connectors.encoders import CsvEncoder, JsonEncoder
from flowrt.connectors.part_names import PartNames, is_prefix
from flowrt.connectors.part_writer import (
    OpenPart,
    Part,
    PartWriter,
    Prepared,
    RollPolicy,
    cannot_write,
)
from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.sink import Committable, Sink, SinkContext, Writer
from flowrt.contract.world import Files

_UNITS: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


class FileSink(Sink[Any]):
    """Writes part files named by epoch, subtask and sequence, such as "part-00000012-0-0.jsonl".

    Exactly once: an epoch's records are written to hidden files, made durable, and appear by
    rename when the epoch is committed, which can be done again with one effect. What a crash left
    is taken away or cut back when the flow starts again, so that visible parts hold each record
    once. The last parts must stay in place until the next epoch is committed, or that cannot be
    told.

    `format` is "jsonl" (what msgspec can encode: builtins, tuples as arrays, dataclasses, Structs)
    or "csv" (dicts, dataclasses, Structs, tuples; `fields` names the columns, else the first value
    does). A part ends at `roll_bytes` (a number, or text such as "128MB", "64MiB") or after
    `roll_epochs` epochs, whichever comes first; with more than one epoch records are durable at
    the end of theirs, but visible only when the part ends, or the flow.

    One sink owns a `prefix` in a folder; another is refused with `SinkError`, and so is a flow
    that starts from nothing where parts of an earlier life are. Other files in the folder are left
    alone.
    """

    kind = "repeatable"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: Literal["jsonl", "csv"] = "jsonl",
        *,
        roll_bytes: int | str = "128MB",
        roll_epochs: int = 1,
        fields: Sequence[str] | None = None,
        prefix: str = "part",
    ) -> None:
        if format not in ("jsonl", "csv"):
            raise ConfigError(f'the format is "jsonl" or "csv", not {format!r}')
        if fields is not None and (format != "csv" or not fields or isinstance(fields, str)):
            raise ConfigError(
                f"fields names the columns of a CSV file, not {fields!r} for {format}"
            )
        if roll_epochs < 1:
            raise ConfigError(f"roll_epochs must be at least 1, not {roll_epochs}")
        if not is_prefix(prefix):
            raise ConfigError(
                f"the prefix {prefix!r} must be of letters, digits, _ and -, and not begin with -"
            )
        self._folder = os.fspath(folder).rstrip("/") or "/"
        self._format = format
        self._fields = None if fields is None else list(fields)
        self._prefix = prefix
        self._roll = RollPolicy(_size_bytes(roll_bytes), roll_epochs)
        self._operator = ""
        self._files: Files | None = None

    def describe(self) -> str:
        """Return the kind and place of the files."""
        return f"files {self._folder}/{self._prefix}-* ({self._format})"

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        """See `Sink.writer`; files that an epoch left open go to the subtasks there are now."""
        encoder = CsvEncoder(self._fields) if self._format == "csv" else JsonEncoder()
        writer = PartWriter(ctx, self._folder, self._names(ctx), encoder, self._roll)
        mine = [one for one in _decode(prepared) if one.subtask % ctx.parallelism == ctx.subtask]
        for one in sorted(mine, key=lambda one: one.subtask):
            if one.open is not None:
                writer.go_on(one.open)
        return writer

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """See `Sink.commit`: the parts appear."""
        parts = [part for one in _decode(committables) for part in one.parts]
        files = self._files
        if not parts or files is None:
            return
        try:
            for part in parts:
                await self._reveal(files, part, epoch)
            await files.sync_folder(self._folder)
        except OSError as error:
            raise cannot_write(self._operator, self._folder, error) from error

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        """See `Sink.recover`."""
        self._files, self._operator = ctx.world.files, ctx.operator
        names = self._names(ctx)
        try:
            await self._make_folder(ctx.world.files)
            await self._claim(ctx.world.files, names)
            if epoch is None:
                await self._refuse_earlier_life(ctx.world.files, names)
            else:
                await self.commit(epoch, committables)
            keep = await self._bring_back(ctx, _decode(committables), names)
            await self._clean(ctx.world.files, names, keep, epoch or 0)
            await ctx.world.files.sync_folder(self._folder)
        except OSError as error:
            raise cannot_write(ctx.operator, self._folder, error) from error

    def _names(self, ctx: SinkContext) -> PartNames:
        return PartNames(self._prefix, ctx.operator, self._format)

    def _at(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    async def _make_folder(self, files: Files) -> None:
        missing = []
        folder = self._folder
        while folder and not await files.is_folder(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        await files.make_folder(self._folder)
        for made in reversed(missing):
            await files.sync_folder(os.path.dirname(made) or ".")

    async def _claim(self, files: Files, names: PartNames) -> None:
        """Mark the prefix as this sink's. Two that do so at the same time see each other's mark."""
        self._refuse_other_owner(names, await files.names(self._folder))
        if await files.size(self._at(names.owner)) is not None:
            return
        await files.write(self._at(names.owner), [f"{names.operator}\n".encode()])
        try:
            self._refuse_other_owner(names, await files.names(self._folder))
        except SinkError:
            await files.delete(self._at(names.owner))
            raise

    def _refuse_other_owner(self, names: PartNames, found: list[str]) -> None:
        for name in filter(names.is_other_owner, found):
            raise SinkError(
                f"sink {names.operator!r}: the files {self._at(self._prefix)}-* belong to another "
                f"sink, says {self._at(name)}. Give each sink a folder or a prefix of its own; if "
                "that sink is gone for good, delete that file"
            )

    async def _refuse_earlier_life(self, files: Files, names: PartNames) -> None:
        found = await files.names(self._folder)
        parts = [name for name in found if names.epoch_of(name) is not None]
        if parts:
            raise SinkError(
                f"sink {names.operator!r}: {self._folder} has {len(parts)} parts of an earlier "
                f"life of the flow ({parts[0]} to {parts[-1]}), and the flow starts from nothing: "
                "it would write the same results again. Give it another folder, delete these "
                "parts, or start it with the checkpoint folder that it had"
            )

    async def _reveal(self, files: Files, part: Part, epoch: int) -> None:
        staged = await files.size(self._at(part.staged))
        visible = await files.size(self._at(part.name))
        if staged is None and visible == part.size:
            return  # committed before
        if staged == part.size and visible is None:
            await files.rename(self._at(part.staged), self._at(part.name))
            return
        if staged is None and visible is None:
            raise SinkError(
                f"sink {self._operator!r} lost {part.size} bytes of epoch {epoch}: neither "
                f"{self._at(part.name)} nor {self._at(part.staged)} is there. Were they deleted or "
                "moved? Put one back; or start anew with an empty folder and no checkpoint"
            )
        raise SinkError(
            f"sink {self._operator!r} cannot commit epoch {epoch}: {self._at(part.name)} should "
            f"have {part.size} bytes, but has {visible}, and {self._at(part.staged)} has {staged} "
            "(None: it is not there). Does another job write to this folder?"
        )

    async def _bring_back(
        self, ctx: SinkContext, prepared: list[Prepared], names: PartNames
    ) -> set[str]:
        """Cut the files that the epoch left open to what they held then; return their names.

        They get the names of this generation, so that an instance that lost its lease and lives on
        cannot write to them.
        """
        files, found = ctx.world.files, await ctx.world.files.names(self._folder)
        by_token = {token: name for name in found if (token := names.token_of(name))}
        keep = set()
        for part in [one.open for one in prepared if one.open is not None]:
            mine = names.staged(part.token, ctx.generation)
            # Visible already: it was finished in a later epoch, which is now undone.
            name = by_token.get(part.token, part.name)
            size = await files.size(self._at(name))
            if size is None or size < part.size:
                raise self._lost(part, name, size)
            if name != mine:
                await files.rename(self._at(name), self._at(mine))
            if size > part.size:
                await files.write_at(self._at(mine), part.size, b"")
            keep.add(mine)
        return keep

    def _lost(self, part: OpenPart, name: str, size: int | None) -> SinkError:
        return SinkError(
            f"sink {self._operator!r} lost records: {self._at(name)} should have at least "
            f"{part.size} bytes, but {'is not there' if size is None else f'has {size}'}. Was it "
            "deleted or changed? Put it back; or start anew with an empty folder and no checkpoint"
        )

    async def _clean(self, files: Files, names: PartNames, keep: set[str], epoch: int) -> None:
        """Delete what later epochs left: staged files, and parts that count no more."""
        for name in await files.names(self._folder):
            undone = (names.epoch_of(name) or 0) > epoch
            if undone or (names.token_of(name) is not None and name not in keep):
                await files.delete(self._at(name))


def _decode(committables: Sequence[Committable]) -> list[Prepared]:
    return msgspec.convert(list(committables), list[Prepared])


def _size_bytes(size: Any) -> int:
    """Return a size in bytes: a number, or text such as "128MB" (10^6) or "64MiB" (2^20)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?b)\s*", str(size), re.IGNORECASE)
    if isinstance(size, str) and match and match[2].lower() in _UNITS:
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"{size!r} is not a size: use a number of bytes or text such as '128MB'")
    return size
