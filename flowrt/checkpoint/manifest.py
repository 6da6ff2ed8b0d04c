"""The manifest: one file that says what a checkpoint consists of; its rename commits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from flowrt.checkpoint.names import Made
from flowrt.checkpoint.plain import from_json, to_json
from flowrt.checkpoint.sealed import seal, unseal
from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import Delivery, OperatorSnapshot, SplitState, StateFile

FORMAT: Final = 1


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A whole snapshot of a flow.

    `operators` has one part for each subtask of each operator, source and sink. `sinks` are the
    ids of all sinks in the order of their commits. `finished` says that the input ended with this
    epoch, `savepoint` that the checkpoint was brought in from a savepoint.
    """

    format: int = FORMAT
    flow: str
    epoch: int
    generation: int
    created_ms: int
    delivery: Delivery
    finished: bool = False
    savepoint: bool = False
    sinks: list[str] = []
    parallelism: dict[str, int] = {}
    operators: list[OperatorSnapshot] = []

    @property
    def made(self) -> Made:
        """Which generation made it, for which epoch."""
        return Made(self.generation, self.epoch)

    def parts(self, operator: str) -> list[OperatorSnapshot]:
        """Return the parts of an operator, by subtask; [] for an unknown one."""
        parts = [part for part in self.operators if part.operator == operator]
        return sorted(parts, key=lambda part: part.subtask)

    def committables(self, sink: str) -> list[Any]:
        """Return what a sink's subtasks prepared, by subtask, without those that had nothing."""
        parts = self.parts(sink)
        return [part.committable for part in parts if part.committable is not None]

    def state_files(self) -> dict[str, StateFile]:
        """Return all state files that the checkpoint needs, by name."""
        return {file.name: file for part in self.operators for file in part.files}

    def size(self) -> int:
        """Return how many bytes its state files have together."""
        return sum(file.size for file in self.state_files().values())


_DECODER = msgspec.json.Decoder(Manifest)


class _Head(msgspec.Struct):
    format: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest file; `CheckpointError` for data that cannot be kept."""
    kept = [_map(part, to_json) for part in manifest.operators]
    try:
        body = msgspec.json.encode(replace(manifest, operators=kept))
    except UnicodeEncodeError as error:
        raise CheckpointError(f"the snapshot holds text that is not Unicode: {error}") from error
    return seal("manifest", body)


def decode_manifest(data: bytes, path: str) -> Manifest:
    """Read a manifest file; `CheckpointError` where it is torn, damaged or of another format."""
    body = unseal("manifest", data, path)
    version = msgspec.json.decode(body, type=_Head).format
    if version != FORMAT:
        raise FormatError(
            f"{path} has format {version}, this flowrt reads format {FORMAT}: run the job with "
            "the flowrt that wrote it"
        )
    manifest = _DECODER.decode(body)
    kept = [_map(part, lambda value, _: from_json(value)) for part in manifest.operators]
    return replace(manifest, operators=kept)


class FormatError(CheckpointError):
    """A manifest is whole, but of a format that this version does not read."""


def _map(part: OperatorSnapshot, change: Callable[[Any, str], Any]) -> OperatorSnapshot:
    """Change all fields that users fill."""
    of = f"operator {part.operator!r}"
    return replace(
        part,
        data=change(part.data, f"what {of} keeps beside its state"),
        committable=change(part.committable, f"the committable of {of}"),
        splits=[_map_split(split, of, change) for split in part.splits],
    )


def _map_split(split: SplitState, of: str, change: Callable[[Any, str], Any]) -> SplitState:
    return replace(
        split,
        data=change(split.data, f"the data of split {split.id!r} of {of}"),
        position=change(split.position, f"the position of split {split.id!r} of {of}"),
        watermark=change(split.watermark, f"the watermark of split {split.id!r} of {of}"),
        version=change(split.version, f"the version of split {split.id!r} of {of}"),
    )
