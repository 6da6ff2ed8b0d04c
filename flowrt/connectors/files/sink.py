"""Files as a sink: part files that appear whole, once their epoch is committed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from flowrt.connectors.files.encoders import CsvEncoder, Encoder, JsonEncoder
from flowrt.connectors.files.part_names import PartNames, is_prefix
from flowrt.connectors.files.part_owner import PartOwner
from flowrt.connectors.files.part_writer import (
    OpenPart,
    Part,
    PartWriter,
    Prepared,
    RollPolicy,
    cannot_write,
)
from flowrt.connectors.sizes import size_bytes
from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.folders import make_folder_durably
from flowrt.contract.logs import flow_log
from flowrt.contract.plural import plural
from flowrt.contract.sink import Committable, Sink, SinkContext, Writer
from flowrt.contract.world import Files

_log = flow_log("flowrt.connectors.files")

_BEGIN_ANEW: Final = (
    "or start anew with an empty folder and no checkpoint. If this job goes on from a savepoint "
    "and should write to another folder, give the sink another name, too: it begins anew there, "
    "with what follows the savepoint"
)


class FileSink(Sink[Any]):
    """Writes part files such as "part-00000012-0-000000.jsonl": epoch, subtask, sequence.

    Exactly once: an epoch's records are written to hidden files, made durable, and appear by
    rename when the epoch is committed, which can be done again with one effect. What a crash left
    is taken away or cut back when the flow starts again, so that visible parts hold each record
    once. The last parts must stay in place until the next epoch is committed, or that cannot be
    told.

    `format` is "jsonl" (what msgspec can encode: builtins, tuples as arrays, dataclasses, Structs;
    the floats nan and inf, for which JSON has no form, are refused, or null with `allow_nan`; of a
    `DeadLetter` what JSON has no form for becomes text, for one bad record must stop no flow) or
    "csv" (dicts, dataclasses, Structs, tuples; `fields` names the columns, else the first value
    does). A part ends at `roll_bytes` (a number, or text such as "128MB", "64MiB") or after
    `roll_epochs` epochs, whichever comes first; with more than one epoch records are durable at
    the end of theirs, but visible only when the part ends, or the flow.

    One sink owns a `prefix` in a folder; another is refused with `ConfigError`, and so is a flow
    that starts from nothing where parts of an earlier life are; a second job on the same prefix,
    while one runs, with `LeaseError`. A job that goes on from an older checkpoint or savepoint
    takes the parts of later epochs away, with a warning. Other files in the folder are left alone.
    A flow whose `FileSource` would read the parts is refused with `GraphError`.
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
        allow_nan: bool = False,
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
        if not os.fspath(folder):
            raise ConfigError("the folder of a FileSink is empty text: name one, or . for this one")
        self._folder = os.fspath(folder).rstrip("/") or "/"
        self._format = format
        self._fields = None if fields is None else list(fields)
        self._prefix = prefix
        self._allow_nan = allow_nan
        self._roll = RollPolicy(size_bytes(roll_bytes), roll_epochs)
        self._operator = ""
        self._files: Files | None = None
        self._owner: PartOwner | None = None

    def describe(self) -> str:
        """Return the kind and place of the files."""
        return f"files {self._folder}/{self._prefix}-* ({self._format})"

    @property
    def first_part(self) -> str:
        """The path of the first file that appears; all others are called alike."""
        return self._at(PartNames(self._prefix, self._operator, self._format).part(1, 0, 0))

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[Any]:
        """See `Sink.writer`; files that an epoch left open go to the subtasks there are now."""
        writer = PartWriter(ctx, self._folder, self._names(ctx), self._encoder(), self._roll)
        mine = [one for one in _decode(prepared) if one.subtask % ctx.parallelism == ctx.subtask]
        for one in sorted(mine, key=lambda one: one.subtask):
            if one.open is not None:
                writer.go_on(one.open)
        return writer

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """See `Sink.commit`: the parts appear."""
        if self._owner is not None:
            self._owner.stay()
        await self._commit(epoch, committables)

    async def _commit(self, epoch: int, committables: Sequence[Committable]) -> None:
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
        self._owner = PartOwner(ctx, self._folder, names, goes_on=epoch is not None)
        try:
            await make_folder_durably(ctx.world.files, self._folder)
            await self._owner.take()
            if epoch is None:
                await self._refuse_earlier_life(ctx.world.files, names)
            else:
                await self._commit(epoch, committables)
            keep = await self._bring_back(ctx, _decode(committables), names)
            await self._clean(ctx.world.files, names, keep, epoch or 0)
            await ctx.world.files.sync_folder(self._folder)
        except OSError as error:
            raise cannot_write(ctx.operator, self._folder, error) from error

    async def close(self) -> None:
        """See `Sink.close`: the next job may write to the folder."""
        if self._owner is not None:
            await self._owner.let_go()

    def _encoder(self) -> Encoder:
        if self._format == "csv":
            return CsvEncoder(self._fields)
        return JsonEncoder(allow_nan=self._allow_nan)

    def _names(self, ctx: SinkContext) -> PartNames:
        return PartNames(self._prefix, ctx.operator, self._format)

    def _at(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    async def _refuse_earlier_life(self, files: Files, names: PartNames) -> None:
        found = await files.names(self._folder)
        parts = [name for name in found if names.epoch_of(name) is not None]
        if parts:
            many = f"{len(parts)} {plural(len(parts), 'part')}"
            which = parts[0] if len(parts) == 1 else f"{parts[0]} to {parts[-1]}"
            raise ConfigError(
                f"sink {names.operator!r}: {self._folder} has {many} of an earlier life of the "
                f"flow ({which}), and the flow starts from nothing: it would write the same "
                "results again. Give it another folder, delete what is there, or "
                "start it with the checkpoint folder that it had"
            )

    async def _reveal(self, files: Files, part: Part, epoch: int) -> None:
        staged = await files.size(self._at(part.staged))
        visible = await files.size(self._at(part.name))
        if staged is None and visible == part.size:
            return  # committed before
        if staged == part.size and visible is None:
            await files.rename(self._at(part.staged), self._at(part.name))
            return
        size = f"{part.size} {plural(part.size, 'byte')}"
        if staged is None and visible is None:
            raise SinkError(
                f"sink {self._operator!r} lost {size} of epoch {epoch}: neither "
                f"{self._at(part.name)} nor {self._at(part.staged)} is there. Were they deleted or "
                f"moved? Put one back; {_BEGIN_ANEW}"
            )
        raise SinkError(
            f"sink {self._operator!r} cannot commit epoch {epoch}: {self._at(part.name)} should "
            f"have {size}, but has {visible}, and {self._at(part.staged)} has {staged} "
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
        wanted = f"{part.size} {plural(part.size, 'byte')}"
        return SinkError(
            f"sink {self._operator!r} lost records: {self._at(name)} should have at least "
            f"{wanted}, but {'is not there' if size is None else f'has {size}'}. Was it "
            f"deleted or changed? Put it back; {_BEGIN_ANEW}"
        )

    async def _clean(self, files: Files, names: PartNames, keep: set[str], epoch: int) -> None:
        """Delete what later epochs left: staged files, and parts that count no more."""
        found = await files.names(self._folder)
        undone = [name for name in found if (names.epoch_of(name) or 0) > epoch]
        if undone:
            _log.warning(
                "sink %r: the flow goes on from epoch %d, so %d %s of later epochs %s taken "
                "away (%s to %s); what is in there is written again",
                names.operator,
                epoch,
                len(undone),
                plural(len(undone), "part"),
                "is" if len(undone) == 1 else "are",
                self._at(undone[0]),
                undone[-1],
                extra={"operator": names.operator},
            )
        left = [name for name in found if names.token_of(name) is not None and name not in keep]
        for name in [*undone, *left]:
            await files.delete(self._at(name))


def _decode(committables: Sequence[Committable]) -> list[Prepared]:
    return msgspec.convert(list(committables), list[Prepared])
