"""The manifest: one file that says what a checkpoint consists of; its rename commits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from flowrt.checkpoint.names import Made
from flowrt.checkpoint.plain import from_json, to_json
from flowrt.checkpoint.sealed import seal_as_it_is, unseal
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


class EncodedSplits:
    """Splits as lines of the last manifest, so that one that ended long ago is not encoded again.

    A source may have thousands of them, and hands in the same object for each in every epoch.
    """

    def __init__(self) -> None:
        self._last: dict[int, _EndedSplit] = {}

    def lines(self, parts: Sequence[OperatorSnapshot]) -> list[list[bytes]]:
        """Return a line of JSON for each split of each part."""
        last, now = self._last, dict[int, _EndedSplit]()
        every = []
        for part in parts:
            lines = []
            for split in part.splits:
                # What is kept here lives on, so nothing else has its id.
                ended = last.get(id(split))
                if ended is None:
                    ended = _EndedSplit(split, _line(split, part.operator))
                if split.ended:
                    now[id(split)] = ended
                lines.append(ended.line)
            every.append(lines)
        self._last = now
        return every


class _EndedSplit(NamedTuple):
    split: SplitState
    line: bytes


def _line(split: SplitState, operator: str) -> bytes:
    return msgspec.json.encode(_map_split(split, operator, to_json))


def encode_manifest(manifest: Manifest, splits: EncodedSplits | None = None) -> bytes:
    """Return the bytes of a manifest file; `CheckpointError` for data that cannot be kept.

    With `splits` those that ended are encoded once for all manifests.
    """
    try:
        lines = (splits or EncodedSplits()).lines(manifest.operators)
        parts = [_encode_part(part, of) for part, of in zip(manifest.operators, lines, strict=True)]
        head = msgspec.json.encode(replace(manifest, operators=[]))
    except UnicodeEncodeError as error:
        raise CheckpointError(f"the snapshot holds text that is not Unicode: {error}") from error
    return seal_as_it_is("manifest", _with_list(head, parts))


def _encode_part(part: OperatorSnapshot, splits: list[bytes]) -> bytes:
    """Return the JSON of an operator's part; its splits come last, each on a line of its own."""
    fields = msgspec.structs.asdict(_map_values(part, to_json))
    del fields["splits"]
    return _with_list(msgspec.json.encode({**fields, "splits": []}), splits)


def _with_list(body: bytes, items: list[bytes]) -> bytes:
    """Lay out a JSON object whose last field is an empty list, with these items in that list."""
    laid_out = msgspec.json.format(body, indent=2)
    if not items:
        return laid_out
    return laid_out.removesuffix(b"]\n}") + b"\n" + b",\n".join(items) + b"\n]\n}"


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
    kept = [_map(part, _as_it_was) for part in manifest.operators]
    return replace(manifest, operators=kept)


class FormatError(CheckpointError):
    """A manifest is whole, but of a format that this version does not read."""


def _as_it_was(value: Any, what: str) -> Any:
    return from_json(value)


def _map(part: OperatorSnapshot, change: Callable[[Any, str], Any]) -> OperatorSnapshot:
    """Change all fields that users fill."""
    splits = [_map_split(split, part.operator, change) for split in part.splits]
    return replace(_map_values(part, change), splits=splits)


def _map_values(part: OperatorSnapshot, change: Callable[[Any, str], Any]) -> OperatorSnapshot:
    """Change all fields that users fill but those of splits."""
    of = f"operator {part.operator!r}"
    return replace(
        part,
        data=change(part.data, f"what {of} keeps beside its state"),
        committable=change(part.committable, f"the committable of {of}"),
    )


def _map_split(split: SplitState, operator: str, change: Callable[[Any, str], Any]) -> SplitState:
    of = f"split {split.id!r} of operator {operator!r}"
    return replace(
        split,
        data=change(split.data, f"the data of {of}"),
        position=change(split.position, f"the position of {of}"),
        watermark=change(split.watermark, f"the watermark of {of}"),
        version=change(split.version, f"the version of {of}"),
    )
